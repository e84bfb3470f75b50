"""Lanes: when each mailbox's line is next worth a look. Every change here locks lanes in the order of their ids.

A lane's due_at may be early (a claim looks and finds nothing) but must never be late: see `wake` and `sweep`.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# Lanes that have something new. All are locked: a lane that a claim is just now calling idle must wait for that claim
# and then be called due, whatever an older snapshot shows. Only then is the locked row asked whether it is due anyway.
# Not worth a wait for the disk: `sweep` finds a lost wake. Index: mailbox_lanes_pkey.
WAKE = """
WITH cheap AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
lane AS MATERIALIZED (
  SELECT l.id, l.due_at FROM cheap, mailbox_lanes l
   WHERE l.id = ANY($1::bigint[]) ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE mailbox_lanes l SET due_at = relayd_now() FROM lane WHERE l.id = lane.id AND lane.due_at > relayd_now()
"""

# Entries went back into these lanes, due at these times. Index: mailbox_lanes_pkey.
REQUEUE = """
WITH due AS (
  SELECT id, min(at) AS at FROM unnest($1::bigint[], $2::timestamptz[]) AS t (id, at) GROUP BY id),
lane AS MATERIALIZED (
  SELECT l.id, due.at FROM mailbox_lanes l JOIN due ON due.id = l.id ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE mailbox_lanes l SET due_at = LEAST(l.due_at, lane.at) FROM lane WHERE l.id = lane.id
"""

# The budget of these mailboxes has grown: the next claim looks again. The reason is asked of the locked row: a claim
# may be calling the lane blocked just now. Index: mailbox_lanes_mailbox_id_class_key.
UNBLOCK = """
WITH lane AS MATERIALIZED (
  SELECT l.id FROM mailbox_lanes l
   WHERE l.mailbox_id = ANY($1::uuid[]) AND l.class = 'mail'
   ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE mailbox_lanes l
   SET blocked_until = CASE WHEN l.blocked_reason = 'mailbox daily limit' THEN '-infinity' ELSE l.blocked_until END,
       blocked_reason = NULLIF(l.blocked_reason, 'mailbox daily limit')
  FROM lane WHERE l.id = lane.id
"""

# The upstream said that this mailbox must wait. Index: mailbox_lanes_mailbox_id_class_key.
PARK = """
WITH lane AS MATERIALIZED (
  SELECT l.id FROM mailbox_lanes l WHERE l.mailbox_id = $1 ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE mailbox_lanes l SET blocked_until = GREATEST(l.blocked_until, $2::timestamptz), blocked_reason = $3
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


async def unblock(connection: Connection, mailbox_ids: Sequence[UUID]) -> None:
    """Budget was returned or raised; lanes that wait for the daily limit are looked at again."""
    await connection.execute(UNBLOCK, mailbox_ids)


async def park(connection: Connection, mailbox_id: UUID, until: datetime, reason: str) -> None:
    """Nothing leaves this mailbox before `until`."""
    await connection.execute(PARK, mailbox_id, until, reason[:500])


async def sweep(connection: Connection) -> int:
    """Mend lanes whose wake was lost; returns how many there were."""
    return len(await connection.fetch(SWEEP))
