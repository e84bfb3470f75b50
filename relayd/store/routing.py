"""What intake and the walk over the queue need to know of routes and weights, and the lanes that these make."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.rules.routing import Choice, RouteRule
from relayd.rules.states import LaneClass, Status
from relayd.store import lanes
from relayd.store.connection import Connection

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)

# $1 client; NULL: of all clients. In the order in which they are asked: those of a mailbox first.
# Indexes: mail_routes_client, mail_route_upstreams_route_id_upstream_id_key.
ROUTES = """
SELECT r.id, r.client_id, r.mailbox_id, r.recipient_domain, r.header_from,
       ARRAY(SELECT x.upstream_id FROM mail_route_upstreams x WHERE x.route_id = r.id ORDER BY x.position) AS upstreams,
       ARRAY(SELECT x.weight FROM mail_route_upstreams x WHERE x.route_id = r.id ORDER BY x.position) AS weights
  FROM mail_routes r
 WHERE r.deleted_at IS NULL AND ($1::uuid IS NULL OR r.client_id IS NULL OR r.client_id = $1)
 ORDER BY r.mailbox_id IS NULL, r.position, r.name
"""

# Whether any mailbox of the client ($1; NULL: of anybody) has weights. Index: mailbox_upstreams_client.
HAS_WEIGHTS = """
SELECT EXISTS (SELECT FROM mailbox_upstreams WHERE ($1::uuid IS NULL OR client_id = $1) AND weight IS NOT NULL)
"""

# Index: mailbox_upstreams_mailbox_id_upstream_id_key.
CHOICES = """
SELECT mailbox_id, upstream_id, weight FROM mailbox_upstreams WHERE mailbox_id = ANY($1::uuid[])
 ORDER BY mailbox_id, position
"""

# Index: mailbox_lanes_mailbox_id_class_key.
LANE = "SELECT relayd_lane($1, $2, $3, $4)"

# The one row. NULL: the queue is as routes and lists say. A change is followed at once and again each of $1 later: what
# came in meanwhile may still have been put where it was before, and what was in flight has come back to where it was.
CHANGED = """
SELECT relayd_now() AS now, routes_changed_at FROM relayd_state
 WHERE rerouted_at <= routes_changed_at
    OR EXISTS (SELECT FROM unnest($1::interval[]) AS t (again_after)
                WHERE rerouted_at < routes_changed_at + again_after
                  AND relayd_now() >= routes_changed_at + again_after)
"""
FOLLOWED = "UPDATE relayd_state SET rerouted_at = $1"
CHANGE = "UPDATE relayd_state SET routes_changed_at = relayd_now()"

# What waits in state $1, a page of it: $2 and $3 the last one seen, $4 how many. Bounces go by their mailbox's list
# whatever routes say. Indexes: email_queue_live, messages_pkey, mailbox_lanes_pkey.
PAGE = """
SELECT q.id, q.created_at, q.message_id, q.recipient_address, q.lane_id, m.header_from, l.mailbox_id, l.class,
       l.client_id, l.route_id, l.share_id
  FROM (SELECT id, created_at, message_id, recipient_address, lane_id FROM email_queue
         WHERE (status IN ('pending', 'queued', 'sending')) IS TRUE AND status = $1
           AND created_at >= $2 AND (created_at, id) > ($2, $3::uuid)
         ORDER BY created_at, id LIMIT $4) q
  JOIN messages m ON m.id = q.message_id
  JOIN mailbox_lanes l ON l.id = q.lane_id
 ORDER BY q.created_at, q.id
"""

# $1 entries, $2 their lanes now, $3 where they go. Locked in their order; those that somebody has claimed or moved are
# left alone. Indexes: email_queue_pkey.
MOVE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
given AS (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS t (id, from_lane, to_lane)),
target AS MATERIALIZED (
  SELECT q.id, given.to_lane FROM email_queue q JOIN given ON given.id = q.id
   WHERE q.lane_id = given.from_lane AND q.status IN ('pending', 'queued')
   ORDER BY q.id FOR NO KEY UPDATE OF q),
changed AS (
  UPDATE email_queue q SET lane_id = target.to_lane, updated_at = clock.now
    FROM target, clock WHERE q.id = target.id
  RETURNING q.id, q.client_id, q.message_id, q.lane_id, q.status, q.next_attempt_at),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, created_at, updated_at)
  SELECT client_id, message_id, id, 'rerouted', 'as routes and lists say now', now, now FROM changed, clock)
SELECT lane_id, status, next_attempt_at FROM changed
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry that waits, and where it stands."""

    entry_id: UUID
    created_at: datetime
    queue_id: UUID
    recipient: Address
    author: Address
    lane_id: int
    mailbox_id: UUID
    lane_class: LaneClass
    client_id: UUID
    route_id: UUID | None
    share_id: UUID | None


