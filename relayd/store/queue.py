"""Put messages into the queue: body, entries and log rows of a whole batch in one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.mail.address import Address

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class NewEntry:
    """One recipient of a new message. `lane_id` None: the message's lane.

    `notify` and `orcpt`: what its submitter asked to be told (RFC 3461), None if nothing.
    """

    entry_id: UUID
    recipient: Address
    lane_id: int | None = None
    notify: str | None = None
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as it will be relayed (signed bytes) and where it came from. Its id is the queue id."""

    queue_id: UUID
    client_id: UUID
    mailbox_id: UUID
    lane_id: int
    credential_id: UUID | None
    origin: str
    reverse_path: Address | None
    header_from: Address
    message_id_header: str
    subject: str
    content: bytes
    smtputf8: bool
    body_8bitmime: bool
    parent_id: UUID | None
    helo: str
    peer: str
    max_retries: int
    entries: tuple[NewEntry, ...]
    not_before: datetime | None = None  # pending until then
    pool_id: UUID | None = None  # any member of it may send in the mailbox's place
    sign_at_attempt: bool = False  # stored unsigned: each attempt writes From
    dsn_ret: str | None = None  # RFC 3461's RET and ENVID, as they came
    envelope_id: str | None = None

    @property
    def lane_ids(self) -> set[int]:
        """The lanes that its entries stand in."""
        return {self.lane_id if entry.lane_id is None else entry.lane_id for entry in self.entries}


# A batch in one round trip and one commit. Rows come as parallel arrays: $1-$22 a message each, $23-$28 an entry each.
ENQUEUE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
message AS MATERIALIZED (
  SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::uuid[], $6::text[], $7::text[], $8::text[],
                       $9::text[], $10::text[], $11::bytea[], $12::bool[], $13::bool[], $14::uuid[], $15::text[],
                       $16::text[], $17::int[], $18::timestamptz[], $19::uuid[], $20::bool[], $21::text[], $22::text[])
    AS t (id, client_id, mailbox_id, lane_id, credential_id, origin, reverse_path, header_from,
          message_id_header, subject, content, smtputf8, body_8bitmime, parent_id, helo, peer, max_retries, not_before,
          pool_id, sign_at_attempt, dsn_ret, envelope_id)),
entry AS MATERIALIZED (
  SELECT * FROM unnest($23::uuid[], $24::uuid[], $25::text[], $26::bigint[], $27::text[], $28::text[])
    AS t (id, message_id, recipient, lane_id, dsn_notify, dsn_orcpt)),
stored_message AS (
  INSERT INTO messages (id, client_id, mailbox_id, credential_id, origin, reverse_path, header_from, message_id_header,
                        subject, size_octets, smtputf8, body_8bitmime, parent_id, helo, peer, sign_at_attempt, dsn_ret,
                        envelope_id, created_at, updated_at)
  SELECT id, client_id, mailbox_id, credential_id, origin, reverse_path, header_from, message_id_header, subject,
         length(content), smtputf8, body_8bitmime, parent_id, helo, peer, sign_at_attempt, dsn_ret,
         envelope_id, now, now
    FROM message, clock),
stored_body AS (
  INSERT INTO message_bodies (message_id, content) SELECT id, content FROM message),
stored_entry AS (
  INSERT INTO email_queue (id, client_id, message_id, mailbox_id, lane_id, pool_id, recipient_address, subject,
                           max_retries, status, pending_reason, next_attempt_at, waits_since, dsn_notify, dsn_orcpt,
                           created_at, updated_at)
  SELECT e.id, m.client_id, m.id, m.mailbox_id, COALESCE(e.lane_id, m.lane_id), m.pool_id, e.recipient, m.subject,
         m.max_retries,
         CASE WHEN m.not_before > now THEN 'pending' ELSE 'queued' END,
         CASE WHEN m.not_before > now THEN 'scheduled' END, GREATEST(m.not_before, now), GREATEST(m.not_before, now),
         e.dsn_notify, e.dsn_orcpt, now, now
    FROM entry e JOIN message m ON m.id = e.message_id, clock)
INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, created_at, updated_at)
SELECT m.client_id, m.id, e.id, 'queued', now, now
  FROM entry e JOIN message m ON m.id = e.message_id, clock
"""


async def enqueue(connection: Connection, messages: Sequence[NewMessage]) -> None:
    """Store the batch. Outside a transaction it has committed on return; the caller may then say 250.

    The lanes are not woken here: that would hold their locks through the commit. Call `lanes.wake` afterwards.
    """
    entries = [(entry, message.queue_id) for message in messages for entry in message.entries]
    await connection.execute(
        ENQUEUE,
        [m.queue_id for m in messages],
        [m.client_id for m in messages],
        [m.mailbox_id for m in messages],
        [m.lane_id for m in messages],
        [m.credential_id for m in messages],
        [m.origin for m in messages],
        [str(m.reverse_path or "") for m in messages],
        [str(m.header_from) for m in messages],
        [m.message_id_header for m in messages],
        [m.subject for m in messages],
        [m.content for m in messages],
        [m.smtputf8 for m in messages],
        [m.body_8bitmime for m in messages],
        [m.parent_id for m in messages],
        [m.helo for m in messages],
        [m.peer for m in messages],
        [m.max_retries for m in messages],
        [m.not_before for m in messages],
        [m.pool_id for m in messages],
        [m.sign_at_attempt for m in messages],
        [m.dsn_ret for m in messages],
        [m.envelope_id for m in messages],
        [entry.entry_id for entry, _ in entries],
        [queue_id for _, queue_id in entries],
        [str(entry.recipient) for entry, _ in entries],
        [entry.lane_id for entry, _ in entries],
        [entry.notify for entry, _ in entries],
        [entry.orcpt for entry, _ in entries],
    )
