"""How relayd stands at a glance: depth, age, the day's counts, what is blocked, what is in flight."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from relayd.store.connection import Connection
from relayd.store.ids import first_id_at

# The day is counted back from now over at most so many events, so that a busy day costs no more than that.
MOST_EVENTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Day:
    """Events of the last 24 hours; from `since` on, which is later where there were too many to count."""

    since: datetime
    is_whole: bool
    events: dict[str, int]


@dataclass(frozen=True, slots=True)
class Blocked:
    """Lanes with mail that may not leave now, and why."""

    reason: str
    lanes: int


@dataclass(frozen=True, slots=True)
class UpstreamLoad:
    """An upstream and how many entries are in flight to it."""

    name: str
    provider: str
    is_active: bool
    paused_at: datetime | None
    paused_reason: str | None
    in_flight: int
    breaker: str
    breaker_reason: str | None
    breaker_retry_at: datetime | None  # None: closed, or until somebody closes it
    consecutive_failures: int
    last_failure: str | None
    last_failed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole."""

    now: datetime
    paused_at: datetime | None
    paused_reason: str | None
    depth: dict[str, int]
    oldest_queued_at: datetime | None
    day: Day
    blocked: list[Blocked]
    upstreams: list[UpstreamLoad]


STATE = "SELECT relayd_now() AS now, clock_timestamp() AS clock, paused_at, paused_reason FROM relayd_state"

# Live states only. Index: email_queue_live.
DEPTH = """
SELECT status, count(*) AS count, min(created_at) AS oldest FROM email_queue
 WHERE (status IN ('pending', 'queued', 'sending')) IS TRUE GROUP BY 1
"""

# $1 the first id of the span, $2 the most to count, newest first. Index: email_delivery_logs_pkey.
DAY = """
SELECT event, count(*) AS count, min(created_at) AS oldest
  FROM (SELECT event, created_at FROM email_delivery_logs WHERE id >= $1 ORDER BY id DESC LIMIT $2) newest GROUP BY 1
"""

# Lanes are as few as mailboxes; those without mail say so by their due_at.
BLOCKED = """
SELECT CASE WHEN held THEN 'mailbox, domain or client is paused or suspended' ELSE blocked_reason END AS reason,
       count(*) AS lanes
  FROM mailbox_lanes
 WHERE due_at < 'infinity' AND (held OR blocked_until > relayd_now()) GROUP BY 1 ORDER BY 2 DESC, 1
"""

# Indexes: email_queue_in_flight, upstream_breakers_pkey.
UPSTREAMS = """
SELECT u.name, u.provider_type AS provider, u.is_active, u.paused_at, u.paused_reason,
       COALESCE(flight.count, 0) AS in_flight, COALESCE(k.state, 'closed') AS breaker, k.reason AS breaker_reason,
       NULLIF(k.retry_at, 'infinity') AS breaker_retry_at,
       COALESCE(k.consecutive_failures, 0) AS consecutive_failures, k.last_failure, k.last_failed_at
  FROM email_configurations u
  LEFT JOIN (SELECT upstream_id, count(*) AS count FROM email_queue WHERE status = 'sending' GROUP BY 1) flight
    ON flight.upstream_id = u.id
  LEFT JOIN upstream_breakers k ON k.upstream_id = u.id
 WHERE u.deleted_at IS NULL ORDER BY u.name
"""


async def read(connection: Connection, *, most_events: int = MOST_EVENTS) -> Overview:
    """One view of the whole; call inside a read-only transaction."""
    state = await connection.fetchrow(STATE)
    assert state is not None
    depth = await connection.fetch(DEPTH)
    return Overview(
        now=state["now"],
        paused_at=state["paused_at"],
        paused_reason=state["paused_reason"],
        depth={row["status"]: row["count"] for row in depth},
        oldest_queued_at=next((row["oldest"] for row in depth if row["status"] == "queued"), None),
        # Log ids are stamped by the server's clock, which no test moves.
        day=await _day(connection, state["now"], first_id_at(state["clock"] - timedelta(days=1)), most_events),
        blocked=[Blocked(row["reason"] or "no reason given", row["lanes"]) for row in await connection.fetch(BLOCKED)],
        upstreams=[UpstreamLoad(**row) for row in await connection.fetch(UPSTREAMS)],
    )


async def _day(connection: Connection, now: datetime, first_id: UUID, most_events: int) -> Day:
    rows = await connection.fetch(DAY, first_id, most_events)
    events = {row["event"]: row["count"] for row in rows}
    is_whole = sum(events.values()) < most_events
    since = now - timedelta(days=1) if is_whole else min(row["oldest"] for row in rows)
    return Day(since, is_whole, events)