@dataclass(frozen=True, slots=True)
class ClientRoutes:
    """The routes that a client's mail may take, in order, and whether a mailbox of it has weights."""

    rules: tuple[RouteRule, ...]
    has_weights: bool


async def routes_of(connection: Connection, client_id: UUID) -> ClientRoutes:
    """Those that all clients share included."""
    rows = await connection.fetch(ROUTES, client_id)
    return ClientRoutes(tuple(_rule(row) for row in rows), await connection.fetchval(HAS_WEIGHTS, client_id))


async def choices_of(connection: Connection, mailbox_ids: Sequence[UUID]) -> dict[UUID, tuple[Choice, ...]]:
    """The lists of those mailboxes that have several upstreams."""
    found: dict[UUID, list[Choice]] = {}
    for row in await connection.fetch(CHOICES, mailbox_ids):
        found.setdefault(row["mailbox_id"], []).append(Choice(row["upstream_id"], row["weight"]))
    return {mailbox_id: tuple(choices) for mailbox_id, choices in found.items()}


async def lane(
    connection: Connection, mailbox_id: UUID, lane_class: LaneClass, route_id: UUID | None, share_id: UUID | None
) -> int | None:
    """The lane of that way, made if need be; it stays. None if the mailbox is gone for good."""
    found: int | None = await connection.fetchval(LANE, mailbox_id, lane_class, route_id, share_id)
    return found


async def changed(connection: Connection) -> None:
    """Routes or lists say something else from now on: what waits is to follow."""
    await connection.execute(CHANGE)


async def to_follow(connection: Connection, *, again_after: Sequence[timedelta]) -> datetime | None:
    """The moment at which a walk over the queue begins, if one is due: after a change, and so much later once more."""
    row = await connection.fetchrow(CHANGED, again_after)
    return row["now"] if row else None


async def followed(connection: Connection, began_at: datetime) -> None:
    """A walk that began then has come to its end."""
    await connection.execute(FOLLOWED, began_at)


async def waiting(connection: Connection, status: Status, after: Waiting | None, limit: int) -> list[Waiting]:
    """The next entries that wait in that state, the oldest first, behind `after`."""
    behind = (after.created_at, after.entry_id) if after else (_FIRST, UUID(int=0))
    return [
        Waiting(
            entry_id=row["id"],
            created_at=row["created_at"],
            queue_id=row["message_id"],
            recipient=Address.stored(row["recipient_address"]),
            author=Address.stored(row["header_from"]),
            lane_id=row["lane_id"],
            mailbox_id=row["mailbox_id"],
            lane_class=LaneClass(row["class"]),
            client_id=row["client_id"],
            route_id=row["route_id"],
            share_id=row["share_id"],
        )
        for row in await connection.fetch(PAGE, status, *behind, limit)
    ]


async def move(connection: Connection, moves: Sequence[tuple[UUID, int, int]]) -> int:
    """Move entries (id, from lane, to lane) that still wait there; returns how many. Call inside a transaction."""
    rows = await connection.fetch(MOVE, *(list(column) for column in zip(*moves, strict=True)))
    due = [(row["lane_id"], row["next_attempt_at"]) for row in rows if row["status"] == "queued"]
    if due:
        await lanes.requeue(connection, due)
    return len(rows)


def _rule(row: asyncpg.Record) -> RouteRule:
    return RouteRule(
        id=row["id"],
        mailbox_id=row["mailbox_id"],
        recipient_domain=row["recipient_domain"],
        header_from=row["header_from"],
        choices=tuple(Choice(*each) for each in zip(row["upstreams"], row["weights"], strict=True)),
    )
