"""What the ledger learns when a provider says that its limit is spent, though we have counted less.

Others send from that account too. What they have sent, and when, nobody tells: the missing units count as if they had
been sent evenly through the window, so that a few are free again soon to find out, and all when the span has passed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.rules.settlement import SpentLimit
from relayd.store import budget

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# A rolling window's missing units come back in so many parts: hourly for a day's limit.
PARTS = 24
# However soon the next unit of ours is freed, a provider that has just said no is not asked again before this.
LEAST_SECONDS = 300

_KINDS = {"day": "provider_day", "hour": "provider_hour"}


@dataclass(frozen=True, slots=True)
class Lessons:
    """What providers have said in one batch: by kind of budget, among which of them it is, and in what words."""

    _said: dict[tuple[UUID, str, bool], tuple[Sequence[int], str]] = field(default_factory=dict)

    def add(self, mailbox_id: UUID, budget_ids: Sequence[int], spent: SpentLimit, text: str) -> None:
        """One entry's: the budgets that it held, and the reply."""
        self._said.setdefault((mailbox_id, _KINDS[spent.limit], spent.is_whole), (budget_ids, text))

    def rows(self) -> list[tuple[UUID, int, str, bool, str]]:
        """A row a budget that it may be about."""
        return [
            (mailbox_id, budget_id, kind, is_whole, text)
            for (mailbox_id, kind, is_whole), (budget_ids, text) in self._said.items()
            for budget_id in budget_ids
        ]


# $1 budgets, of the right kind or not, $2 kinds, $3 whether of the upstream as a whole, $4 words, $5 parts. The
# transaction holds the budgets already (their units were returned in it), so nothing is waited for here. A calendar
# window that has turned meanwhile knows nothing of it, for the reply was about the one before; nor does a window that
# the clock was set back behind. Indexes: budgets_pkey, google_workspace_quota_pkey, budget_releases_pkey.
LEARN = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
said AS MATERIALIZED (
  SELECT DISTINCT ON (b.id) b.id, b.is_rolling, b.span, b.turns_at, t.text, clock.now,
         GREATEST(b.unit_limit - b.units_used + CASE WHEN b.is_rolling THEN COALESCE((
           SELECT sum(r.units) FROM budget_releases r
            WHERE r.budget_id = b.id AND r.frees_at > b.began_at AND r.frees_at <= clock.now), 0) ELSE 0 END,
           0)::integer AS missing
    FROM clock CROSS JOIN unnest($1::integer[], $2::text[], $3::bool[], $4::text[]) AS t (id, kind, is_whole, text)
    JOIN budgets b ON b.id = t.id AND b.kind = t.kind
    JOIN google_workspace_quota g ON g.id = b.owner_id AND (g.mailbox_id IS NULL) = t.is_whole
   WHERE b.unit_limit IS NOT NULL AND b.began_at <= clock.now AND (b.is_rolling OR b.turns_at > clock.now)
   ORDER BY b.id),
part AS (
  SELECT said.id, date_trunc('minute', said.now) + interval '1 minute' + said.span * n / $5 AS frees_at,
         (ceil(said.missing * n / $5::numeric) - ceil(said.missing * (n - 1) / $5::numeric))::integer AS units
    FROM said CROSS JOIN generate_series(1, $5::integer) AS n WHERE said.is_rolling AND said.missing > 0),
bucket AS (
  INSERT INTO budget_releases AS r (budget_id, frees_at, units)
  SELECT id, frees_at, units FROM part WHERE units > 0 ORDER BY id, frees_at
  ON CONFLICT (budget_id, frees_at) DO UPDATE SET units = r.units + EXCLUDED.units)
UPDATE budgets b
   SET units_used = b.units_used + said.missing, told = said.text, told_at = said.now,
       turns_at = CASE WHEN said.is_rolling
         THEN LEAST(b.turns_at, (SELECT min(p.frees_at) FROM part p WHERE p.id = b.id AND p.units > 0))
         ELSE b.turns_at END
  FROM said WHERE b.id = said.id
"""

# When some of it is free again, for each mailbox ($1) and budget ($2). Index: budgets_pkey.
FREED_AT = """
SELECT t.mailbox_id,
       max(GREATEST(b.turns_at, relayd_now() + make_interval(secs => $3))) AS at
  FROM unnest($1::uuid[], $2::integer[], $4::text[], $5::bool[]) AS t (mailbox_id, id, kind, is_whole)
  JOIN budgets b ON b.id = t.id AND b.kind = t.kind AND b.unit_limit IS NOT NULL
  JOIN google_workspace_quota g ON g.id = b.owner_id AND (g.mailbox_id IS NULL) = t.is_whole
 GROUP BY 1
"""


async def learn(connection: Connection, lessons: Lessons) -> dict[UUID, datetime]:
    """Count those limits as spent; returns when the first of it may be tried again, by mailbox, where that is known.

    Call after `budget.settle_units` of the same entries, in its transaction. Nothing is learned of a limit that no
    quota says: there is nothing to count in.
    """
    rows = lessons.rows()
    if not rows:
        return {}
    mailbox_ids, budget_ids, kinds, is_whole, texts = (list(column) for column in zip(*rows, strict=True))
    await connection.execute(LEARN, budget_ids, kinds, is_whole, [text[:1000] for text in texts], PARTS)
    await budget.mirror(connection, sorted(set(budget_ids)))
    found = await connection.fetch(FREED_AT, mailbox_ids, budget_ids, LEAST_SECONDS, kinds, is_whole)
    return {row["mailbox_id"]: row["at"] for row in found}
