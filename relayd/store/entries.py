"""Queue entries and their log, as an operator reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.errors import NotFound
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipient of one message and how it stands."""

    entry_id: UUID
    queue_id: UUID
    client: str
    mailbox: str
    upstream: str | None  # of the latest claim
    reverse_path: str
    recipient: str
    subject: str
    size_octets: int
    status: str
    reason: str | None
    pending_reason: str | None
    retry_count: int
    max_retries: int
    next_attempt_at: datetime
    first_attempt_at: datetime | None
    claimed_by: str | None
    attempt_started_at: datetime | None
    lease_expires_at: datetime | None
    provider_message_id: str | None
    sent_at: datetime | None
    failed_at: datetime | None
    bounced_at: datetime | None
    created_at: datetime
    look_at: datetime | None
    looks: int


@dataclass(frozen=True, slots=True)
class LogRow:
    """One event of an entry's life."""

    entry_id: UUID
    at: datetime
    event: str
    attempt: int | None
    late: bool
    stage: str | None
    error_code: int | None
    enhanced_code: str | None
    text: str | None
    upstream: str | None
    provider: str | None
    actor: str | None


# Index: email_queue_pkey.
BY_IDS = """
SELECT q.id AS entry_id, q.message_id AS queue_id, c.name AS client, m.email_address AS mailbox, u.name AS upstream,
       s.reverse_path, q.recipient_address AS recipient, q.subject, s.size_octets, q.status, q.reason, q.pending_reason,
       q.retry_count, q.max_retries, q.next_attempt_at, q.first_attempt_at, q.claimed_by, q.attempt_started_at,
       q.lease_expires_at, q.provider_message_id, q.sent_at, q.failed_at, q.bounced_at, q.created_at,
       CASE WHEN q.pending_reason = 'uncertain' THEN q.look_at END AS look_at, q.looks
  FROM unnest($1::uuid[]) WITH ORDINALITY AS t (id, place)
  JOIN email_queue q ON q.id = t.id
  JOIN messages s ON s.id = q.message_id
  JOIN clients c ON c.id = q.client_id
  JOIN email_mailboxes m ON m.id = q.mailbox_id
  LEFT JOIN email_configurations u ON u.id = q.upstream_id
 ORDER BY t.place
"""

# A message's entries, or the one. Indexes: email_queue_message, email_queue_pkey.
IDS_OF = """
SELECT id, count(*) OVER () AS total FROM email_queue WHERE message_id = $1 OR id = $1 ORDER BY id LIMIT $2
"""

# Newest rows of each entry. Index: email_delivery_logs_entry.
LOG = """
SELECT l.entry_id, l.created_at AS at, l.event, l.attempt, l.late, l.stage, l.error_code, l.enhanced_code,
       l.error_message AS text, u.name AS upstream, l.provider, l.actor
  FROM unnest($1::uuid[]) WITH ORDINALITY AS t (id, place)
  CROSS JOIN LATERAL (
    SELECT * FROM email_delivery_logs x WHERE x.entry_id = t.id ORDER BY x.id DESC LIMIT $2) l
  LEFT JOIN email_configurations u ON u.id = l.upstream_id
 ORDER BY t.place, l.created_at, l.id
"""


async def by_ids(connection: Connection, entry_ids: Sequence[UUID]) -> list[Entry]:
    """These entries, in the order asked; those that are gone are left out."""
    return [Entry(**row) for row in await connection.fetch(BY_IDS, entry_ids)]


async def ids_of(connection: Connection, any_id: UUID, *, limit: int) -> tuple[list[UUID], int]:
    """Up to `limit` entries that a message's or an entry's id means, and how many there are in all. Raises NotFound."""
    rows = await connection.fetch(IDS_OF, any_id, limit)
    if not rows:
        raise unknown_id(any_id)
    return [row["id"] for row in rows], rows[0]["total"]


def unknown_id(*ids: UUID) -> NotFound:
    """The error for ids that nothing has."""
    named = ", ".join(str(one) for one in ids[:5])
    return NotFound(
        f"no message and no queue entry has the id {named}",
        hint="relayd message find looks by recipient or time",
    )


async def log(connection: Connection, entry_ids: Sequence[UUID], *, newest: int) -> list[LogRow]:
    """Up to `newest` events of each entry, oldest first."""
    return [LogRow(**row) for row in await connection.fetch(LOG, entry_ids, newest)]
