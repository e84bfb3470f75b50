"""Mailbox pools: mailboxes of one client that send in each other's place, and who uses them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.errors import NotFound, Refusal
from relayd.store import names, needs
from relayd.store.connection import Connection
from relayd.store.violations import explained


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A living pool, with the living mailboxes in it and the logins and domains whose mail it sends."""

    id: UUID
    name: str
    client_id: UUID
    client: str
    may_rewrite_from: bool
    members: list[str]
    credentials: list[str]
    domains: list[str]
    created_at: datetime
    updated_at: datetime

    @property
    def is_used(self) -> bool:
        """Whether mail comes to it that does not name it."""
        return bool(self.credentials or self.domains)


# All the living. Indexes: mailbox_pools_name, mailbox_pool_members_pool_id_mailbox_id_key, smtp_credentials_client,
# email_domains_client.
SELECT_LIVING = """
SELECT p.id, p.name, p.client_id, c.name AS client, p.may_rewrite_from,
       ARRAY(SELECT m.email_address FROM mailbox_pool_members x JOIN email_mailboxes m ON m.id = x.mailbox_id
              WHERE x.pool_id = p.id AND m.deleted_at IS NULL ORDER BY lower(m.email_address)) AS members,
       ARRAY(SELECT k.login FROM smtp_credentials k
              WHERE k.client_id = p.client_id AND k.pool_id = p.id AND k.deleted_at IS NULL ORDER BY 1) AS credentials,
       ARRAY(SELECT d.domain FROM email_domains d
              WHERE d.client_id = p.client_id AND d.default_pool_id = p.id AND d.deleted_at IS NULL
              ORDER BY 1) AS domains,
       p.created_at, p.updated_at
  FROM mailbox_pools p JOIN clients c ON c.id = p.client_id
 WHERE p.deleted_at IS NULL AND c.deleted_at IS NULL
"""

# Of one client; NULL: of all. Index: mailbox_pools_name.
LIST = SELECT_LIVING + " AND ($1::uuid IS NULL OR p.client_id = $1) ORDER BY c.name, p.name"

# Index: mailbox_pools_name.
FIND = SELECT_LIVING + " AND p.client_id = $1 AND p.name = $2"

# Before it is read, in a statement of its own: what it holds is then what others have left. Those who only begin to
# use it take the weaker lock. Index: mailbox_pools_name.
LOCK = "SELECT FROM mailbox_pools WHERE client_id = $1 AND name = $2 AND deleted_at IS NULL FOR UPDATE"
LOCK_TO_USE = "SELECT FROM mailbox_pools WHERE client_id = $1 AND name = $2 AND deleted_at IS NULL FOR KEY SHARE"

# For the message about an unknown name. Index: mailbox_pools_name.
SOME_NAMES = "SELECT name FROM mailbox_pools WHERE client_id = $1 AND deleted_at IS NULL ORDER BY name LIMIT $2"

# Index: mailbox_pools_name.
ADD = "INSERT INTO mailbox_pools (client_id, name) VALUES ($1, $2)"

# Index: mailbox_pools_pkey.
SAVE = "UPDATE mailbox_pools SET may_rewrite_from = $2 WHERE id = $1"

# Index: mailbox_pools_pkey.
REMOVE = "UPDATE mailbox_pools SET deleted_at = relayd_now() WHERE id = $1"

# Index: mailbox_pool_members_pool_id_mailbox_id_key.
ADD_MEMBER = "INSERT INTO mailbox_pool_members (client_id, pool_id, mailbox_id) VALUES ($1, $2, $3)"

# Index: mailbox_pool_members_pool_id_mailbox_id_key.
REMOVE_MEMBER = "DELETE FROM mailbox_pool_members WHERE pool_id = $1 AND mailbox_id = $2"

# The living pools that a mailbox is in. Index: mailbox_pool_members_mailbox.
POOLS_OF_MAILBOX = """
SELECT p.client_id, p.name FROM mailbox_pool_members x JOIN mailbox_pools p ON p.id = x.pool_id
 WHERE x.mailbox_id = $1 AND p.deleted_at IS NULL ORDER BY p.id
"""

# Index: smtp_credentials_pkey.
USE_FOR_CREDENTIAL = "UPDATE smtp_credentials SET pool_id = $2 WHERE id = $1"

# Index: email_domains_pkey.
USE_FOR_DOMAIN = "UPDATE email_domains SET default_pool_id = $2 WHERE id = $1"


async def add(connection: Connection, *, client_id: UUID, client: str, name: str) -> PoolRecord:
    """A new pool without members. Raises Refusal if the client has one of that name."""
    with explained(taken=f"client {client} has a pool {name} already"):
        await connection.execute(ADD, client_id, name)
    return await find(connection, client_id, client, name)


