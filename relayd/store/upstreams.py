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

    `client_id` None: shared by all clients. Each secret is sealed for `seal_row` of its column.
    """

    id: UUID
    name: str
    provider_type: str
    client_id: UUID | None = None
    client: str | None = None  # the client's name; read, never written
    mode: str | None = None
    dialect: str | None = None
    smtp_host: str | None = None
    smtp_port: int | None = None
    smtp_tls: str | None = None
    smtp_verify_certificate: bool = True
    smtp_ca_file: str | None = None
    smtp_username: str | None = None
    smtp_password_sealed: bytes | None = field(default=None, repr=False)
    smtp_auth_mechanism: str | None = None
    smtp_allow_plaintext_auth: bool = False
    smtp_client_certificate: str | None = field(default=None, repr=False)
    smtp_client_key_sealed: bytes | None = field(default=None, repr=False)
    api_url: str | None = None
    api_key_sealed: bytes | None = field(default=None, repr=False)
    token_url: str | None = None
    authorization_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret_sealed: bytes | None = field(default=None, repr=False)
    oauth_account: str | None = None
    oauth_refresh_token_sealed: bytes | None = field(default=None, repr=False)
    google_service_account: str | None = None
    google_service_account_sealed: bytes | None = field(default=None, repr=False)
    ehlo_name: str | None = None
    source_address: str | None = None
    max_connections: int = 20
    max_recipients: int = 100
    max_messages_per_connection: int = 100
    idle_seconds: float = 10.0
    on_uncertain: str = "retry"
    capture_directory: str | None = None
    sender_address: str | None = None
    sender_name: str | None = None
    is_active: bool = True
    is_verified: bool = False
    paused_at: datetime | None = None
    paused_reason: str | None = None
    spf_include: str | None = None
    dkim: str | None = None  # None: as is known of its host
    breaker: str = "closed"  # its state; read, never written, as the five after it
    breaker_reason: str | None = None
    breaker_retry_at: datetime | None = None  # None: closed, or until somebody closes it
    consecutive_failures: int = 0
    last_failure: str | None = None
    last_failed_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    created_by: str | None = None
    updated_by: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def seal_row(self, column: str) -> str:
        """The identity under which the secret of a column is sealed; `column` is named without its `_sealed`."""
        return seal_row(self.id, column)


def seal_row(upstream_id: UUID, column: str) -> str:
    """The identity under which an upstream's secret is sealed: `smtp_password`, `api_key`, …"""
    return f"email_configurations/{upstream_id}/{column}"


# All the living. Index: email_configurations_name.
SELECT_LIVING = """
SELECT u.id, u.name, u.provider_type, u.client_id, c.name AS client, u.mode, u.dialect, u.smtp_host, u.smtp_port,
       u.smtp_tls, u.smtp_verify_certificate, u.smtp_ca_file, u.smtp_username, u.smtp_password_sealed,
       u.smtp_auth_mechanism, u.smtp_allow_plaintext_auth, u.smtp_client_certificate, u.smtp_client_key_sealed,
       u.api_url, u.api_key_sealed, u.token_url, u.authorization_url, u.oauth_client_id, u.oauth_client_secret_sealed,
       u.oauth_account, u.oauth_refresh_token_sealed, u.google_service_account, u.google_service_account_sealed,
       u.ehlo_name, host(u.source_address) AS source_address, u.max_connections, u.max_recipients,
       u.max_messages_per_connection, u.idle_seconds, u.on_uncertain, u.capture_directory, u.sender_address,
       u.sender_name, u.spf_include, u.dkim, u.is_active, u.is_verified, u.paused_at, u.paused_reason, u.metadata,
       u.created_by, u.updated_by, u.created_at, u.updated_at, COALESCE(k.state, 'closed') AS breaker,
       k.reason AS breaker_reason, NULLIF(k.retry_at, 'infinity') AS breaker_retry_at,
       COALESCE(k.consecutive_failures, 0) AS consecutive_failures, k.last_failure, k.last_failed_at
  FROM email_configurations u
  LEFT JOIN clients c ON c.id = u.client_id
  LEFT JOIN upstream_breakers k ON k.upstream_id = u.id
 WHERE u.deleted_at IS NULL
"""

# Of one client, those that all share included; NULL: of all. Index: email_configurations_name.
LIST = SELECT_LIVING + " AND ($1::uuid IS NULL OR u.client_id IS NULL OR u.client_id = $1) ORDER BY u.name"

# Index: email_configurations_name.
FIND = SELECT_LIVING + " AND u.name = $1"

# Index: email_configurations_pkey.
FIND_BY_ID = SELECT_LIVING + " AND u.id = $1"

# For the owner of what is added: waits for one who removes it, and then does not find it.
FIND_TO_USE = FIND + " FOR KEY SHARE OF u"

# To change or remove it: also waits for those who add to it.
FIND_TO_CHANGE = FIND + " FOR UPDATE OF u"

