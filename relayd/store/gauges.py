"""What a scrape reads: how deep the queue is, how old, and how much of the limits is used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from relayd.rules.breaker import BreakerState
from relayd.rules.budgets import BudgetKind
from relayd.rules.states import LIVE, LaneClass, Status
from relayd.store.connection import Connection


class LimitUse(StrEnum):
    """How much of today's limit a mailbox has used; `paused` if it may not send whatever its limit says."""

    UNLIMITED = "unlimited"
    BELOW_HALF = "below_half"
    ABOVE_HALF = "above_half"
    EXHAUSTED = "exhausted"
    PAUSED = "paused"


# A budget has no state of its own that could pause it.
BUDGET_USES = tuple(use for use in LimitUse if use is not LimitUse.PAUSED)


@dataclass(frozen=True, slots=True)
class Gauges:
    """Every key is there, with 0 where there is nothing."""

    entries: Mapping[Status, int]
    oldest_age_seconds: Mapping[Status, float]
    mailboxes: Mapping[LimitUse, int]
    blocked_lanes: Mapping[LaneClass, int]
    budgets: Mapping[tuple[BudgetKind, LimitUse], int]
    dead_grants: int = 0
    breakers: Mapping[str, BreakerState] = field(default_factory=dict)  # by upstream
    failures: Mapping[str, int] = field(default_factory=dict)  # in a row, by upstream


# Live entries by state and the age of the oldest. Index: email_queue_live.
QUEUE = """
SELECT s.status, count(q.created_at) AS entries,
       COALESCE(GREATEST(extract(epoch FROM relayd_now() - min(q.created_at)), 0), 0)::float8 AS oldest_age_seconds
  FROM unnest($1::text[]) AS s (status)
  LEFT JOIN LATERAL (
       SELECT created_at FROM email_queue
        WHERE status = s.status AND (status IN ('pending', 'queued', 'sending')) IS TRUE) q ON true
 GROUP BY s.status
"""

# Mailboxes by use of their limit; the lane knows whether mailbox, domain and client may send. All mailboxes are read.
MAILBOXES = """
SELECT CASE WHEN l.held THEN 'paused'
            WHEN u.daily_send_limit IS NULL THEN 'unlimited'
            WHEN u.used >= u.daily_send_limit THEN 'exhausted'
            WHEN u.used::bigint * 2 >= u.daily_send_limit THEN 'above_half'
            ELSE 'below_half' END AS limit_use,
       count(*) AS mailboxes
  FROM email_mailbox_usage u JOIN mailbox_lanes l ON l.mailbox_id = u.mailbox_id AND l.class = 'mail' AND l.is_home
 GROUP BY 1
"""

# Lanes in which something waits although its time has come, since a limit or the upstream says later. All are read.
BLOCKED_LANES = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now)
SELECT class, count(*) AS lanes FROM mailbox_lanes, clock
 WHERE NOT held AND due_at <= now AND blocked_until > now GROUP BY class
"""

# Index: upstream_breakers_pkey.
BREAKERS = """
SELECT u.name, COALESCE(k.state, 'closed') AS state, COALESCE(k.consecutive_failures, 0) AS failures
  FROM email_configurations u LEFT JOIN upstream_breakers k ON k.upstream_id = u.id
 WHERE u.deleted_at IS NULL ORDER BY u.name LIMIT 1000
"""

# Budgets by kind and use, those of suspended owners too. All are read.
BUDGETS = """
SELECT kind, CASE WHEN unit_limit IS NULL THEN 'unlimited'
                  WHEN used >= unit_limit THEN 'exhausted'
                  WHEN used::bigint * 2 >= unit_limit THEN 'above_half'
                  ELSE 'below_half' END AS limit_use,
       count(*) AS budgets
  FROM budget_usage GROUP BY 1, 2
"""


# Upstreams whose grant gives no token. Index: oauth_tokens_dead.
DEAD_GRANTS = "SELECT count(DISTINCT upstream_id) FROM oauth_tokens WHERE died_at IS NOT NULL"


async def read(connection: Connection) -> Gauges:
    """As of now. Takes some 100 ms for a million entries: do not ask at every scrape of many."""
    queue = {Status(row["status"]): row for row in await connection.fetch(QUEUE, [str(each) for each in LIVE])}
    mailboxes = {row["limit_use"]: row["mailboxes"] for row in await connection.fetch(MAILBOXES)}
    lanes = {row["class"]: row["lanes"] for row in await connection.fetch(BLOCKED_LANES)}
    upstreams = await connection.fetch(BREAKERS)
    budgets = {(row["kind"], row["limit_use"]): row["budgets"] for row in await connection.fetch(BUDGETS)}
    return Gauges(
        entries={status: row["entries"] for status, row in queue.items()},
        oldest_age_seconds={status: row["oldest_age_seconds"] for status, row in queue.items()},
        mailboxes={use: mailboxes.get(use, 0) for use in LimitUse},
        blocked_lanes={each: lanes.get(each, 0) for each in LaneClass},
        breakers={row["name"]: BreakerState(row["state"]) for row in upstreams},
        failures={row["name"]: row["failures"] for row in upstreams},
        budgets={(kind, use): budgets.get((kind, use), 0) for kind in BudgetKind for use in BUDGET_USES},
        dead_grants=await connection.fetchval(DEAD_GRANTS),
    )
