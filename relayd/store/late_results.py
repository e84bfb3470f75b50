"""What becomes of an entry after it was sent: it bounced after all, somebody complained, somebody answered.

Only what is `sent` changes, so the same report twice changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.rules.kept_return_path import KEEPS_REVERSE_PATH
from relayd.rules.states import LogEvent, Status

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# What the log calls the stage of such a row: the tally knows by it that the entry was counted as sent before.
STAGE = "report"

_KEEPING = sorted(KEEPS_REVERSE_PATH)


@dataclass(frozen=True, slots=True)
class SentEntry:
    """An entry that a report may speak of.

    `has_return_path`: its mail leaves with a reverse-path that only relayd can make, as things are set up now.
    """

    entry_id: UUID
    queue_id: UUID
    client_id: UUID
    client: str
    mailbox_id: UUID
    mailbox: str
    recipient: Address
    status: Status
    has_return_path: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What a report says of an entry. `status` None: the entry stays as it is, and the log has the event."""

    status: Status | None
    event: LogEvent
    bounce_type: str | None
    reason: str
    error_code: int | None
    enhanced_code: str | None
    diagnostic: str


# $1: providers that keep the reverse-path. Indexes: messages_pkey and others' primary keys.
_ENTRY = """
SELECT q.id AS entry_id, q.message_id AS queue_id, q.client_id, c.name AS client, q.mailbox_id,
       m.email_address AS mailbox, q.recipient_address, q.status,
       COALESCE(d.bounce_domain IS NOT NULL AND x.reverse_path <> '' AND u.provider_type = ANY($1::text[]), false)
         AS has_return_path
  FROM email_queue q JOIN clients c ON c.id = q.client_id JOIN email_mailboxes m ON m.id = q.mailbox_id
  JOIN email_domains d ON d.id = m.domain_id JOIN messages x ON x.id = q.message_id
  LEFT JOIN email_configurations u ON u.id = q.upstream_id
"""

# Of an entry, or of a message. Indexes: email_queue_pkey, email_queue_message.
BY_SUBJECT = (
    _ENTRY
    + " WHERE q.id = $2 AND q.client_id = $3 UNION ALL"
    + _ENTRY
    + " WHERE q.message_id = $2 AND q.client_id = $3"
)

# $4: only what a mailbox has sent; NULL: any. Indexes: messages_message_id_header, email_queue_message.
BY_MESSAGE_ID = (
    _ENTRY
    + """
 WHERE x.message_id_header = ANY($2::text[]) AND x.client_id = $3 AND ($4::uuid IS NULL OR x.mailbox_id = $4)
 ORDER BY q.id DESC LIMIT 1000
"""
)

# $2: recipients in lower case, $4: what the upstream called the message. Index: email_queue_recipient.
BY_PROVIDER_ID = (
    _ENTRY
    + """
 WHERE lower(q.recipient_address) = ANY($2::text[]) AND q.client_id = $3 AND q.provider_message_id = $4
 ORDER BY q.id DESC LIMIT 1000
"""
)

# What a mailbox has sent of these. Index: messages_message_id_header.
SENT_BY = "SELECT EXISTS (SELECT FROM messages WHERE message_id_header = ANY($1::text[]) AND mailbox_id = $2)"

# Only what was sent changes. Index: email_queue_pkey.
CHANGE = """
UPDATE email_queue
   SET status = $2, bounced_at = relayd_now(), bounce_type = $3, bounce_reason = $4, reason = $4,
       updated_at = relayd_now()
 WHERE id = $1 AND status = 'sent'
RETURNING id
"""

# An answer is counted once for each report of it; the caller has locked that one. Index: email_queue_pkey.
LOG = """
INSERT INTO email_delivery_logs
       (client_id, message_id, entry_id, event, stage, error_code, enhanced_code, error_message, provider, upstream_id,
        created_at, updated_at)
SELECT q.client_id, q.message_id, q.id, $2, $3, $4, $5, $6, u.provider_type, q.upstream_id, relayd_now(), relayd_now()
  FROM email_queue q LEFT JOIN email_configurations u ON u.id = q.upstream_id
 WHERE q.id = $1
"""


async def by_subject(connection: Connection, subject: UUID, client_id: UUID) -> list[SentEntry]:
    """The entry, or the entries of the message, that a return path was made for."""
    return _entries(await connection.fetch(BY_SUBJECT, _KEEPING, subject, client_id))


async def by_message_id(
    connection: Connection, message_ids: Sequence[str], client_id: UUID, *, mailbox_id: UUID | None = None
) -> list[SentEntry]:
    """The entries of a client's messages with one of these ids, in brackets; of one mailbox, if it is given."""
    return _entries(await connection.fetch(BY_MESSAGE_ID, _KEEPING, list(message_ids), client_id, mailbox_id))


async def by_provider_id(
    connection: Connection, provider_message_id: str, recipients: Sequence[str], client_id: UUID
) -> list[SentEntry]:
    """The entries to these recipients whose message the upstream gave this id."""
    keys = [each.lower() for each in recipients]
    return _entries(await connection.fetch(BY_PROVIDER_ID, _KEEPING, keys, client_id, provider_message_id))


async def has_sent(connection: Connection, mailbox_id: UUID, message_ids: Sequence[str]) -> bool:
    """Whether a mailbox has sent a message with one of these ids."""
    found: bool = await connection.fetchval(SENT_BY, list(message_ids), mailbox_id)
    return found


async def apply(connection: Connection, entry: SentEntry, result: Result) -> bool:
    """Change the entry and log it, in the caller's transaction; False if it had ended otherwise before."""
    if result.status is not None:
        changed = await connection.fetchval(
            CHANGE, entry.entry_id, result.status, result.bounce_type, result.reason[:1000]
        )
        if changed is None:
            return False
    await connection.execute(
        LOG,
        entry.entry_id,
        result.event,
        STAGE,
        result.error_code,
        result.enhanced_code,
        result.diagnostic[:1000],
    )
    return True


def _entries(rows: Sequence[asyncpg.Record]) -> list[SentEntry]:
    return [
        SentEntry(
            entry_id=row["entry_id"],
            queue_id=row["queue_id"],
            client_id=row["client_id"],
            client=row["client"],
            mailbox_id=row["mailbox_id"],
            mailbox=row["mailbox"],
            recipient=Address.stored(row["recipient_address"]),
            status=Status(row["status"]),
            has_return_path=row["has_return_path"],
        )
        for row in rows
    ]
