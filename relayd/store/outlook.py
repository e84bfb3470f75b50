"""What decides when the mail of a lane leaves: its budgets as they stand, what waits, and who else draws on them."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from relayd.rules.budget import Budget, Growth, Release
from relayd.rules.budgets import BudgetKind
from relayd.rules.course import Line
from relayd.rules.estimate import ENDLESS, MOST_STEPS, Outlook
from relayd.rules.warm_up import Schedule
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration says of releases: the schedule of mailboxes without one, and how far they are spread."""

    schedule: Schedule
    release_spread_seconds: float


@dataclass(frozen=True, slots=True)
class Reach:
    """How far to look: entries counted in the lane, other lanes of a shared budget, entries counted in each."""

    entries: int
    rivals: int
    rival_entries: int


@dataclass(frozen=True, slots=True)
class LaneOutlook:
    """A lane with its budgets by id, and the lanes that share them. `is_capped`: more waits than was counted."""

    now: datetime
    line: Line
    budgets: dict[int, Budget]  # those of the rivals too
    rivals: tuple[Line, ...]
    is_capped: bool
    is_held: bool  # nothing leaves until somebody acts

    @property
    def own_budgets(self) -> list[Budget]:
        """Those that a send from this lane has to fit."""
        return [self.budgets[id] for id in self.line.budget_ids]

    def outlook(self, *, most_steps: int = MOST_STEPS) -> Outlook:
        """When the units of this lane leave, however many come after them."""
        return Outlook(
            replace(self.line, waiting=ENDLESS), self.budgets, self.rivals, now=self.now, most_steps=most_steps
        )


# $1 a lane, $2 entries to count in it, $3 other lanes, $4 entries to count in each. Others are those that have mail and
# share one of its limits: of its mailbox; where its domain or client has one, of its client by any upstream; of anybody
# where the upstream as a whole is limited. Nobody else is looked at, for there may be thousands.
# Indexes: mailbox_lanes_pkey, mailbox_lanes_mailbox_id_class_key, mailbox_lanes_client, mailbox_lanes_runnable,
# email_queue_due.
LINES = """
WITH own AS MATERIALIZED (
  SELECT l.*, limits.*
    FROM mailbox_lanes l, LATERAL (
      SELECT COALESCE(array_agg(b.id), '{}') AS limited,
             bool_or(b.kind IN ('domain_day', 'client_day')) AS is_client_limited,
             bool_or(g.id IS NOT NULL) AS is_upstream_limited
        FROM budgets b
        LEFT JOIN google_workspace_quota g ON g.id = b.owner_id AND g.mailbox_id IS NULL
       WHERE b.id = ANY(l.budget_ids) AND b.unit_limit IS NOT NULL) limits
   WHERE l.id = $1),
rival AS (
  SELECT DISTINCT ON (r.id) r.id FROM (
    SELECT x.id FROM own JOIN mailbox_lanes x ON x.mailbox_id = own.mailbox_id AND x.id <> own.id
     WHERE NOT x.held AND x.runnable_at < 'infinity' AND x.budget_ids && own.limited
    UNION ALL
    SELECT l.id FROM own CROSS JOIN email_configurations u CROSS JOIN LATERAL (
      SELECT x.id FROM mailbox_lanes x
       WHERE x.upstream_id = u.id AND x.client_id = own.client_id AND NOT x.held AND x.runnable_at < 'infinity'
         AND x.budget_ids && own.limited AND x.id <> own.id
       ORDER BY x.runnable_at LIMIT $3) l
     WHERE own.is_client_limited
    UNION ALL
    SELECT l.id FROM own CROSS JOIN LATERAL (
      SELECT x.id FROM mailbox_lanes x
       WHERE x.upstream_id = own.upstream_id AND NOT x.held AND x.runnable_at < 'infinity'
         AND x.budget_ids && own.limited AND x.id <> own.id
       ORDER BY x.runnable_at LIMIT $3) l
     WHERE own.is_upstream_limited) r)
SELECT clock.now, l.id, l.class, l.client_id, l.budget_ids, l.held,
       NULLIF(l.blocked_until, '-infinity') AS blocked_until,
       (abs(hashtext(l.mailbox_id::text)) % 1000) / 1000.0::float8 AS spread_share,
       (SELECT count(*) FROM (
          SELECT FROM email_queue q WHERE q.lane_id = l.id AND q.status = 'queued'
           LIMIT CASE WHEN chosen.is_own THEN $2::int ELSE $4::int END) counted) AS waiting
  FROM (SELECT relayd_now() AS now) clock
  CROSS JOIN (SELECT id, true AS is_own FROM own UNION ALL (SELECT id, false FROM rival LIMIT $3)) chosen
  JOIN mailbox_lanes l ON l.id = chosen.id
 ORDER BY chosen.is_own DESC, l.id
"""

