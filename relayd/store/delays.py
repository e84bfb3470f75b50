"""Entries that have waited so long that their sender is to know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from relayd.mail.address import Address
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Delayed:
    """An entry that waits, and what its latest attempt was told, if there was one."""

    entry_id: UUID
    queue_id: UUID
    recipient: Address
    first_attempt_at: datetime | None
    enhanced: str | None
    diagnostic: str | None


# The longest waiting first. What is scheduled waits from its time on; what is held, for an operator, and not here.
# Indexes: email_queue_unwarned, email_delivery_logs_entry.
FIND = """
SELECT q.id, q.message_id, q.recipient_address, q.first_attempt_at, said.error_code, said.enhanced_code,
       said.error_message
  FROM email_queue q
  LEFT JOIN LATERAL (
    SELECT l.error_code, l.enhanced_code, l.error_message FROM email_delivery_logs l
     WHERE q.retry_count > 0 AND l.entry_id = q.id AND l.event IN ('deferred', 'uncertain')
     ORDER BY l.id DESC LIMIT 1) said ON true
 WHERE q.status = 'queued' AND q.delay_warned_at IS NULL AND q.waits_since <= relayd_now() - $1::interval
 ORDER BY q.waits_since LIMIT $2
"""

# $1 entries, of which $2 are warned of, each with why it waits ($3). One that is being sent just now, or that somebody
# else has marked, is left. Index: email_queue_pkey.
MARK = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
target AS MATERIALIZED (
  SELECT q.id FROM email_queue q
   WHERE q.id = ANY($1::uuid[]) AND q.status = 'queued' AND q.delay_warned_at IS NULL
   ORDER BY q.id FOR NO KEY UPDATE),
marked AS (
  UPDATE email_queue q SET delay_warned_at = clock.now FROM target, clock WHERE q.id = target.id
  RETURNING q.id, q.client_id, q.message_id),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, created_at, updated_at)
  SELECT client_id, message_id, marked.id, 'delayed', why, now, now
    FROM marked JOIN unnest($2::uuid[], $3::text[]) AS t (id, why) ON t.id = marked.id, clock)
SELECT id FROM marked
"""


async def find(connection: Connection, delay: timedelta, *, limit: int) -> list[Delayed]:
    """Up to `limit` entries that have waited for so long and of which nobody was warned."""
    return [
        Delayed(
            entry_id=row["id"],
            queue_id=row["message_id"],
            recipient=Address.stored(row["recipient_address"]),
            first_attempt_at=row["first_attempt_at"],
            enhanced=row["enhanced_code"],
            diagnostic=" ".join(str(each) for each in (row["error_code"], row["error_message"]) if each) or None,
        )
        for row in await connection.fetch(FIND, delay, limit)
    ]


async def mark(connection: Connection, entry_ids: Sequence[UUID], warned: Mapping[UUID, str]) -> set[UUID]:
    """Note that they have been seen to, and log why those wait that are warned of; returns those that were marked.

    Call inside the transaction that stores the warnings.
    """
    rows = await connection.fetch(MARK, list(entry_ids), list(warned.keys()), list(warned.values()))
    return {row["id"] for row in rows}