# For the message about an unknown name. Index: email_configurations_name.
SOME_NAMES = "SELECT name FROM email_configurations WHERE deleted_at IS NULL ORDER BY name LIMIT $1"

# Index: email_configurations_name.
ADD = """
INSERT INTO email_configurations (
  id, is_active, mode, dialect, smtp_host, smtp_port, smtp_tls, smtp_verify_certificate, smtp_ca_file,
  smtp_username, smtp_password_sealed, smtp_auth_mechanism, smtp_allow_plaintext_auth, smtp_client_certificate,
  smtp_client_key_sealed, api_url, api_key_sealed, token_url, authorization_url, oauth_client_id,
  oauth_client_secret_sealed, oauth_account, oauth_refresh_token_sealed, google_service_account,
  google_service_account_sealed, ehlo_name, source_address, max_connections, max_recipients,
  max_messages_per_connection, idle_seconds, on_uncertain, capture_directory, sender_address, sender_name,
  spf_include, dkim, name, provider_type, client_id)
VALUES (
  $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
  $25, $26, $27::text::inet, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40)
"""

# Index: email_configurations_pkey.
SAVE = """
UPDATE email_configurations
   SET is_active = $2, mode = $3, dialect = $4, smtp_host = $5, smtp_port = $6, smtp_tls = $7,
       smtp_verify_certificate = $8, smtp_ca_file = $9, smtp_username = $10, smtp_password_sealed = $11,
       smtp_auth_mechanism = $12, smtp_allow_plaintext_auth = $13, smtp_client_certificate = $14,
       smtp_client_key_sealed = $15, api_url = $16, api_key_sealed = $17, token_url = $18,
       authorization_url = $19, oauth_client_id = $20, oauth_client_secret_sealed = $21, oauth_account = $22,
       oauth_refresh_token_sealed = $23, google_service_account = $24, google_service_account_sealed = $25,
       ehlo_name = $26, source_address = $27::text::inet, max_connections = $28, max_recipients = $29,
       max_messages_per_connection = $30, idle_seconds = $31, on_uncertain = $32, capture_directory = $33,
       sender_address = $34, sender_name = $35, spf_include = $36, dkim = $37, is_verified = false,
       updated_by = relayd_actor()
 WHERE id = $1
"""

# What counts now, and nobody exchanges or replaces it until this transaction ends. Index: email_configurations_pkey.
LOCK_REFRESH_TOKEN = """
SELECT oauth_refresh_token_sealed FROM email_configurations WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
"""  # noqa: S105

# In this transaction the tokens of grants outlive a change of how those are kept (migration 0022). Index: none.
KEEP_TOKENS = "SELECT set_config('relayd.keeps_tokens', 'on', true)"

# Audited under a name of its own. Index: email_configurations_pkey.
EXCHANGE_ACTOR = "SELECT set_config('relayd.actor', 'token exchange', true)"
EXCHANGE_REFRESH_TOKEN = "UPDATE email_configurations SET oauth_refresh_token_sealed = $2 WHERE id = $1"  # noqa: S105

# Unless it was changed since it was read. Index: email_configurations_pkey.
MARK_VERIFIED = "UPDATE email_configurations SET is_verified = true WHERE id = $1 AND updated_at = $2"

# Index: email_mailboxes_upstream.
SOME_SENDER = """
SELECT email_address FROM email_mailboxes WHERE upstream_id = $1 AND deleted_at IS NULL ORDER BY created_at, id LIMIT 1
"""

# Indexes: email_mailboxes_upstream, mailbox_upstreams_upstream.
COUNT_MAILBOXES = """
SELECT count(*) FROM email_mailboxes m
 WHERE m.deleted_at IS NULL
   AND m.id IN (SELECT id FROM email_mailboxes WHERE upstream_id = $1
                UNION SELECT mailbox_id FROM mailbox_upstreams WHERE upstream_id = $1)
"""

# Index: mail_route_upstreams_upstream.
COUNT_ROUTES = """
SELECT count(*) FROM mail_route_upstreams x JOIN mail_routes r ON r.id = x.route_id AND r.deleted_at IS NULL
 WHERE x.upstream_id = $1
"""

# Index: email_configurations_pkey.
REMOVE = "UPDATE email_configurations SET deleted_at = relayd_now(), updated_by = relayd_actor() WHERE id = $1"


# $1 to $37 of ADD and SAVE.
_SETTINGS = (
    "id", "is_active", "mode", "dialect", "smtp_host", "smtp_port", "smtp_tls", "smtp_verify_certificate",
    "smtp_ca_file", "smtp_username", "smtp_password_sealed", "smtp_auth_mechanism", "smtp_allow_plaintext_auth",
    "smtp_client_certificate", "smtp_client_key_sealed", "api_url", "api_key_sealed", "token_url",
    "authorization_url", "oauth_client_id", "oauth_client_secret_sealed", "oauth_account",
    "oauth_refresh_token_sealed", "google_service_account", "google_service_account_sealed", "ehlo_name",
    "source_address", "max_connections", "max_recipients", "max_messages_per_connection", "idle_seconds",
    "on_uncertain", "capture_directory", "sender_address", "sender_name", "spf_include", "dkim",
)  # fmt: skip


