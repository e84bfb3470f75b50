"""Sending domains and their DKIM keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.mail.address import to_ascii
from relayd.store import names, needs, zones
from relayd.store.connection import Connection
from relayd.store.violations import explained


@dataclass(frozen=True, slots=True)
class DomainRecord:
    """A living domain."""

    id: UUID
    domain: str
    client_id: UUID
    client: str  # its client's name
    provider: str
    status: str
    default_mailbox_id: UUID | None
    default_mailbox: str | None  # its address
    daily_send_limit: int | None  # in force today; None is unlimited
    own_daily_limit: int | None  # set by hand; None: it follows its mailboxes
    limit_window: str
    time_zone: str
    default_pool: str | None  # its name; it goes before the default mailbox
    bounce_domain: str | None  # where bounces of its mail come back to relayd
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewKey:
    """A DKIM key, its private half sealed for `directory.dkim_key_row(id)`."""

    id: UUID
    selector: str
    algorithm: str
    record_value: str
    private_key_sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The public half of a DKIM key."""

    id: UUID
    selector: str
    algorithm: str
    record_value: str
    status: str
    created_at: datetime


# All the living. Index: email_domains_domain.
SELECT_LIVING = """
SELECT d.id, d.domain, d.client_id, c.name AS client, d.provider, d.status, d.default_mailbox_id,
       m.email_address AS default_mailbox, d.daily_send_limit, d.own_daily_limit, d.limit_window, d.time_zone,
       (SELECT p.name FROM mailbox_pools p WHERE p.id = d.default_pool_id) AS default_pool, d.bounce_domain,
       d.created_at, d.updated_at
  FROM email_domains d JOIN clients c ON c.id = d.client_id
  LEFT JOIN email_mailboxes m ON m.id = d.default_mailbox_id AND m.deleted_at IS NULL
 WHERE d.deleted_at IS NULL
"""

# Of one client; NULL: of all. Index: email_domains_domain.
LIST = SELECT_LIVING + " AND ($1::uuid IS NULL OR d.client_id = $1) ORDER BY d.domain"

# Index: email_domains_domain.
FIND = SELECT_LIVING + " AND d.domain = $1"

# For the owner of what is added: waits for one who removes it, and then does not find it.
FIND_TO_USE = FIND + " FOR KEY SHARE OF d"

# To change or remove it: also waits for those who add to it.
FIND_TO_CHANGE = FIND + " FOR UPDATE OF d"

# For the message about an unknown name. Index: email_domains_domain.
SOME_NAMES = "SELECT domain FROM email_domains WHERE deleted_at IS NULL ORDER BY domain LIMIT $1"

# Index: email_domains_domain.
ADD = "INSERT INTO email_domains (client_id, domain) VALUES ($1, $2) RETURNING id"

# Index: dkim_keys_pkey.
ADD_KEY = """
INSERT INTO dkim_keys (id, client_id, domain_id, selector, algorithm, record_value, private_key_sealed)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

# RSA first. Index: dkim_keys_domain_id_selector_key.
LIST_KEYS = """
SELECT id, selector, algorithm, record_value, status, created_at FROM dkim_keys WHERE domain_id = $1
 ORDER BY algorithm DESC, created_at
"""

# Index: email_domains_pkey.
SAVE = "UPDATE email_domains SET status = $2, default_mailbox_id = $3 WHERE id = $1"

# What makes the lanes of its mailboxes look again, even if they are parked. Index: email_domains_pkey.
SAVE_LIMITS = "UPDATE email_domains SET own_daily_limit = $2, limit_window = $3, time_zone = $4 WHERE id = $1"

# Those that a client owns among these. Index: email_domains_domain.
OWNED = """
SELECT domain FROM email_domains WHERE domain = ANY($2::text[]) AND client_id = $1 AND deleted_at IS NULL
"""

# Index: email_mailboxes_domain.
COUNT_MAILBOXES = """
SELECT count(*) FILTER (WHERE deleted_at IS NULL) AS living, array_agg(id) AS ids
  FROM email_mailboxes WHERE domain_id = $1
