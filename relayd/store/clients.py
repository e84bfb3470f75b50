"""Clients: the tenants. All else belongs to one."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.rules.tiers import Holdings
from relayd.store import names, needs, zones
from relayd.store.connection import Connection
from relayd.store.violations import explained


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A living client."""

    id: UUID
    name: str
    tier: str
    status: str
    may_send_bounces: bool
    daily_send_limit: int | None  # None is unlimited, 0 is never
    limit_window: str
    time_zone: str
    bulk_reserve_percent: int  # of each of its limits, which bulk mail may not use
    bounces: str  # what it is told goes out as mail, event or both
    suppressed: str  # a suppressed recipient is refused (refuse), or taken and dropped (drop)
    suppression_days: int | None  # how long its hard bounces count; 0 not at all, None as the configuration says
    repeated_recipients: str  # several To or Cc fields are refused (refuse) or made one (join)
    foreign_senders: str  # Sender and Resent-* fields of others: the message is refused (refuse), or they go (remove)
    created_at: datetime
    updated_at: datetime


# Index: clients_name.
ADD = """
INSERT INTO clients (name, tier, may_send_bounces, daily_send_limit, limit_window, time_zone, bulk_reserve_percent)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING id, name, tier, status, may_send_bounces, daily_send_limit, limit_window, time_zone, bulk_reserve_percent,
          bounces, suppressed, suppression_days, repeated_recipients, foreign_senders, created_at, updated_at
"""

# Index: clients_name.
FIND = """
SELECT id, name, tier, status, may_send_bounces, daily_send_limit, limit_window, time_zone, bulk_reserve_percent,
       bounces, suppressed, suppression_days, repeated_recipients, foreign_senders, created_at, updated_at
  FROM clients WHERE name = $1 AND deleted_at IS NULL
"""

# To add something that belongs to it: waits for one who removes it, and then does not find it. Index: clients_name.
FIND_TO_USE = FIND + " FOR KEY SHARE"

# To change or remove it: also waits for those who add to it. Index: clients_name.
FIND_TO_CHANGE = FIND + " FOR UPDATE"

# Index: clients_name.
LIST = """
SELECT id, name, tier, status, may_send_bounces, daily_send_limit, limit_window, time_zone, bulk_reserve_percent,
       bounces, suppressed, suppression_days, repeated_recipients, foreign_senders, created_at, updated_at
  FROM clients WHERE deleted_at IS NULL ORDER BY name
"""

# For the message about an unknown name. Index: clients_name.
SOME_NAMES = "SELECT name FROM clients WHERE deleted_at IS NULL ORDER BY name LIMIT $1"

# Index: clients_pkey.
SAVE = """
UPDATE clients SET tier = $2, status = $3, may_send_bounces = $4, bounces = $5, suppressed = $6, suppression_days = $7,
                   repeated_recipients = $8, foreign_senders = $9
 WHERE id = $1
"""

# What makes the lanes of its mailboxes look again, even if they are parked. Index: clients_pkey.
SAVE_LIMITS = """
UPDATE clients SET daily_send_limit = $2, limit_window = $3, time_zone = $4, bulk_reserve_percent = $5 WHERE id = $1
"""

# What lives on in a client. Indexes: email_domains_client, email_mailboxes_client, email_configurations_client,
# smtp_credentials_client.
COUNT_CHILDREN = """
SELECT (SELECT count(*) FROM email_domains WHERE client_id = $1 AND deleted_at IS NULL) AS domains,
       (SELECT count(*) FROM email_mailboxes WHERE client_id = $1 AND deleted_at IS NULL) AS mailboxes,
       (SELECT count(*) FROM email_configurations WHERE client_id = $1 AND deleted_at IS NULL) AS upstreams,
       (SELECT count(*) FROM smtp_credentials WHERE client_id = $1 AND deleted_at IS NULL) AS credentials,
       (SELECT array_agg(id) FROM email_mailboxes WHERE client_id = $1) AS mailbox_ids
"""

# To weigh what it has against its tier: waits for others who do. Those who only refer to it go on. Index: clients_pkey.
LOCK = """
SELECT id, name, tier, status, may_send_bounces, daily_send_limit, limit_window, time_zone, bulk_reserve_percent,
       bounces, suppressed, suppression_days, repeated_recipients, foreign_senders, created_at, updated_at
  FROM clients WHERE id = $1 FOR NO KEY UPDATE
"""

# Indexes: email_domains_client, email_mailboxes_client, email_configurations_client.
HOLDINGS = """
SELECT (SELECT count(*) FROM email_domains WHERE client_id = $1 AND deleted_at IS NULL) AS domains,
       (SELECT count(*) FROM email_mailboxes WHERE client_id = $1 AND deleted_at IS NULL) AS mailboxes,
       (SELECT count(DISTINCT source_address) FROM email_configurations
         WHERE client_id = $1 AND deleted_at IS NULL) AS dedicated_ips
"""

