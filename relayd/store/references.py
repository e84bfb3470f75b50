"""Keep under what name an upstream knows an attempt, before it is told to send: whoever takes over can look there."""

from collections.abc import Sequence

import asyncpg

from relayd.errors import StoreUnavailable
from relayd.store.claim import ClaimedEntry

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# All of them or none, and only while the lease lasts: from then on another may have decided that nothing was sent.
# Index: email_queue_pkey.
KEEP = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
held AS MATERIALIZED (
  SELECT q.id
    FROM unnest($1::uuid[], $2::int[], $3::text[]) AS t (id, fence, claimed_by)
    JOIN email_queue q ON q.id = t.id, clock
   WHERE q.fence = t.fence AND q.claimed_by = t.claimed_by AND q.status IS NOT DISTINCT FROM 'sending'
     AND q.attempt_started_at IS NOT NULL AND q.lease_expires_at > clock.now
   ORDER BY q.id FOR NO KEY UPDATE OF q)
UPDATE email_queue q SET provider_reference = $4, updated_at = clock.now
  FROM held, clock
 WHERE q.id = held.id AND (SELECT count(*) FROM held) = cardinality($1::uuid[])
RETURNING q.id
"""


class ClaimLost(StoreUnavailable):
    """The attempt is not ours any more: nothing may be sent."""


async def keep(connection: Connection, entries: Sequence[ClaimedEntry], reference: str) -> None:
    """Durable on return, outside a transaction. Raises ClaimLost where another has taken over."""
    rows = await connection.fetch(
        KEEP,
        [entry.entry_id for entry in entries],
        [entry.fence for entry in entries],
        [entry.claimed_by for entry in entries],
        reference,
    )
    if len(rows) < len(entries):
        raise ClaimLost("the claim was lost: its lease has run out")