"""

# Index: email_domains_pkey.
REMOVE = """
UPDATE email_domains SET status = 'deleted', deleted_at = relayd_now(), default_mailbox_id = NULL WHERE id = $1
"""


async def add(connection: Connection, *, client_id: UUID, domain: str, keys: Sequence[NewKey]) -> DomainRecord:
    """A new, active domain (lower case) with its keys. Raises Refusal if it is another's or there already."""
    with explained(taken=f"there is a domain {domain} already"):
        domain_id = await connection.fetchval(ADD, client_id, domain)
        for key in keys:
            await connection.execute(
                ADD_KEY,
                key.id,
                client_id,
                domain_id,
                key.selector,
                key.algorithm,
                key.record_value,
                key.private_key_sealed,
            )
    return await find(connection, domain)


async def find(connection: Connection, domain: str) -> DomainRecord:
    """The living domain of that name. Raises NotFound, which says which there are."""
    return await _find(connection, FIND, domain)


async def find_to_use(connection: Connection, domain: str) -> DomainRecord:
    """As find, for the owner of what this transaction adds: it is not removed in the meantime."""
    return await _find(connection, FIND_TO_USE, domain)


async def find_to_change(connection: Connection, domain: str) -> DomainRecord:
    """As find, and nobody else changes it until this transaction ends."""
    return await _find(connection, FIND_TO_CHANGE, domain)


async def living(connection: Connection, *, client_id: UUID | None = None) -> list[DomainRecord]:
    """The domains of one client or of all, by name."""
    return [DomainRecord(**dict(row)) for row in await connection.fetch(LIST, client_id)]


async def keys_of(connection: Connection, domain_id: UUID) -> list[KeyRecord]:
    """The domain's keys, RSA first, retired ones too."""
    return [KeyRecord(**dict(row)) for row in await connection.fetch(LIST_KEYS, domain_id)]


async def owned(connection: Connection, client_id: UUID, domain_names: Sequence[str]) -> set[str]:
    """Which of these are living domains of the client."""
    return {row["domain"] for row in await connection.fetch(OWNED, client_id, domain_names)}


async def save(connection: Connection, found: DomainRecord, wanted: DomainRecord) -> DomainRecord:
    """Store what differs from what find_to_change gave: status, default_mailbox_id, its own limit and how it counts."""
    if wanted.time_zone != found.time_zone:
        await zones.check(connection, wanted.time_zone)
    with explained(taken=f"there is a domain {found.domain} already"):
        await connection.execute(SAVE, found.id, wanted.status, wanted.default_mailbox_id)
        if _limits(wanted) != _limits(found):
            await connection.execute(SAVE_LIMITS, found.id, *_limits(wanted))
    return await find(connection, found.domain)


async def remove(connection: Connection, domain: DomainRecord) -> None:
    """Remove a domain found with find_to_change. Raises Refusal while it has mailboxes or live mail."""
    row: asyncpg.Record | None = await connection.fetchrow(COUNT_MAILBOXES, domain.id)
    assert row is not None
    children = [(row["living"], "mailbox", f"relayd mailbox list --domain {domain.domain}")]
    mail = await needs.mail_of_mailboxes(connection, row["ids"] or [])
    list_mail = f"relayd queue list --domain {domain.domain}"
    needs.refuse_if_needed(f"domain {domain.domain}", children, mail, list_mail=list_mail)
    await connection.execute(REMOVE, domain.id)


def _limits(domain: DomainRecord) -> tuple[int | None, str, str]:
    # $2 to $4 of SAVE_LIMITS.
    return domain.own_daily_limit, domain.limit_window, domain.time_zone


async def _find(connection: Connection, statement: str, domain: str) -> DomainRecord:
    row = await connection.fetchrow(statement, to_ascii(domain))
    if row is None:
        some = [row["domain"] for row in await connection.fetch(SOME_NAMES, names.ASKED)]
        raise names.unknown("domain", domain, some, add=f"relayd domain add {domain} --client NAME")
    return DomainRecord(**dict(row))
