"""Open the next window of budgets whose window has turned, or free what a rolling one lets go.

A claim holds its budgets already; who settles waits for them here, in the order of their ids, as everybody who waits.
"""

from collections.abc import Sequence

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# Before ROLL, in a statement of its own: a snapshot older than this lock could miss a claim that was made meanwhile.
# Index: budgets_pkey.
LOCK = "SELECT FROM budgets WHERE id = ANY($1::integer[]) ORDER BY id FOR NO KEY UPDATE"

# What is in flight may end in the new calendar window, so it counts on both sides. Where the clock went back behind the
# beginning of a window, that window and the one before it become one, which ends with the later: no day holds more
# than the limit, whatever the clock says twice. A rolling window takes off what has been freed since it last looked,
# and puts back what a clock that went back takes back. Indexes: budgets_pkey, email_queue_in_flight,
# budget_releases_pkey.
ROLL = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
flying AS MATERIALIZED (
  SELECT u.id, count(*)::integer AS units FROM email_queue q CROSS JOIN unnest(q.reserved_budgets) AS u (id)
   WHERE q.status = 'sending' AND q.reserved_budgets && $1::integer[] GROUP BY 1),
turned AS MATERIALIZED (
  SELECT b.id, COALESCE(flying.units, 0) AS flying, b.began_at > clock.now AS went_back,
         COALESCE((SELECT sum(r.units) FROM budget_releases r
                    WHERE r.budget_id = b.id AND r.frees_at > b.began_at AND r.frees_at <= clock.now), 0)
         - COALESCE((SELECT sum(r.units) FROM budget_releases r
                      WHERE r.budget_id = b.id AND r.frees_at > clock.now AND r.frees_at <= b.began_at), 0) AS freed,
         (SELECT min(r.frees_at) FROM budget_releases r WHERE r.budget_id = b.id AND r.frees_at > clock.now) AS next_at
    FROM budgets b LEFT JOIN flying ON flying.id = b.id, clock
   WHERE b.id = ANY($1::integer[]) AND (b.turns_at <= clock.now OR b.began_at > clock.now)),
-- Kept for a while, for a clock that goes back.
forgotten AS (
  DELETE FROM budget_releases r USING turned, clock
   WHERE r.budget_id = turned.id AND r.frees_at < clock.now - interval '3 days')
UPDATE budgets b
   SET units_used = CASE WHEN b.is_rolling THEN b.units_used - turned.freed
                         WHEN turned.went_back THEN b.units_used + b.units_before
                         ELSE turned.flying END,
       units_before = CASE WHEN b.is_rolling OR turned.went_back THEN 0 ELSE b.units_used END,
       began_at = CASE WHEN b.is_rolling OR turned.went_back THEN clock.now
                       ELSE relayd_window_start(clock.now, b.span, b.time_zone) END,
       turns_at = CASE WHEN b.is_rolling THEN COALESCE(turned.next_at, 'infinity')
                       WHEN turned.went_back THEN b.turns_at
                       ELSE relayd_window_end(clock.now, b.span, b.time_zone) END
  FROM turned, clock WHERE b.id = turned.id
"""


async def roll(connection: Connection, budget_ids: Sequence[int]) -> None:
    """Open the next window of those whose window has turned. Call inside a transaction that holds them all."""
    await connection.execute(ROLL, budget_ids)


async def lock_and_roll(connection: Connection, budget_ids: Sequence[int]) -> None:
    """As roll; waits for the budgets first."""
    await connection.execute(LOCK, sorted(budget_ids))
    await roll(connection, budget_ids)
