"""The domains to which bounces come back."""

from dataclasses import dataclass
from uuid import UUID

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class BounceDomain:
    """A bounce domain and the sending domain that it belongs to."""

    bounce_domain: str
    domain_id: UUID
    client_id: UUID
    client: str


# Index: email_domains_bounce_domain.
LIVING = """
SELECT d.bounce_domain, d.id AS domain_id, d.client_id, c.name AS client
  FROM email_domains d JOIN clients c ON c.id = d.client_id
 WHERE d.bounce_domain IS NOT NULL AND d.deleted_at IS NULL AND c.deleted_at IS NULL
"""

# Indexes: email_mailboxes_pkey, email_domains_pkey.
OF_MAILBOX = """
SELECT d.bounce_domain FROM email_mailboxes m JOIN email_domains d ON d.id = m.domain_id
 WHERE m.id = $1 AND d.deleted_at IS NULL
"""

# Index: email_domains_domain.
IS_SENDING = "SELECT EXISTS (SELECT FROM email_domains WHERE domain = $1 AND deleted_at IS NULL)"

# Index: email_domains_pkey.
SAVE = "UPDATE email_domains SET bounce_domain = $2 WHERE id = $1"


async def living(connection: Connection) -> list[BounceDomain]:
    """All of them."""
    return [BounceDomain(**dict(row)) for row in await connection.fetch(LIVING)]


async def of_mailbox(connection: Connection, mailbox_id: UUID) -> str | None:
    """Where bounces of a mailbox's mail come back, None if nowhere of relayd's."""
    found: str | None = await connection.fetchval(OF_MAILBOX, mailbox_id)
    return found


async def is_sending(connection: Connection, domain: str) -> bool:
    """Whether mail is sent from a domain of that name."""
    found: bool = await connection.fetchval(IS_SENDING, domain)
    return found


async def save(connection: Connection, domain_id: UUID, bounce_domain: str | None) -> None:
    """Give a domain, found to be changed, another bounce domain or none. The index refuses one that is taken."""
    await connection.execute(SAVE, domain_id, bounce_domain)