# $1 budgets. A warming mailbox's limit grows unless its warm-up is paused or the mailbox is. Indexes: budgets_pkey,
# budget_releases_pkey, and the keys of the owners.
BUDGETS = """
SELECT u.budget_id, u.kind, u.unit_limit, u.bulk_limit, u.used, u.is_rolling, u.span, u.time_zone, u.turns_at,
       COALESCE(m.email_address, d.domain, c.name, goes.name) AS owner, user_of.email_address AS quota_user,
       ARRAY(SELECT r.frees_at FROM budget_releases r WHERE r.budget_id = u.budget_id AND r.frees_at > clock.now
              ORDER BY r.frees_at) AS frees_at,
       ARRAY(SELECT r.units FROM budget_releases r WHERE r.budget_id = u.budget_id AND r.frees_at > clock.now
              ORDER BY r.frees_at) AS freed_units,
       COALESCE(m.warmup_enabled AND m.warmup_completed_at IS NULL AND m.warmup_paused_at IS NULL
                AND m.status IN ('warming', 'active'), false) AS grows,
       m.warmup_stage, m.warmup_schedule, m.daily_limit_cap, mine.bulk_reserve_percent, lesson.told, lesson.told_at
  FROM (SELECT relayd_now() AS now) clock
  CROSS JOIN budget_usage u
  LEFT JOIN email_mailboxes m ON m.id = u.owner_id
  LEFT JOIN clients mine ON mine.id = m.client_id
  LEFT JOIN email_domains d ON d.id = u.owner_id
  LEFT JOIN clients c ON c.id = u.owner_id
  LEFT JOIN google_workspace_quota g ON g.id = u.owner_id
  LEFT JOIN email_configurations goes ON goes.id = g.upstream_id
  LEFT JOIN email_mailboxes user_of ON user_of.id = g.mailbox_id
  LEFT JOIN budgets lesson ON lesson.id = u.budget_id AND u.used >= u.unit_limit AND lesson.told_at > clock.now - u.span
 WHERE u.budget_id = ANY($1::int[])
 ORDER BY u.budget_id
"""

# The home lane of ordinary mail first. Index: mailbox_lanes_mailbox_id_class_key.
LANES_OF = """
SELECT id FROM mailbox_lanes WHERE mailbox_id = $1 AND class IN ('mail', 'bulk') ORDER BY is_home DESC, class DESC, id
"""

# $1 lanes. What is scheduled for later, by the hour. Index: email_queue_scheduled.
COMING = """
SELECT q.lane_id, date_trunc('hour', q.next_attempt_at) AS at, count(*) AS units
  FROM email_queue q
 WHERE q.pending_reason = 'scheduled' AND q.lane_id = ANY($1::bigint[])
 GROUP BY 1, 2 ORDER BY 1, 2
"""


async def find(connection: Connection, lane_id: int, terms: Terms, reach: Reach) -> LaneOutlook:
    """The lane as it stands."""
    rows = await connection.fetch(LINES, lane_id, reach.entries, reach.rivals, reach.rival_entries)
    budget_ids = sorted({budget_id for row in rows for budget_id in row["budget_ids"]})
    found = await connection.fetch(BUDGETS, budget_ids) if budget_ids else []
    budgets = {row["budget_id"]: _budget(row, terms) for row in found}
    own, *rivals = rows
    return LaneOutlook(
        now=own["now"],
        line=_line(own, budgets, terms),
        budgets=budgets,
        rivals=tuple(_line(row, budgets, terms) for row in rivals),
        is_capped=own["waiting"] >= reach.entries
        or len(rivals) >= reach.rivals
        # As many go before ours as wait, but no more of each than there are before it in its own lane.
        or any(own["waiting"] >= row["waiting"] >= reach.rival_entries for row in rivals),
        is_held=own["held"],
    )


async def of_mailbox(connection: Connection, mailbox_id: UUID, terms: Terms, reach: Reach) -> list[LaneOutlook]:
    """The lanes of a mailbox's own mail, as they stand, with what is scheduled for later in them."""
    lane_ids = [row["id"] for row in await connection.fetch(LANES_OF, mailbox_id)]
    coming: dict[int, list[tuple[datetime, int]]] = {lane_id: [] for lane_id in lane_ids}
    for row in await connection.fetch(COMING, lane_ids):
        coming[row["lane_id"]].append((row["at"], row["units"]))
    found = [await find(connection, lane_id, terms, reach) for lane_id in lane_ids]
    return [replace(lane, line=replace(lane.line, arrivals=tuple(coming[lane.line.lane_id]))) for lane in found]


def _line(row: asyncpg.Record, budgets: dict[int, Budget], terms: Terms) -> Line:
    return Line(
        waiting=row["waiting"],
        # One that has just been taken away limits nothing.
        budget_ids=tuple(id for id in row["budget_ids"] if id in budgets),
        is_bulk=row["class"] == "bulk",
        client=str(row["client_id"]),
        not_before=row["blocked_until"],
        lane_id=row["id"],
        spread=timedelta(seconds=terms.release_spread_seconds * row["spread_share"]),
    )


def _budget(row: asyncpg.Record, terms: Terms) -> Budget:
    growth = None
    if row["grows"] and row["unit_limit"] is not None:
        schedule = Schedule.parse(row["warmup_schedule"]) if row["warmup_schedule"] else terms.schedule
        growth = Growth(schedule, row["warmup_stage"], row["daily_limit_cap"], row["bulk_reserve_percent"])
    return Budget(
        id=row["budget_id"],
        kind=BudgetKind(row["kind"]),
        owner=row["owner"] or "that has been removed",
        user=row["quota_user"],
        unit_limit=row["unit_limit"],
        bulk_limit=row["bulk_limit"],
        used=row["used"],
        is_rolling=row["is_rolling"],
        span=row["span"],
        time_zone=row["time_zone"],
        turns_at=row["turns_at"],
        releases=tuple(
            Release(frees_at, units) for frees_at, units in zip(row["frees_at"], row["freed_units"], strict=True)
        ),
        growth=growth,
        told=row["told"],
        told_at=row["told_at"],
    )
