"""What a notification has to know of the message and the recipients that it speaks of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.mail.envelope import NOTHING_SAID, RecipientNotice
from relayd.store.directory import SendingDomain

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class ReportedMessage:
    """A message that there is something to say of: whom to tell, how, in whose name, through which lane.

    `reverse_path` None: nobody can be told by mail. `dsn_ret` and `envelope_id` are as the submitter gave them.
    """

    queue_id: UUID
    client_id: UUID
    client_wants: str  # mail, event or both
    mailbox_id: UUID
    domain: SendingDomain
    dsn_lane_id: int
    reverse_path: Address | None
    smtputf8: bool
    message_id_header: str
    subject: str
    dsn_ret: str | None
    envelope_id: str | None
    arrived_at: datetime
    original: bytes  # as much as is returned: its beginning, or all of it
    is_whole: bool


# None for a notification: nobody is told of one that fails. $2: octets read of each message; $3: one that wants to be
# returned whole is read whole up to this size. Indexes: messages_pkey, message_bodies_pkey, email_mailboxes_pkey,
# email_domains_pkey, clients_pkey, mailbox_lanes_mailbox_id_class_key.
LOAD = """
SELECT m.id, m.client_id, c.bounces, m.mailbox_id, m.reverse_path, m.smtputf8, m.message_id_header, m.subject,
       m.dsn_ret, m.envelope_id, m.created_at, d.id AS domain_id, d.client_id AS domain_client_id, d.domain,
       lane.id AS dsn_lane_id, COALESCE(m.dsn_ret = 'FULL' AND m.size_octets <= $3, false) AS is_whole,
       substring(b.content FROM 1
                 FOR CASE WHEN m.dsn_ret = 'FULL' AND m.size_octets <= $3 THEN m.size_octets ELSE $2 END) AS original
  FROM messages m
  JOIN clients c ON c.id = m.client_id
  JOIN message_bodies b ON b.message_id = m.id
  JOIN email_mailboxes x ON x.id = m.mailbox_id
  JOIN email_domains d ON d.id = x.domain_id
  JOIN mailbox_lanes lane ON lane.mailbox_id = m.mailbox_id AND lane.class = 'dsn' AND lane.is_home
 WHERE m.id = ANY($1::uuid[]) AND m.origin <> 'dsn'
"""

# What their submitters asked to be told. Index: email_queue_pkey.
NOTICES = """
SELECT id, dsn_notify, dsn_orcpt FROM email_queue
 WHERE id = ANY($1::uuid[]) AND (dsn_notify IS NOT NULL OR dsn_orcpt IS NOT NULL)
"""


async def load(
    connection: Connection, queue_ids: Sequence[UUID], *, head_octets: int, whole_octets: int
) -> dict[UUID, ReportedMessage]:
    """The messages that somebody may be told of, by queue id."""
    return {
        row["id"]: ReportedMessage(
            queue_id=row["id"],
            client_id=row["client_id"],
            client_wants=row["bounces"],
            mailbox_id=row["mailbox_id"],
            domain=SendingDomain(row["domain_id"], row["domain_client_id"], row["domain"], may_send=True),
            dsn_lane_id=row["dsn_lane_id"],
            reverse_path=Address.stored(row["reverse_path"]) if row["reverse_path"] else None,
            smtputf8=row["smtputf8"],
            message_id_header=row["message_id_header"],
            subject=row["subject"],
            dsn_ret=row["dsn_ret"],
            envelope_id=row["envelope_id"],
            arrived_at=row["created_at"],
            original=row["original"],
            is_whole=row["is_whole"],
        )
        for row in await connection.fetch(LOAD, list(queue_ids), head_octets, whole_octets)
    }


async def notices(connection: Connection, entry_ids: Sequence[UUID]) -> dict[UUID, RecipientNotice]:
    """What was asked to be told of each of these entries."""
    asked = {
        row["id"]: RecipientNotice(row["dsn_notify"], row["dsn_orcpt"])
        for row in await connection.fetch(NOTICES, list(entry_ids))
    }
    return {entry_id: asked.get(entry_id, NOTHING_SAID) for entry_id in entry_ids}
