"""Upstreams (table email_configurations): where mail goes next."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from relayd.errors import Refusal
from relayd.store import names, needs
from relayd.store.connection import Connection
from relayd.store.violations import explained


@dataclass(frozen=True, slots=True)
class UpstreamRecord:
    """An upstream, stored or about to be: fields without a default name it, the others have the table's defaults.

    `client_id` None: shared by all clients. The password is sealed for `password_seal_row`.
    """

    id: UUID
    name: str
    provider_type: str
    client_id: UUID | None = None
    client: str | None = None  # the client's name; read, never written
    smtp_host: str | None = None
    smtp_port: int | None = None
    smtp_tls: str | None = None
    smtp_verify_certificate: bool = True
    smtp_ca_file: str | None = None
    smtp_username: str | None = None
    smtp_password_sealed: bytes | None = field(default=None, repr=False)
    smtp_auth_mechanism: str | None = None
    smtp_allow_plaintext_auth: bool = False
    ehlo_name: str | None = None
    source_address: str | None = None
    max_connections: int = 20
    max_recipients: int = 100
    max_messages_per_connection: int = 100
    on_uncertain: str = "retry"
    capture_directory: str | None = None
    sender_address: str | None = None
    sender_name: str | None = None
    is_active: bool = True
    is_verified: bool = False
    paused_at: datetime | None = None
    paused_reason: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    created_by: str | None = None
    updated_by: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def password_seal_row(self) -> str:
        """The identity under which the password is sealed."""
        return password_row(self.id)


def password_row(upstream_id: UUID) -> str:
    """The identity under which an upstream's password is sealed."""
    return f"email_configurations/{upstream_id}/smtp_password"


# All the living. Index: email_configurations_name.
SELECT_LIVING = """
SELECT u.id, u.name, u.provider_type, u.client_id, c.name AS client, u.smtp_host, u.smtp_port, u.smtp_tls,
       u.smtp_verify_certificate, u.smtp_ca_file, u.smtp_username, u.smtp_password_sealed, u.smtp_auth_mechanism,
       u.smtp_allow_plaintext_auth, u.ehlo_name, host(u.source_address) AS source_address, u.max_connections,
       u.max_recipients, u.max_messages_per_connection, u.on_uncertain, u.capture_directory, u.sender_address,
       u.sender_name, u.is_active, u.is_verified, u.paused_at, u.paused_reason, u.metadata, u.created_by, u.updated_by,
       u.created_at, u.updated_at
  FROM email_configurations u LEFT JOIN clients c ON c.id = u.client_id
 WHERE u.deleted_at IS NULL
"""

# Of one client, those that all share included; NULL: of all. Index: email_configurations_name.
LIST = SELECT_LIVING + " AND ($1::uuid IS NULL OR u.client_id IS NULL OR u.client_id = $1) ORDER BY u.name"

# Index: email_configurations_name.
FIND = SELECT_LIVING + " AND u.name = $1"

# For the owner of what is added: waits for one who removes it, and then does not find it.
FIND_TO_USE = FIND + " FOR KEY SHARE OF u"

# To change or remove it: also waits for those who add to it.
FIND_TO_CHANGE = FIND + " FOR UPDATE OF u"

# For the message about an unknown name. Index: email_configurations_name.
SOME_NAMES = "SELECT name FROM email_configurations WHERE deleted_at IS NULL ORDER BY name LIMIT $1"

# Index: email_configurations_name.
ADD = """
INSERT INTO email_configurations (
  id, name, provider_type, client_id, smtp_host, smtp_port, smtp_tls, smtp_verify_certificate, smtp_ca_file,
  smtp_username, smtp_password_sealed, smtp_auth_mechanism, smtp_allow_plaintext_auth, ehlo_name, source_address,
  max_connections, max_recipients, max_messages_per_connection, on_uncertain, capture_directory, sender_address,
  sender_name, is_active)
VALUES ($1, $20, $21, $22, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::inet, $13, $14, $15, $16, $17, $18,
        $19, $23)
"""

# Index: email_configurations_pkey.
SAVE = """
UPDATE email_configurations
   SET smtp_host = $2, smtp_port = $3, smtp_tls = $4, smtp_verify_certificate = $5, smtp_ca_file = $6,
       smtp_username = $7, smtp_password_sealed = $8, smtp_auth_mechanism = $9, smtp_allow_plaintext_auth = $10,
       ehlo_name = $11, source_address = $12::text::inet, max_connections = $13, max_recipients = $14,
       max_messages_per_connection = $15, on_uncertain = $16, capture_directory = $17, sender_address = $18,
       sender_name = $19, is_active = $20, updated_by = relayd_actor()
 WHERE id = $1
"""

