"""Lanes: when each mailbox's line is next worth a look. Every change here locks lanes in the order of their ids.

A lane's due_at may be early (a claim looks and finds nothing) but must never be late: see `wake` and `sweep`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.rules.relay_events import LimitReached

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# Lanes that have something new. All are locked: a lane that a claim is just now calling idle must wait for that claim
# and then be called due, whatever an older snapshot shows. Only then is the locked row asked whether it is due anyway.
# One that was idle goes before those that have had a turn and want another, as if it had waited for a minute: or it
# would stand behind all that a midnight releases. Not more, or it could keep them from ever having theirs.
# Not worth a wait for the disk: `sweep` finds a lost wake. Index: mailbox_lanes_pkey.
WAKE = """
WITH cheap AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
lane AS MATERIALIZED (
  SELECT l.id, l.due_at FROM cheap, mailbox_lanes l
   WHERE l.id = ANY($1::bigint[]) ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE mailbox_lanes l SET due_at = relayd_now() - interval '1 minute' FROM lane
 WHERE l.id = lane.id AND lane.due_at > relayd_now()
"""

# Entries went back into these lanes, due at these times. Index: mailbox_lanes_pkey.
REQUEUE = """
WITH due AS (
  SELECT id, min(at) AS at FROM unnest($1::bigint[], $2::timestamptz[]) AS t (id, at) GROUP BY id),
lane AS MATERIALIZED (
  SELECT l.id, due.at FROM mailbox_lanes l JOIN due ON due.id = l.id ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE mailbox_lanes l SET due_at = LEAST(l.due_at, lane.at) FROM lane WHERE l.id = lane.id
"""

# When the lanes just locked by a claim are next worth a look. A later statement than the claim, on purpose: its
# snapshot is newer than the lane's lock, so nothing that was committed before it can look absent. A lane with more to
# give goes to the back of the line. $1 lanes, $2 those of whose budgets another claim holds one, so that nothing can be
# said of them, $3 seconds over which releases are spread after a window turns, each mailbox at its own moment.
# A rolling window of which all is in flight frees nothing before its span has passed.
# Who has come to a limit is told; of a rolling one that frees a few a minute, once in a while.
# Indexes: mailbox_lanes_pkey, budgets_pkey, email_queue_due, email_mailboxes_pkey.
RESCHEDULE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
seen AS MATERIALIZED (
  SELECT x.id, x.mailbox_id, x.class, binding.*,
         binding.is_rolling AND x.blocked_by = binding.budget_id AND x.blocked_until > clock.now - interval '10 minutes'
           AS still_blocked,
         (SELECT q.next_attempt_at FROM email_queue q WHERE q.lane_id = x.id AND q.status = 'queued'
           ORDER BY q.next_attempt_at LIMIT 1) AS next
    FROM clock CROSS JOIN mailbox_lanes x
    LEFT JOIN LATERAL (
      SELECT b.id AS budget_id, b.is_rolling, b.span,
             CASE WHEN b.is_rolling THEN LEAST(b.turns_at, clock.now + b.span) ELSE b.turns_at END AS turns_at,
             CASE b.kind WHEN 'mailbox_day' THEN 'mailbox daily limit' WHEN 'mailbox_hour' THEN 'mailbox hourly pace'
                         WHEN 'domain_day' THEN 'domain daily limit' WHEN 'client_day' THEN 'client daily limit'
                         WHEN 'provider_day' THEN 'provider daily quota' ELSE 'provider hourly quota' END AS reason
        FROM budgets b
       WHERE b.id = ANY(x.budget_ids) AND NOT x.id = ANY($2::bigint[])
         AND b.units_used >= CASE WHEN x.class = 'bulk' THEN b.bulk_limit ELSE b.unit_limit END
       ORDER BY b.turns_at DESC LIMIT 1) binding ON true
   WHERE x.id = ANY($1::bigint[]))
UPDATE mailbox_lanes l
   SET due_at = CASE WHEN seen.next IS NULL THEN 'infinity' ELSE GREATEST(seen.next, clock.now) END,
       blocked_until = CASE WHEN seen.budget_id IS NULL THEN '-infinity' WHEN seen.is_rolling THEN seen.turns_at
         ELSE seen.turns_at + make_interval(secs => $3 * CASE seen.span WHEN '1 hour' THEN 0.1 ELSE 1 END
                                                       * (abs(hashtext(seen.mailbox_id::text)) % 1000) / 1000.0) END,
       blocked_by = seen.budget_id, blocked_reason = seen.reason
  FROM seen, clock
 WHERE l.id = seen.id
RETURNING l.runnable_at <= clock.now AS is_runnable, l.class, l.blocked_reason, l.blocked_until,
          CASE WHEN seen.budget_id IS NOT NULL AND NOT COALESCE(seen.still_blocked, false)
            THEN (SELECT email_address FROM email_mailboxes m WHERE m.id = l.mailbox_id) END AS newly_blocked
"""

# Units came back to these budgets ($1, so many: $2): as many of the lanes that wait for them are looked at again, those
# with the oldest mail first, and not the others, of which there may be thousands. A claim that called a lane blocked
# has held the budget until it committed, and whoever returns units holds it now: no such lane is missed here.
# Index: mailbox_lanes_blocked.
UNBLOCK = """
WITH lane AS MATERIALIZED (
  SELECT l.id FROM mailbox_lanes l
   WHERE l.id IN (
     SELECT waiting.id FROM unnest($1::integer[], $2::integer[]) AS unit (id, count),
       LATERAL (SELECT w.id FROM mailbox_lanes w WHERE w.blocked_by = unit.id AND NOT w.held
                 ORDER BY w.due_at LIMIT unit.count) waiting)
   ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE mailbox_lanes l SET blocked_until = '-infinity', blocked_reason = NULL, blocked_by = NULL
  FROM lane WHERE l.id = lane.id AND l.blocked_by = ANY($1::integer[])
"""

# Budgets with room for which lanes wait all the same: a unit went back to a lane that then did not need it.
# Indexes: mailbox_lanes_blocked, budgets_pkey.
IDLE_UNITS = """
SELECT b.id, LEAST(COALESCE(b.unit_limit - b.units_used, 1000), 1000) AS units
  FROM mailbox_lanes l JOIN budgets b ON b.id = l.blocked_by
 WHERE l.blocked_by IS NOT NULL AND NOT l.held AND l.due_at <= relayd_now() AND l.blocked_until > relayd_now()
   AND COALESCE(b.units_used < CASE l.class WHEN 'bulk' THEN b.bulk_limit ELSE b.unit_limit END, true)
 GROUP BY b.id ORDER BY b.id
"""

# The upstream said that this mailbox must wait. Index: mailbox_lanes_mailbox_id_class_key.
PARK = """
WITH lane AS MATERIALIZED (
  SELECT l.id FROM mailbox_lanes l WHERE l.mailbox_id = $1 ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE mailbox_lanes l
   SET blocked_until = GREATEST(l.blocked_until, $2::timestamptz), blocked_reason = $3, blocked_by = NULL
  FROM lane WHERE l.id = lane.id
"""

# Lanes that say they are due later than they are: a wake that was lost with its process.
# One index probe a lane (email_queue_due), and a lock only where something is wrong.
SWEEP = """
WITH late AS (
  SELECT l.id, oldest.at FROM mailbox_lanes l,
    LATERAL (SELECT q.next_attempt_at AS at FROM email_queue q
              WHERE q.lane_id = l.id AND q.status = 'queued' ORDER BY q.next_attempt_at LIMIT 1) oldest
   WHERE oldest.at < l.due_at AND l.due_at > relayd_now()
   ORDER BY l.id)
UPDATE mailbox_lanes l SET due_at = LEAST(l.due_at, late.at) FROM late WHERE l.id = late.id
RETURNING l.id
"""


async def wake(connection: Connection, lane_ids: Sequence[int]) -> None:
    """Tell the claim that these lanes have something due. Call after the enqueue has committed."""
    await connection.execute(WAKE, lane_ids)


async def requeue(connection: Connection, due: Sequence[tuple[int, datetime]]) -> None:
    """Entries went back into lanes: `due` pairs a lane's id with when the entry is due."""
    await connection.execute(REQUEUE, [lane_id for lane_id, _ in due], [at for _, at in due])


async def reschedule(
    connection: Connection, lane_ids: Sequence[int], contended: Sequence[int], *, spread_seconds: float
) -> tuple[bool, list[LimitReached]]:
    """Say when each of these lanes, locked by this claim, is next worth a look. Returns whether that is now for any of
    them, and which have come to a limit. `contended`: those of whose budgets another claim holds one.
    """
    rows = await connection.fetch(RESCHEDULE, lane_ids, contended, spread_seconds)
    reached = [
        LimitReached(row["newly_blocked"], row["class"], row["blocked_reason"], row["blocked_until"])
        for row in rows
        if row["newly_blocked"] is not None
    ]
    return any(row["is_runnable"] for row in rows), reached


async def unblock(connection: Connection, units: Mapping[int, int]) -> None:
    """So many units came back to these budgets, which the transaction holds: as many lanes are looked at again."""
    await connection.execute(UNBLOCK, list(units.keys()), list(units.values()))


async def use_idle_units(connection: Connection) -> bool:
    """Let lanes run that wait for a budget which has room; whether there were any."""
    idle = {row["id"]: row["units"] for row in await connection.fetch(IDLE_UNITS)}
    if idle:
        await unblock(connection, idle)
    return bool(idle)


async def park(connection: Connection, mailbox_id: UUID, until: datetime, reason: str) -> None:
    """Nothing leaves this mailbox before `until`."""
    await connection.execute(PARK, mailbox_id, until, reason[:500])


async def sweep(connection: Connection) -> int:
    """Mend lanes whose wake was lost; returns how many there were."""
    return len(await connection.fetch(SWEEP))
