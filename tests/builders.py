"""Things that tests put into a database: a client with a mailbox and a capture upstream, messages in its queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.intake.bounce import Told
from relayd.mail.address import Address
from relayd.rules.news import News
from relayd.store import lanes
from relayd.store.claim import ClaimedEntry, claim
from relayd.store.connection import Connection
from relayd.store.ids import new_id, new_ids
from relayd.store.queue import NewEntry, NewMessage, enqueue

CONTENT = b"From: app@example.com\r\nSubject: Hello\r\n\r\nBody \xff without a final line end"


@dataclass(frozen=True)
class Sender:
    """A mailbox that sends, and all it hangs on."""

    client_id: UUID
    upstream_id: UUID
    domain_id: UUID
    mailbox_id: UUID
    address: str
    mail_lane_id: int
    dsn_lane_id: int
    bulk_lane_id: int


async def make_upstream(
    connection: Connection, name: str = "capture", *, client_id: UUID | None = None, on_uncertain: str = "retry"
) -> UUID:
    """A capture upstream."""
    upstream_id: UUID = await connection.fetchval(
        "INSERT INTO email_configurations (client_id, name, provider_type, capture_directory, on_uncertain)"
        " VALUES ($1, $2, 'capture', '/nowhere', $3) RETURNING id",
        client_id,
        name,
        on_uncertain,
    )
    return upstream_id


async def make_sender(
    connection: Connection,
    address: str = "noreply@example.com",
    *,
    client: str = "acme",
    upstream: str = "capture",
    daily_limit: int | None = None,
    time_zone: str = "UTC",
) -> Sender:
    """The mailbox, and whatever of client, domain and upstream is not there yet."""
    client_id = await connection.fetchval("SELECT id FROM clients WHERE name = $1", client)
    if client_id is None:
        client_id = await connection.fetchval("INSERT INTO clients (name) VALUES ($1) RETURNING id", client)
    upstream_id = await connection.fetchval("SELECT id FROM email_configurations WHERE name = $1", upstream)
    if upstream_id is None:
        upstream_id = await make_upstream(connection, upstream)
    domain = address.rpartition("@")[2]
    domain_id = await connection.fetchval("SELECT id FROM email_domains WHERE domain = $1", domain)
    if domain_id is None:
        domain_id = await connection.fetchval(
            "INSERT INTO email_domains (client_id, domain) VALUES ($1, $2) RETURNING id", client_id, domain
        )
    mailbox_id = await connection.fetchval(
        "INSERT INTO email_mailboxes (client_id, domain_id, upstream_id, email_address, daily_send_limit, time_zone)"
        " VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
        client_id,
        domain_id,
        upstream_id,
        address,
        daily_limit,
        time_zone,
    )
    rows = await connection.fetch("SELECT class, id FROM mailbox_lanes WHERE mailbox_id = $1", mailbox_id)
    by_class = {row["class"]: row["id"] for row in rows}
    return Sender(
        client_id, upstream_id, domain_id, mailbox_id, address, *(by_class[each] for each in ("mail", "dsn", "bulk"))
    )


def new_message(
    sender: Sender,
    *recipients: str,
    subject: str = "Hello",
    reverse_path: str | None = "bounces@example.com",
    content: bytes = CONTENT,
    max_retries: int = 50,
    lane_id: int | None = None,
    not_before: datetime | None = None,
    pool_id: UUID | None = None,
    credential_id: UUID | None = None,
    notify: str | None = None,
    orcpt: str | None = None,
    dsn_ret: str | None = None,
    envelope_id: str | None = None,
) -> NewMessage:
    """A message as intake would store it."""
    queue_id = new_id()
    return NewMessage(
        queue_id=queue_id,
        client_id=sender.client_id,
        mailbox_id=sender.mailbox_id,
        lane_id=lane_id or sender.mail_lane_id,
        credential_id=credential_id,
        origin="submission",
        reverse_path=Address.parse(reverse_path) if reverse_path else None,
        header_from=Address.parse(sender.address),
        message_id_header=f"<{queue_id}@example.com>",
        subject=subject,
        content=content,
        smtputf8=False,
        body_8bitmime=True,
        parent_id=None,
        helo="app.example.com",
        peer="192.0.2.1",
        max_retries=max_retries,
        entries=tuple(
            NewEntry(entry_id, Address.parse(recipient), notify=notify, orcpt=orcpt)
            for entry_id, recipient in zip(new_ids(len(recipients)), recipients, strict=True)
        ),
        not_before=not_before,
        pool_id=pool_id,
        dsn_ret=dsn_ret,
        envelope_id=envelope_id,
    )


async def put(connection: Connection, sender: Sender, *recipients: str, **fields: object) -> NewMessage:
    """One message in the queue, its lane awake."""
    message = new_message(sender, *(recipients or ("you@example.net",)), **fields)  # type: ignore[arg-type]
    await enqueue(connection, [message])
    await lanes.wake(connection, [message.lane_id])
    return message


async def put_many(connection: Connection, sender: Sender, count: int) -> list[NewMessage]:
    """`count` messages of one recipient each, in the order in which they are claimed."""
    messages = [new_message(sender, f"user{number}@example.net") for number in range(count)]
    # Ids of the same millisecond have no order of their own.
    messages.sort(key=lambda message: message.entries[0].entry_id)
    await enqueue(connection, messages)
    await lanes.wake(connection, [sender.mail_lane_id])
    return messages


async def claim_all(connection: Connection, *upstream_ids: UUID, messages: int = 10_000) -> list[ClaimedEntry]:
    """What a worker would get just now."""
    async with connection.transaction():
        claimed = await claim(
            connection,
            dict.fromkeys(upstream_ids, messages),
            read_limit=10_000,
            claimant="node:1:2",
            lease_seconds=300,
            spread_seconds=0,
        )
    return claimed.entries


class NoBounces:
    """A composer for a settler that tells nobody."""

    async def compose(self, news: Sequence[News]) -> Told:
        return Told()
