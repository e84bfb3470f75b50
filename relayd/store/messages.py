"""Messages as an operator looks for them: find, show, the stored bytes, and what a resend needs."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from relayd.errors import NotFound, Refusal
from relayd.mail.address import Address, spellings
from relayd.store.connection import Connection
from relayd.store.entries import unknown_id
from relayd.store.ids import first_id_at, new_id, new_ids
from relayd.store.queue import NewEntry, NewMessage

# Ids are stamped by the machine that took the message, created_at by the database.
_CLOCK_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; given fields must all hold. Addresses may be `@domain`."""

    recipient: str | None = None
    sender: str | None = None  # header From or reverse-path
    subject: str | None = None  # a part of it
    message_id_header: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: str | None = None  # of at least one entry


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message, without its bytes."""

    queue_id: UUID
    client: str
    mailbox: str
    credential: str | None
    origin: str
    reverse_path: str
    header_from: str
    message_id_header: str
    subject: str
    size_octets: int
    smtputf8: bool
    body_8bitmime: bool
    parent_id: UUID | None
    helo: str
    peer: str
    created_at: datetime
    states: dict[str, int]  # how many of its entries are in each


CLOCK = "SELECT relayd_now() AS now, clock_offset FROM relayd_state"

# Newest first. $1-$2 recipient or its domain; $3-$4 sender; $5 subject; $6 Message-ID; $7-$8 time; $9-$10 the ids of
# that time; $11 state. What is not asked for folds away as the statement is planned for its parameters. A recipient's
# messages come as an array, since a subquery beside an OR would be a filter over all messages.
# Indexes: email_queue_recipient, messages_message_id_header; else messages_pkey within the ids' bounds.
FIND = """
SELECT m.id FROM messages m
 WHERE ($1::text[] IS NULL OR m.id = ANY(ARRAY(
         SELECT q.message_id FROM email_queue q
          WHERE lower(q.recipient_address) = ANY($1)
            AND ($9::uuid IS NULL OR q.id >= $9) AND ($10::uuid IS NULL OR q.id <= $10)
          ORDER BY q.id DESC LIMIT 100000)))
   AND ($2::text[] IS NULL OR EXISTS (SELECT FROM email_queue q, unnest($2) AS t (domain) WHERE q.message_id = m.id
                                      AND right(lower(q.recipient_address), length(domain)) = domain))
   AND ($3::text[] IS NULL OR lower(m.header_from) = ANY($3) OR lower(m.reverse_path) = ANY($3))
   AND ($4::text[] IS NULL OR EXISTS (SELECT FROM unnest($4) AS t (domain)
                                       WHERE right(lower(m.header_from), length(domain)) = domain
                                          OR right(lower(m.reverse_path), length(domain)) = domain))
   AND ($5::text IS NULL OR position(lower($5) IN lower(m.subject)) > 0)
   AND ($6::text IS NULL OR m.message_id_header IN ($6, '<' || $6 || '>'))
   AND ($7::timestamptz IS NULL OR m.created_at >= $7)
   AND ($8::timestamptz IS NULL OR m.created_at <= $8)
   AND ($9::uuid IS NULL OR m.id >= $9)
   AND ($10::uuid IS NULL OR m.id <= $10)
   AND ($11::text IS NULL OR EXISTS (SELECT FROM email_queue q WHERE q.message_id = m.id AND q.status = $11))
 ORDER BY m.id DESC LIMIT $12