async def add(connection: Connection, upstream: UpstreamRecord) -> UpstreamRecord:
    """Store a new upstream under its id, which the caller made. Raises Refusal if the name is taken."""
    with explained(taken=f"there is an upstream {upstream.name} already"):
        owned = (upstream.name, upstream.provider_type, upstream.client_id)
        await connection.execute(ADD, *_settings(upstream), *owned)
    return await find(connection, upstream.name)


async def living(connection: Connection, *, client_id: UUID | None = None) -> list[UpstreamRecord]:
    """All upstreams by name, or those that one client may use."""
    return [_record(row) for row in await connection.fetch(LIST, client_id)]


async def find(connection: Connection, name: str) -> UpstreamRecord:
    """The living upstream of that name. Raises NotFound, which says which names there are."""
    return await _find(connection, FIND, name)


async def find_by_id(connection: Connection, upstream_id: UUID) -> UpstreamRecord | None:
    """The living upstream of that id."""
    row = await connection.fetchrow(FIND_BY_ID, upstream_id)
    return _record(row) if row is not None else None


async def find_to_change(connection: Connection, name: str) -> UpstreamRecord:
    """As find, and nobody else changes it until this transaction ends."""
    return await _find(connection, FIND_TO_CHANGE, name)


async def choose(connection: Connection, name: str | None, *, client_id: UUID, client: str) -> UpstreamRecord:
    """The upstream of that name for a mailbox of the client; without a name the only one there is.

    It is not removed before this transaction ends. Raises Refusal if it is another client's, or the choice is open.
    """
    if name is None:
        name = _only(client, await living(connection, client_id=client_id))
    return await choose_for(connection, name, client_id=client_id, client=client)


async def choose_for(connection: Connection, name: str, *, client_id: UUID | None, client: str) -> UpstreamRecord:
    """The upstream of that name for mail of the client (`client_id` None: of all), which then stays, as with choose."""
    upstream = await _find(connection, FIND_TO_USE, name)
    if upstream.client_id not in (None, client_id):
        raise Refusal(f"upstream {name} belongs to client {upstream.client}, not to {client}")
    return upstream


async def save(connection: Connection, upstream: UpstreamRecord) -> UpstreamRecord:
    """Store what may change of an upstream found with find_to_change: all that its add took but name, kind, owner."""
    with explained(taken=f"there is an upstream {upstream.name} already"):
        await connection.execute(SAVE, *_settings(upstream))
    return await find(connection, upstream.name)


async def lock_refresh_token(connection: Connection, upstream_id: UUID) -> bytes | None:
    """The sealed refresh token of now, which stays until this transaction ends; None if there is none."""
    sealed: bytes | None = await connection.fetchval(LOCK_REFRESH_TOKEN, upstream_id)
    return sealed


async def exchange_refresh_token(connection: Connection, upstream_id: UUID, sealed: bytes) -> None:
    """Store the next refresh token of the same grant, after lock_refresh_token. Its access tokens stay."""
    await keep_tokens(connection)
    await connection.execute(EXCHANGE_ACTOR)
    await connection.execute(EXCHANGE_REFRESH_TOKEN, upstream_id, sealed)


async def keep_tokens(connection: Connection) -> None:
    """What this transaction changes leaves every grant the same: access tokens and the lease of a fetch stay."""
    await connection.execute(KEEP_TOKENS)


async def mark_verified(connection: Connection, upstream: UpstreamRecord) -> None:
    """It was tried as it is in this record, and it works. The next `save` takes the mark away."""
    await connection.execute(MARK_VERIFIED, upstream.id, upstream.updated_at)


async def some_sender(connection: Connection, upstream: UpstreamRecord) -> str | None:
    """The address of the first mailbox that sends through it, None if there is none."""
    address: str | None = await connection.fetchval(SOME_SENDER, upstream.id)
    return address


async def remove(connection: Connection, upstream: UpstreamRecord) -> None:
    """Remove an upstream found with find_to_change. Raises Refusal while anybody needs it."""
    mailboxes = await connection.fetchval(COUNT_MAILBOXES, upstream.id)
    routes = await connection.fetchval(COUNT_ROUTES, upstream.id)
    children = [
        (mailboxes, "mailbox", f"relayd mailbox set ADDRESS --upstream OTHER, for each of: {_list(upstream)}"),
        (routes, "route", "relayd route set NAME --upstreams OTHER, for each of: relayd route list"),
    ]
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
    return tuple(getattr(upstream, name) for name in _SETTINGS)


def _record(row: asyncpg.Record) -> UpstreamRecord:
    return UpstreamRecord(**dict(row))
