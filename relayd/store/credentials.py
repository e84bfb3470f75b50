"""SMTP credentials: logins of apps. Of the secret there is only a SCRAM-SHA-256 verifier, which is never read here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from relayd.store import names
from relayd.store.connection import Connection
from relayd.store.violations import explained


@dataclass(frozen=True, slots=True)
class CredentialRecord:
    """A living credential. `senders` are addresses and domains in lower case; None: all of its client's."""

    id: UUID
    login: str
    client_id: UUID
    client: str
    senders: list[str] | None
    is_active: bool
    mail_class: str | None  # None: as the mailbox
    refuse_after_seconds: int | None  # mail that would leave later is refused for now; None: never
    long_lines: str  # lines over 998 octets are made shorter (reencode) or refused (refuse)
    pool: str | None  # whose members send what it submits
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Verifier:
    """SCRAM-SHA-256 (RFC 5802, RFC 7677)."""

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


# All the living. Index: smtp_credentials_login.
SELECT_LIVING = """
SELECT k.id, k.login, k.client_id, c.name AS client, k.senders, k.is_active, k.mail_class, k.refuse_after_seconds,
       k.long_lines, (SELECT p.name FROM mailbox_pools p WHERE p.id = k.pool_id) AS pool, k.created_at, k.updated_at
  FROM smtp_credentials k JOIN clients c ON c.id = k.client_id
 WHERE k.deleted_at IS NULL
"""

# Of one client; NULL: of all. Index: smtp_credentials_login.
LIST = SELECT_LIVING + " AND ($1::uuid IS NULL OR k.client_id = $1) ORDER BY k.login"

# Index: smtp_credentials_login.
FIND = SELECT_LIVING + " AND k.login = $1"

# To change or remove it.
FIND_TO_CHANGE = FIND + " FOR UPDATE OF k"

# For the message about an unknown login. Index: smtp_credentials_login.
SOME_NAMES = "SELECT login FROM smtp_credentials WHERE deleted_at IS NULL ORDER BY login LIMIT $1"

# Index: smtp_credentials_login.
ADD = """
INSERT INTO smtp_credentials (client_id, login, senders, mail_class, refuse_after_seconds, long_lines, salt, iterations,
                              stored_key, server_key)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""

# Index: smtp_credentials_pkey.
SAVE = """
UPDATE smtp_credentials
   SET senders = $2, is_active = $3, mail_class = $4, refuse_after_seconds = $5, long_lines = $6
 WHERE id = $1
"""

# Index: smtp_credentials_pkey.
SAVE_VERIFIER = """
UPDATE smtp_credentials SET salt = $2, iterations = $3, stored_key = $4, server_key = $5 WHERE id = $1
"""

# Index: smtp_credentials_pkey.
REMOVE = "UPDATE smtp_credentials SET deleted_at = relayd_now(), is_active = false WHERE id = $1"


async def add(
    connection: Connection,
    *,
    client_id: UUID,
    login: str,
    verifier: Verifier,
    senders: Sequence[str] | None = None,
    mail_class: str | None = None,
    refuse_after_seconds: int | None = None,
    long_lines: str = "reencode",
) -> CredentialRecord:
    """A new, active credential. Raises Refusal if the login is taken."""
    with explained(taken=f"there is a credential {login} already"):
        terms = senders, mail_class, refuse_after_seconds, long_lines
        await connection.execute(ADD, client_id, login, *terms, *_columns(verifier))
    return await find(connection, login)


async def find(connection: Connection, login: str) -> CredentialRecord:
    """The living credential of that login. Raises NotFound, which says which there are."""
    return await _find(connection, FIND, login)


async def find_to_change(connection: Connection, login: str) -> CredentialRecord:
    """As find, and nobody else changes it until this transaction ends."""
    return await _find(connection, FIND_TO_CHANGE, login)


async def living(connection: Connection, *, client_id: UUID | None = None) -> list[CredentialRecord]:
    """The credentials of one client or of all, by login."""
    return [CredentialRecord(**dict(row)) for row in await connection.fetch(LIST, client_id)]


async def save(connection: Connection, credential: CredentialRecord, verifier: Verifier | None) -> CredentialRecord:
    """Store what may change of a credential found with find_to_change, and a new verifier if there is one."""
    with explained(taken=f"there is a credential {credential.login} already"):
        await connection.execute(
            SAVE,
            credential.id,
            credential.senders,
            credential.is_active,
            credential.mail_class,
            credential.refuse_after_seconds,
            credential.long_lines,
        )
        if verifier is not None:
            await connection.execute(SAVE_VERIFIER, credential.id, *_columns(verifier))
    return await find(connection, credential.login)


async def remove(connection: Connection, credential: CredentialRecord) -> None:
    """Remove a credential found with find_to_change. Its app can log in no more, within a second."""
    await connection.execute(REMOVE, credential.id)


async def _find(connection: Connection, statement: str, login: str) -> CredentialRecord:
    row = await connection.fetchrow(statement, login)
    if row is None:
        some = [row["login"] for row in await connection.fetch(SOME_NAMES, names.ASKED)]
        raise names.unknown("credential", login, some, add=f"relayd credential add {login} --client NAME")
    return CredentialRecord(**dict(row))


def _columns(verifier: Verifier) -> tuple[bytes, int, bytes, bytes]:
    return verifier.salt, verifier.iterations, verifier.stored_key, verifier.server_key