"""
CUSTOM_PLANS = "SELECT set_config('plan_cache_mode', 'force_custom_plan', true)"

# Indexes: messages_pkey, email_queue_message.
BY_IDS = """
SELECT m.id AS queue_id, c.name AS client, b.email_address AS mailbox, k.login AS credential, m.origin, m.reverse_path,
       m.header_from, m.message_id_header, m.subject, m.size_octets, m.smtputf8, m.body_8bitmime, m.parent_id, m.helo,
       m.peer, m.created_at, s.states, s.counts
  FROM unnest($1::uuid[]) WITH ORDINALITY AS t (id, place)
  JOIN messages m ON m.id = t.id
  JOIN clients c ON c.id = m.client_id
  JOIN email_mailboxes b ON b.id = m.mailbox_id
  LEFT JOIN smtp_credentials k ON k.id = m.credential_id
  CROSS JOIN LATERAL (
    SELECT array_agg(status) AS states, array_agg(count) AS counts
      FROM (SELECT status, count(*) FROM email_queue q WHERE q.message_id = m.id GROUP BY 1) x) s
 ORDER BY t.place
"""

# Indexes: messages_pkey, email_queue_pkey.
QUEUE_ID_OF = """
SELECT id FROM messages WHERE id = $1 UNION ALL SELECT message_id FROM email_queue WHERE id = $1 LIMIT 1
"""

# Index: message_bodies_pkey.
CONTENT = "SELECT content FROM message_bodies WHERE message_id = $1"

# Everything that a copy needs; each recipient waits in the line that it waited in, so that it goes the same way and a
# bounce spends no budget; where that is another mailbox's, one of a pool's, in one of its class of the message's own.
# Indexes: messages_pkey, email_queue_message, mailbox_lanes_pkey, mailbox_lanes_mailbox_id_class_key.
ORIGINAL = """
SELECT m.*, b.content, mailbox.email_address, mailbox.deleted_at IS NOT NULL OR d.deleted_at IS NOT NULL AS is_removed,
       (SELECT own.id FROM email_queue q
          JOIN mailbox_lanes lane ON lane.id = q.lane_id
          JOIN mailbox_lanes own ON own.mailbox_id = m.mailbox_id AND own.class = lane.class AND own.is_home
         WHERE q.message_id = m.id LIMIT 1) AS lane_id,
       (SELECT max(q.max_retries) FROM email_queue q WHERE q.message_id = m.id) AS max_retries,
       ARRAY(SELECT q.recipient_address FROM email_queue q WHERE q.message_id = m.id ORDER BY q.id) AS recipients,
       ARRAY(SELECT q.dsn_notify FROM email_queue q WHERE q.message_id = m.id ORDER BY q.id) AS notifies,
       ARRAY(SELECT q.dsn_orcpt FROM email_queue q WHERE q.message_id = m.id ORDER BY q.id) AS orcpts,
       ARRAY(SELECT lane.id FROM email_queue q
               LEFT JOIN mailbox_lanes lane ON lane.id = q.lane_id AND lane.mailbox_id = m.mailbox_id
              WHERE q.message_id = m.id ORDER BY q.id) AS lane_ids
  FROM messages m
  LEFT JOIN message_bodies b ON b.message_id = m.id
  JOIN email_mailboxes mailbox ON mailbox.id = m.mailbox_id
  JOIN email_domains d ON d.id = mailbox.domain_id
 WHERE m.id = $1
"""


async def find(connection: Connection, search: Search, *, limit: int) -> list[UUID]:
    """Queue ids of up to `limit` messages, newest first. Call inside a transaction."""
    clock = await connection.fetchrow(CLOCK)
    assert clock is not None
    offset: timedelta = clock["clock_offset"]
    await connection.execute(CUSTOM_PLANS)
    rows = await connection.fetch(
        FIND,
        *_address_or_domain(search.recipient),
        *_address_or_domain(search.sender),
        search.subject,
        search.message_id_header.strip("<>") if search.message_id_header else None,
        search.since,
        search.until,
        first_id_at(search.since - offset - _CLOCK_SLACK) if search.since else None,
        first_id_at(search.until - offset + _CLOCK_SLACK) if search.until else None,
        search.state,
        limit,
    )
    return [row["id"] for row in rows]


async def by_ids(connection: Connection, queue_ids: list[UUID]) -> list[Message]:
    """These messages, in the order asked; those that are gone are left out."""
    return [_message(row) for row in await connection.fetch(BY_IDS, queue_ids)]


async def now(connection: Connection) -> datetime:
    """The database's clock."""
    clock = await connection.fetchrow(CLOCK)
    assert clock is not None
    at: datetime = clock["now"]
    return at


