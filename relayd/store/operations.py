"""What an operator does to queue entries: hold, release, retry, cancel. A batch a statement, logged with who did it.

The transition sits in each WHERE: an entry that a worker has claimed meanwhile is left alone. Who did it comes from
`relayd.actor`, which the caller's transaction has set, as for the audit triggers.
"""

from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

from relayd.rules.states import Status
from relayd.store import lanes
from relayd.store.connection import Connection


class Operation(StrEnum):
    """The four; their names are the commands'."""

    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    CANCEL = "cancel"


# Index of all: email_queue_pkey. $1: entry ids, locked in their order.
HOLD = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
target AS MATERIALIZED (
  SELECT q.id FROM email_queue q WHERE q.id = ANY($1::uuid[]) AND q.status = 'queued' ORDER BY q.id FOR NO KEY UPDATE),
changed AS (
  UPDATE email_queue q SET status = 'pending', pending_reason = 'held', reason = $2
    FROM target WHERE q.id = target.id
  RETURNING q.id, q.client_id, q.message_id, q.lane_id, q.next_attempt_at),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, actor, created_at, updated_at)
  SELECT client_id, message_id, id, 'held', $2, relayd_actor(), now, now FROM changed, clock)
SELECT id, lane_id, next_attempt_at FROM changed
"""

# Held, or in doubt: the operator has decided. What is scheduled waits for its time, unless it is named ($3).
RELEASE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
target AS MATERIALIZED (
  SELECT q.id FROM email_queue q
   WHERE q.id = ANY($1::uuid[]) AND q.status = 'pending'
     AND (q.pending_reason IN ('held', 'uncertain') OR ($3 AND q.pending_reason = 'scheduled'))
   ORDER BY q.id FOR NO KEY UPDATE),
changed AS (
  UPDATE email_queue q SET status = 'queued', pending_reason = NULL, reason = $2, next_attempt_at = clock.now
    FROM target, clock WHERE q.id = target.id
  RETURNING q.id, q.client_id, q.message_id, q.lane_id, q.next_attempt_at),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, actor, created_at, updated_at)
  SELECT client_id, message_id, id, 'released', $2, relayd_actor(), now, now FROM changed, clock)
SELECT id, lane_id, next_attempt_at FROM changed
"""

# $3: those that failed or bounced too, with a fresh budget of attempts, if there is still what to send and from where.
# A failed one must forget its end and its age, or the first deferral would give it up again. Its mailbox is locked
# against being removed: what was settled becomes live again. Indexes also: message_bodies_pkey, email_mailboxes_pkey.
RETRY = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
target AS MATERIALIZED (
  SELECT q.id, q.mailbox_id, q.status <> 'queued' AS had_ended FROM email_queue q
   WHERE q.id = ANY($1::uuid[])
     AND (q.status = 'queued'
          OR ($3 AND q.status IN ('failed', 'bounced')
              AND EXISTS (SELECT FROM message_bodies b WHERE b.message_id = q.message_id)))
   ORDER BY q.id FOR NO KEY UPDATE OF q),
home AS MATERIALIZED (
  SELECT m.id FROM email_mailboxes m
   WHERE m.id IN (SELECT mailbox_id FROM target WHERE had_ended) AND m.deleted_at IS NULL
   ORDER BY m.id FOR KEY SHARE),
changed AS (
  UPDATE email_queue q
     SET status = 'queued', next_attempt_at = clock.now,
         reason = CASE WHEN had_ended THEN $2 ELSE COALESCE($2, q.reason) END,
         retry_count = CASE WHEN had_ended THEN 0 ELSE q.retry_count END,
         first_attempt_at = CASE WHEN had_ended THEN NULL ELSE q.first_attempt_at END,
         sent_at = NULL, failed_at = NULL, bounced_at = NULL, bounce_type = NULL, bounce_reason = NULL
    FROM target, clock
   WHERE q.id = target.id AND (NOT had_ended OR target.mailbox_id IN (SELECT id FROM home))
  RETURNING q.id, q.client_id, q.message_id, q.lane_id, q.next_attempt_at),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, actor, created_at, updated_at)
  SELECT client_id, message_id, id, 'retried', $2, relayd_actor(), now, now FROM changed, clock)
SELECT id, lane_id, next_attempt_at FROM changed
"""

# No DSN: who cancels knows. What was in doubt keeps the unit that it may have used.
CANCEL = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
target AS MATERIALIZED (
  SELECT q.id FROM email_queue q
   WHERE q.id = ANY($1::uuid[]) AND q.status IN ('pending', 'queued') ORDER BY q.id FOR NO KEY UPDATE),
changed AS (
  UPDATE email_queue q SET status = 'failed', pending_reason = NULL, reason = 'cancelled', failed_at = clock.now
    FROM target, clock WHERE q.id = target.id
  RETURNING q.id, q.client_id, q.message_id),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, actor, created_at, updated_at)
  SELECT client_id, message_id, id, 'cancelled', $2, relayd_actor(), now, now FROM changed, clock)
SELECT id FROM changed
"""


def acts_on(operation: Operation, *, failed_too: bool = False) -> tuple[Status, ...]:
    """The states that an operation starts from."""
    match operation:
        case Operation.HOLD:
            return (Status.QUEUED,)
        case Operation.RELEASE:
            return (Status.PENDING,)
        case Operation.RETRY:
            return (Status.QUEUED, Status.FAILED, Status.BOUNCED) if failed_too else (Status.QUEUED,)
        case Operation.CANCEL:
            return (Status.PENDING, Status.QUEUED)


async def operate(
    connection: Connection,
    operation: Operation,
    entry_ids: Sequence[UUID],
    *,
    reason: str | None = None,
    failed_too: bool = False,
    scheduled_too: bool = False,
) -> int:
    """Apply to those of the entries that are in a state for it; returns how many. Call inside a transaction."""
    match operation:
        case Operation.HOLD:
            rows = await connection.fetch(HOLD, entry_ids, reason or "held by an operator")
        case Operation.RELEASE:
            rows = await connection.fetch(RELEASE, entry_ids, reason, scheduled_too)
        case Operation.RETRY:
            rows = await connection.fetch(RETRY, entry_ids, reason, failed_too)
        case Operation.CANCEL:
            return len(await connection.fetch(CANCEL, entry_ids, reason))
    if rows and operation is not Operation.HOLD:
        due = {row["lane_id"]: row["next_attempt_at"] for row in rows}
        await lanes.requeue(connection, list(due.items()))
    return len(rows)
