"""What a bounce has to know of the message that it speaks of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.store.directory import SendingDomain

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class FailedMessage:
    """A message with final failures: whom to tell, in whose name, through which lane."""

    queue_id: UUID
    client_id: UUID
    mailbox_id: UUID
    domain: SendingDomain
    dsn_lane_id: int
    reverse_path: Address
    smtputf8: bool
    message_id_header: str
    arrived_at: datetime
    head: bytes  # the beginning of the message, its header block included as far as the limit goes


# None for the null reverse-path: nobody is told of a bounce that fails. $2: octets read of each message.
# Indexes: messages_pkey, message_bodies_pkey.
LOAD = """
SELECT m.id, m.client_id, m.mailbox_id, m.reverse_path, m.smtputf8, m.message_id_header, m.created_at,
       d.id AS domain_id, d.client_id AS domain_client_id, d.domain, lane.id AS dsn_lane_id,
       substring(b.content FROM 1 FOR $2) AS head
  FROM messages m
  JOIN message_bodies b ON b.message_id = m.id
  JOIN email_mailboxes x ON x.id = m.mailbox_id
  JOIN email_domains d ON d.id = x.domain_id
  JOIN mailbox_lanes lane ON lane.mailbox_id = m.mailbox_id AND lane.class = 'dsn' AND lane.is_home
 WHERE m.id = ANY($1::uuid[]) AND m.reverse_path <> ''
"""


async def load(connection: Connection, queue_ids: Sequence[UUID], *, head_octets: int) -> dict[UUID, FailedMessage]:
    """The messages that somebody is to be told of, by queue id."""
    return {
        row["id"]: FailedMessage(
            queue_id=row["id"],
            client_id=row["client_id"],
            mailbox_id=row["mailbox_id"],
            domain=SendingDomain(row["domain_id"], row["domain_client_id"], row["domain"], may_send=True),
            dsn_lane_id=row["dsn_lane_id"],
            reverse_path=Address.parse(row["reverse_path"]),
            smtputf8=row["smtputf8"],
            message_id_header=row["message_id_header"],
            arrived_at=row["created_at"],
            head=row["head"],
        )
        for row in await connection.fetch(LOAD, list(queue_ids), head_octets)
    }