async def queue_id_of(connection: Connection, any_id: UUID) -> UUID:
    """The message that an id means, its own or an entry's. Raises NotFound."""
    found: UUID | None = await connection.fetchval(QUEUE_ID_OF, any_id)
    if found is None:
        raise unknown_id(any_id)
    return found


async def content(connection: Connection, queue_id: UUID) -> bytes:
    """The stored bytes, exactly. Raises NotFound when they are gone."""
    found: bytes | None = await connection.fetchval(CONTENT, queue_id)
    if found is None:
        raise NotFound(f"message {queue_id} is known, but its bytes have been removed")
    return found


async def copy_of(connection: Connection, queue_id: UUID, *, recipients: tuple[Address, ...]) -> NewMessage:
    """A new message of the same bytes for these of its recipients (none: all). Not yet enqueued.

    Its sender is told of its fate as was asked for the original; a suppression list does not stop it.

    Raises Refusal when it cannot be sent again: its mailbox or bytes are gone, or it never had such a recipient.
    """
    row = await connection.fetchrow(ORIGINAL, queue_id)
    if row is None:
        raise unknown_id(queue_id)
    if row["is_removed"]:
        raise Refusal(f"mailbox {row['email_address']}, which sent message {queue_id}, has been removed")
    if row["content"] is None:
        raise Refusal(f"the bytes of message {queue_id} have been removed; it cannot be sent again")
    chosen = _chosen(queue_id, tuple(row["recipients"]), recipients)
    asked = dict(zip(row["recipients"], zip(row["notifies"], row["orcpts"], strict=True), strict=True))
    lane_ids = dict(zip(row["recipients"], row["lane_ids"], strict=True))
    return NewMessage(
        queue_id=new_id(),
        client_id=row["client_id"],
        mailbox_id=row["mailbox_id"],
        lane_id=row["lane_id"],
        credential_id=None,
        origin="resend",
        reverse_path=Address.stored(row["reverse_path"]) if row["reverse_path"] else None,
        header_from=Address.stored(row["header_from"]),
        message_id_header=row["message_id_header"],
        subject=row["subject"],
        content=row["content"],
        smtputf8=row["smtputf8"],
        body_8bitmime=row["body_8bitmime"],
        parent_id=queue_id,
        helo=row["helo"],
        peer=row["peer"],
        max_retries=row["max_retries"],
        entries=tuple(
            NewEntry(entry_id, Address.stored(recipient), lane_ids[recipient], *asked[recipient])
            for entry_id, recipient in zip(new_ids(len(chosen)), chosen, strict=True)
        ),
        sign_at_attempt=row["sign_at_attempt"],
        dsn_ret=row["dsn_ret"],
        envelope_id=row["envelope_id"],
    )


def _chosen(queue_id: UUID, original: tuple[str, ...], wanted: tuple[Address, ...]) -> list[str]:
    if not original:
        raise Refusal(f"the recipients of message {queue_id} have been removed; it cannot be sent again")
    if not wanted:
        return list(original)
    by_key = {Address.stored(recipient).key: recipient for recipient in original}
    strangers = [str(address) for address in wanted if address.key not in by_key]
    if strangers:
        raise Refusal(f"message {queue_id} was not for {', '.join(strangers)}; a resend goes to its own recipients")
    return list(dict.fromkeys(by_key[address.key] for address in wanted))


def _address_or_domain(text: str | None) -> tuple[list[str] | None, list[str] | None]:
    if text is None:
        return None, None
    found = spellings(text.lower())
    return (None, found) if text.startswith("@") else (found, None)


def _message(row: asyncpg.Record) -> Message:
    values = dict(row)
    states, counts = values.pop("states"), values.pop("counts")
    return Message(**values, states=dict(zip(states or [], counts or [], strict=True)))