async def find(connection: Connection, client_id: UUID, client: str, name: str) -> PoolRecord:
    """The client's living pool of that name. Raises NotFound, which says which there are."""
    row = await connection.fetchrow(FIND, client_id, name)
    if row is None:
        some = [row["name"] for row in await connection.fetch(SOME_NAMES, client_id, names.ASKED)]
        raise names.unknown("pool", name, some, add=f"relayd pool add {name} --client {client}")
    return PoolRecord(**dict(row))


async def find_to_change(connection: Connection, client_id: UUID, client: str, name: str) -> PoolRecord:
    """As find, and nobody else changes or begins to use it until this transaction ends."""
    await connection.execute(LOCK, client_id, name)
    return await find(connection, client_id, client, name)


async def find_to_use(connection: Connection, client_id: UUID, client: str, name: str) -> PoolRecord:
    """As find, for what is to send by it: it keeps its members meanwhile. Raises Refusal if it has none."""
    await connection.execute(LOCK_TO_USE, client_id, name)
    pool = await find(connection, client_id, client, name)
    if not pool.members:
        raise Refusal(f"pool {name} has no mailbox, so nothing could be sent", hint=_add_member(pool))
    return pool


async def living(connection: Connection, *, client_id: UUID | None = None) -> list[PoolRecord]:
    """The pools of one client or of all, by client and name."""
    return [PoolRecord(**dict(row)) for row in await connection.fetch(LIST, client_id)]


async def save(connection: Connection, pool: PoolRecord) -> PoolRecord:
    """Store what may change of a pool found with find_to_change: may_rewrite_from."""
    await connection.execute(SAVE, pool.id, pool.may_rewrite_from)
    return await find(connection, pool.client_id, pool.client, pool.name)


async def remove(connection: Connection, pool: PoolRecord) -> None:
    """Remove a pool found with find_to_change. Raises Refusal while a login or a domain sends by it.

    What it has queued stays with the mailboxes that it is queued in.
    """
    _refuse_if_used(pool, f"pool {pool.name} is still needed")
    await connection.execute(REMOVE, pool.id)


async def add_member(connection: Connection, pool: PoolRecord, mailbox_id: UUID, address: str) -> PoolRecord:
    """A mailbox of the pool's client joins it. Raises Refusal if it is in it."""
    with explained(taken=f"mailbox {address} is in pool {pool.name} already"):
        await connection.execute(ADD_MEMBER, pool.client_id, pool.id, mailbox_id)
    return await find(connection, pool.client_id, pool.client, pool.name)


async def remove_member(connection: Connection, pool: PoolRecord, mailbox_id: UUID, address: str) -> PoolRecord:
    """A mailbox leaves a pool found with find_to_change. Raises Refusal if it is the last of a pool in use."""
    if address not in pool.members:
        shown = ", ".join(pool.members[: names.ASKED - 1]) or "nobody"
        raise NotFound(f"mailbox {address} is not in pool {pool.name}; in it: {shown}", hint=_add_member(pool))
    if pool.members == [address]:
        _refuse_if_used(pool, f"mailbox {address} is the last one of pool {pool.name}, which is still needed")
    await connection.execute(REMOVE_MEMBER, pool.id, mailbox_id)
    return await find(connection, pool.client_id, pool.client, pool.name)


async def leave_all(connection: Connection, mailbox_id: UUID, client: str, address: str) -> None:
    """A mailbox that is to be removed leaves its pools. Raises Refusal if it is the last of one in use."""
    for row in await connection.fetch(POOLS_OF_MAILBOX, mailbox_id):
        pool = await find_to_change(connection, row["client_id"], client, row["name"])
        await remove_member(connection, pool, mailbox_id, address)


async def use_for_credential(connection: Connection, credential_id: UUID, pool: PoolRecord | None) -> None:
    """What this credential submits is sent by the pool, or, None, by header From's mailbox."""
    await connection.execute(USE_FOR_CREDENTIAL, credential_id, pool and pool.id)


async def use_for_domain(connection: Connection, domain_id: UUID, pool: PoolRecord | None) -> None:
    """What in this domain names no mailbox of its own is sent by the pool, or, None, by its default mailbox."""
    await connection.execute(USE_FOR_DOMAIN, domain_id, pool and pool.id)


def _refuse_if_used(pool: PoolRecord, what: str) -> None:
    if not pool.is_used:
        return
    steps = [f"relayd credential set {login} --pool none" for login in pool.credentials]
    steps += [f"relayd domain set {domain} --default-pool none" for domain in pool.domains]
    users = [(len(pool.credentials), "credential"), (len(pool.domains), "domain")]
    by = " and ".join(needs.plural(count, noun) for count, noun in users if count)
    raise Refusal(f"{what} by {by}", hint=f"first: {steps[0]}")


def _add_member(pool: PoolRecord) -> str:
    return f"relayd pool member add {pool.name} ADDRESS --client {pool.client}"