# Index: clients_pkey.
REMOVE = "UPDATE clients SET deleted_at = relayd_now() WHERE id = $1"


async def add(
    connection: Connection,
    *,
    name: str,
    tier: str = "Ignition",
    may_send_bounces: bool = False,
    daily_send_limit: int | None = None,
    limit_window: str = "calendar",
    time_zone: str = "UTC",
    bulk_reserve_percent: int = 0,
) -> ClientRecord:
    """A new, active client. Raises Refusal if the name is taken, BadValue for an unknown time zone."""
    await zones.check(connection, time_zone)
    limits = daily_send_limit, limit_window, time_zone, bulk_reserve_percent
    with explained(taken=f"there is a client {name} already"):
        row = await connection.fetchrow(ADD, name, tier, may_send_bounces, *limits)
    return _record(row)


async def find(connection: Connection, name: str) -> ClientRecord:
    """The living client of that name. Raises NotFound, which says which names there are."""
    return await _find(connection, FIND, name)


async def find_to_use(connection: Connection, name: str) -> ClientRecord:
    """As find, for the owner of what this transaction adds: it is not removed in the meantime."""
    return await _find(connection, FIND_TO_USE, name)


async def find_to_change(connection: Connection, name: str) -> ClientRecord:
    """As find, and nobody else changes it until this transaction ends."""
    return await _find(connection, FIND_TO_CHANGE, name)


async def living(connection: Connection) -> list[ClientRecord]:
    """All clients, by name."""
    return [_record(row) for row in await connection.fetch(LIST)]


async def save(connection: Connection, found: ClientRecord, wanted: ClientRecord) -> ClientRecord:
    """Store what differs from what find_to_change gave: all but its name."""
    if wanted.time_zone != found.time_zone:
        await zones.check(connection, wanted.time_zone)
    with explained(taken=f"there is a client {found.name} already"):
        await connection.execute(
            SAVE,
            found.id,
            wanted.tier,
            wanted.status,
            wanted.may_send_bounces,
            wanted.bounces,
            wanted.suppressed,
            wanted.suppression_days,
            wanted.repeated_recipients,
            wanted.foreign_senders,
        )
        if _limits(wanted) != _limits(found):
            await connection.execute(SAVE_LIMITS, found.id, *_limits(wanted))
    return await find(connection, found.name)


async def holdings(connection: Connection, client_id: UUID) -> Holdings:
    """What a client has."""
    row = await connection.fetchrow(HOLDINGS, client_id)
    assert row is not None
    return Holdings(**dict(row))


async def lock_holdings(connection: Connection, client_id: UUID) -> tuple[ClientRecord, Holdings]:
    """A client and what it has, this transaction's own additions with it; nobody else weighs it until this one ends."""
    client = _record(await connection.fetchrow(LOCK, client_id))
    return client, await holdings(connection, client_id)


async def remove(connection: Connection, client: ClientRecord) -> None:
    """Remove a client found with find_to_change. Raises Refusal while anything lives in it."""
    row = await connection.fetchrow(COUNT_CHILDREN, client.id)
    assert row is not None
    children = [
        (row["mailboxes"], "mailbox", f"relayd mailbox list --client {client.name}"),
        (row["credentials"], "credential", f"relayd credential list --client {client.name}"),
        (row["domains"], "domain", f"relayd domain list --client {client.name}"),
        (row["upstreams"], "upstream", f"relayd upstream list --client {client.name}"),
    ]
    mail = await needs.mail_of_mailboxes(connection, row["mailbox_ids"] or [])
    needs.refuse_if_needed(f"client {client.name}", children, mail, list_mail="relayd queue list")
    await connection.execute(REMOVE, client.id)


async def _find(connection: Connection, statement: str, name: str) -> ClientRecord:
    row = await connection.fetchrow(statement, name)
    if row is None:
        some = [row["name"] for row in await connection.fetch(SOME_NAMES, names.ASKED)]
        raise names.unknown("client", name, some, add=f"relayd client add {name}")
    return _record(row)


def _limits(client: ClientRecord) -> tuple[int | None, str, str, int]:
    # $2 to $5 of SAVE_LIMITS.
    return client.daily_send_limit, client.limit_window, client.time_zone, client.bulk_reserve_percent


def _record(row: asyncpg.Record | None) -> ClientRecord:
    assert row is not None, "RETURNING and a checked SELECT give a row"
    return ClientRecord(**dict(row))