# Index: email_mailboxes_upstream.
COUNT_MAILBOXES = "SELECT count(*) FROM email_mailboxes WHERE upstream_id = $1 AND deleted_at IS NULL"

# Index: email_configurations_pkey.
REMOVE = "UPDATE email_configurations SET deleted_at = relayd_now(), updated_by = relayd_actor() WHERE id = $1"


async def add(connection: Connection, upstream: UpstreamRecord) -> UpstreamRecord:
    """Store a new upstream under its id, which the caller made. Raises Refusal if the name is taken."""
    with explained(taken=f"there is an upstream {upstream.name} already"):
        await connection.execute(
            ADD,
            *_settings(upstream),
            upstream.name,
            upstream.provider_type,
            upstream.client_id,
            upstream.is_active,
        )
    return await find(connection, upstream.name)


async def living(connection: Connection, *, client_id: UUID | None = None) -> list[UpstreamRecord]:
    """All upstreams by name, or those that one client may use."""
    return [_record(row) for row in await connection.fetch(LIST, client_id)]


async def find(connection: Connection, name: str) -> UpstreamRecord:
    """The living upstream of that name. Raises NotFound, which says which names there are."""
    return await _find(connection, FIND, name)


async def find_to_change(connection: Connection, name: str) -> UpstreamRecord:
    """As find, and nobody else changes it until this transaction ends."""
    return await _find(connection, FIND_TO_CHANGE, name)


async def choose(connection: Connection, name: str | None, *, client_id: UUID, client: str) -> UpstreamRecord:
    """The upstream of that name for a mailbox of the client; without a name the only one there is.

    It is not removed before this transaction ends. Raises Refusal if it is another client's, or the choice is open.
    """
    if name is None:
        name = _only(client, await living(connection, client_id=client_id))
    upstream = await _find(connection, FIND_TO_USE, name)
    if upstream.client_id not in (None, client_id):
        raise Refusal(f"upstream {name} belongs to client {upstream.client}, not to {client}")
    return upstream


async def save(connection: Connection, upstream: UpstreamRecord) -> UpstreamRecord:
    """Store what may change of an upstream found with find_to_change: all that its add took but name, kind, owner."""
    with explained(taken=f"there is an upstream {upstream.name} already"):
        await connection.execute(SAVE, *_settings(upstream), upstream.is_active)
    return await find(connection, upstream.name)


async def remove(connection: Connection, upstream: UpstreamRecord) -> None:
    """Remove an upstream found with find_to_change. Raises Refusal while mailboxes or mail in flight need it."""
    mailboxes = await connection.fetchval(COUNT_MAILBOXES, upstream.id)
    children = [(mailboxes, "mailbox", f"relayd mailbox set ADDRESS --upstream OTHER, for each of: {_list(upstream)}")]
    mail = await needs.mail_of_upstream(connection, upstream.id)
    needs.refuse_if_needed(f"upstream {upstream.name}", children, mail, list_mail="relayd queue list --state sending")
    await connection.execute(REMOVE, upstream.id)


def _list(upstream: UpstreamRecord) -> str:
    return f"relayd mailbox list --upstream {upstream.name}"


def _only(client: str, usable: Sequence[UpstreamRecord]) -> str:
    match [upstream.name for upstream in usable]:
        case [name]:
            return name
        case []:
            raise Refusal(
                f"client {client} has no upstream to send through",
                hint="add one: relayd upstream add NAME --provider smtp_relay --host HOST --port 587 --tls starttls",
            )
        case several:
            raise Refusal(f"there are several upstreams: {', '.join(several)}", hint="choose one with --upstream NAME")


async def _find(connection: Connection, statement: str, name: str) -> UpstreamRecord:
    row = await connection.fetchrow(statement, name)
    if row is None:
        some = [row["name"] for row in await connection.fetch(SOME_NAMES, names.ASKED)]
        raise names.unknown("upstream", name, some, add=f"relayd upstream add {name} --provider smtp_relay|capture …")
    return _record(row)


def _settings(upstream: UpstreamRecord) -> tuple[Any, ...]:
    # $1 to $19 of ADD and SAVE.
    return (
        upstream.id,
        upstream.smtp_host,
        upstream.smtp_port,
        upstream.smtp_tls,
        upstream.smtp_verify_certificate,
        upstream.smtp_ca_file,
        upstream.smtp_username,
        upstream.smtp_password_sealed,
        upstream.smtp_auth_mechanism,
        upstream.smtp_allow_plaintext_auth,
        upstream.ehlo_name,
        upstream.source_address,
        upstream.max_connections,
        upstream.max_recipients,
        upstream.max_messages_per_connection,
        upstream.on_uncertain,
        upstream.capture_directory,
        upstream.sender_address,
        upstream.sender_name,
    )


def _record(row: asyncpg.Record) -> UpstreamRecord:
    return UpstreamRecord(**dict(row))
