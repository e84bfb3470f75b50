"""Entries whose time has come: from scheduled to queued."""

from relayd.store import lanes
from relayd.store.connection import Connection

# The oldest $1 that are due. One that somebody is changing just now is left for the next round.
# Index: email_queue_scheduled.
RELEASE_DUE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
due AS MATERIALIZED (
  SELECT q.id FROM email_queue q, clock
   WHERE q.pending_reason = 'scheduled' AND q.next_attempt_at <= clock.now
   ORDER BY q.next_attempt_at LIMIT $1 FOR NO KEY UPDATE OF q SKIP LOCKED),
changed AS (
  UPDATE email_queue q SET status = 'queued', pending_reason = NULL, updated_at = clock.now
    FROM due, clock WHERE q.id = due.id
  RETURNING q.id, q.client_id, q.message_id, q.lane_id, q.next_attempt_at),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, created_at, updated_at)
  SELECT client_id, message_id, id, 'released', 'its time has come', now, now FROM changed, clock)
SELECT lane_id, next_attempt_at FROM changed
"""


async def release_due(connection: Connection, *, most: int) -> int:
    """Queue up to `most` entries that are due, in their lanes; returns how many. Call inside a transaction."""
    rows = await connection.fetch(RELEASE_DUE, most)
    if rows:
        await lanes.requeue(connection, [(row["lane_id"], row["next_attempt_at"]) for row in rows])
    return len(rows)
