"""What becomes of reserved units when an attempt has ended. Reserving itself happens in the claim."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from relayd.store import lanes

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class Ended:
    """Units whose attempts have ended, by budget: given back, or kept for as long as the window says."""

    returned: Counter[int] = field(default_factory=Counter)
    kept: Counter[int] = field(default_factory=Counter)

    def add(self, budget_ids: Sequence[int], *, is_returned: bool) -> None:
        """One entry's units."""
        (self.returned if is_returned else self.kept).update(budget_ids)


# $1 budgets, $2 units returned, $3 units kept. A calendar window has counted what is kept; a rolling one counts it
# until a day (or an hour) after this moment, which is not before the reply's: in whole minutes, never too early.
# What is freed up to began_at is not in units_used. A clock that has gone back may say so of what is kept here, until
# the next roll puts it back.
# Indexes: budgets_pkey, budget_releases_pkey.
SETTLE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
unit AS MATERIALIZED (SELECT * FROM unnest($1::integer[], $2::integer[], $3::integer[]) AS t (id, returned, kept)),
budget AS MATERIALIZED (
  SELECT b.id, b.is_rolling, unit.returned, unit.kept,
         date_trunc('minute', clock.now) + interval '1 minute' + b.span AS frees_at
    FROM budgets b JOIN unit ON unit.id = b.id, clock
   WHERE unit.returned > 0 OR b.is_rolling
   ORDER BY b.id FOR NO KEY UPDATE OF b),
bucket AS (
  INSERT INTO budget_releases AS r (budget_id, frees_at, units)
  SELECT id, frees_at, kept FROM budget WHERE is_rolling AND kept > 0 ORDER BY id
  ON CONFLICT (budget_id, frees_at) DO UPDATE SET units = r.units + EXCLUDED.units)
UPDATE budgets b
   SET units_used = GREATEST(b.units_used - budget.returned - CASE
         WHEN budget.is_rolling AND budget.frees_at <= b.began_at THEN budget.kept ELSE 0 END, 0),
       turns_at = CASE WHEN budget.is_rolling AND budget.kept > 0 THEN LEAST(b.turns_at, budget.frees_at)
                       ELSE b.turns_at END
  FROM budget WHERE b.id = budget.id
"""

# The columns that say the same beside the names of their owners, for reports. A row that somebody else is changing
# just now is passed over: its column is right again with the next change, and the view is right anyway.
# Indexes: the tables' primary keys, budgets_owner_id_kind_key.
MIRROR = """
WITH budget AS MATERIALIZED (SELECT * FROM budgets WHERE id = ANY($1::integer[])),
mailbox AS MATERIALIZED (
  SELECT m.id FROM email_mailboxes m WHERE m.id IN (SELECT owner_id FROM budget WHERE kind = 'mailbox_day')
     FOR NO KEY UPDATE OF m SKIP LOCKED),
of_mailboxes AS (
  UPDATE email_mailboxes m SET current_daily_sends = b.units_used, window_ends_at = b.turns_at
    FROM mailbox JOIN budget b ON b.owner_id = mailbox.id AND b.kind = 'mailbox_day' WHERE m.id = mailbox.id),
domain AS MATERIALIZED (
  SELECT d.id FROM email_domains d WHERE d.id IN (SELECT owner_id FROM budget WHERE kind = 'domain_day')
     FOR NO KEY UPDATE OF d SKIP LOCKED),
of_domains AS (
  UPDATE email_domains d SET current_daily_sends = b.units_used
    FROM domain JOIN budget b ON b.owner_id = domain.id WHERE d.id = domain.id),
client AS MATERIALIZED (
  SELECT c.id FROM clients c WHERE c.id IN (SELECT owner_id FROM budget WHERE kind = 'client_day')
     FOR NO KEY UPDATE OF c SKIP LOCKED),
of_clients AS (
  UPDATE clients c SET current_daily_sends = b.units_used
    FROM client JOIN budget b ON b.owner_id = client.id WHERE c.id = client.id),
quota AS MATERIALIZED (
  SELECT q.id FROM google_workspace_quota q
   WHERE q.id IN (SELECT owner_id FROM budget WHERE kind IN ('provider_day', 'provider_hour'))
     FOR NO KEY UPDATE OF q SKIP LOCKED)
UPDATE google_workspace_quota q
   SET daily_used = COALESCE(day.units_used, 0), daily_reset_at = NULLIF(day.turns_at, 'infinity'),
       hourly_used = COALESCE(hour.units_used, 0), hourly_reset_at = NULLIF(hour.turns_at, 'infinity'),
       is_exceeded = COALESCE(day.units_used >= day.unit_limit, false)
                     OR COALESCE(hour.units_used >= hour.unit_limit, false),
       exceeded_at = CASE WHEN day.units_used >= day.unit_limit OR hour.units_used >= hour.unit_limit
                          THEN CASE WHEN q.is_exceeded THEN q.exceeded_at ELSE relayd_now() END END
  FROM quota
  LEFT JOIN budgets day ON day.owner_id = quota.id AND day.kind = 'provider_day'
  LEFT JOIN budgets hour ON hour.owner_id = quota.id AND hour.kind = 'provider_hour'
 WHERE q.id = quota.id
"""


async def settle_units(connection: Connection, ended: Ended) -> None:
    """Return units, and let a rolling window know when it frees the others. Lanes that waited for them run again."""
    budget_ids = sorted(ended.returned.keys() | ended.kept.keys())
    if not budget_ids:
        return
    await connection.execute(
        SETTLE, budget_ids, [ended.returned[each] for each in budget_ids], [ended.kept[each] for each in budget_ids]
    )
    if ended.returned:
        await lanes.unblock(connection, ended.returned)
        await mirror(connection, sorted(ended.returned))


async def mirror(connection: Connection, budget_ids: Sequence[int]) -> None:
    """Copy what these budgets count to the columns beside their owners' names. Waits for nobody."""
    await connection.execute(MIRROR, budget_ids)
