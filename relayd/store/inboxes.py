"""Where mailboxes' own mail is read, and how far it was."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class InboxRecord:
    """A mailbox's inbox."""

    id: UUID
    client_id: UUID
    client: str
    mailbox_id: UUID
    email_address: str
    kind: str
    imap_host: str | None
    imap_port: int | None
    imap_tls: str | None
    imap_ca_file: str | None
    imap_username: str | None
    imap_password_sealed: bytes | None = field(repr=False)
    imap_folder: str | None
    uid_validity: int | None
    last_uid: int | None
    read_to: datetime | None
    failures: int
    last_error: str | None
    last_pulled_at: datetime | None
    next_pull_at: datetime | None
    # Whoever has taken it has this one; None: nobody.
    lease_expires_at: datetime | None = None
    # At which message so many looks in a row have ended.
    stuck_key: str | None = None
    stuck_looks: int = 0

    @property
    def seal_row(self) -> str:
        """The identity under which its password is sealed."""
        return seal_row(self.mailbox_id)


def seal_row(mailbox_id: UUID) -> str:
    """The identity under which the password for a mailbox's inbox is sealed."""
    return f"mailbox_inboxes/{mailbox_id}/imap_password"


# Index: mailbox_inboxes_mailbox_id_key.
FIND = """
SELECT i.id, i.client_id, c.name AS client, i.mailbox_id, i.email_address, i.kind, i.imap_host, i.imap_port, i.imap_tls,
       i.imap_ca_file, i.imap_username, i.imap_password_sealed, i.imap_folder, i.uid_validity, i.last_uid, i.read_to,
       i.failures, i.last_error, i.last_pulled_at, NULLIF(i.next_pull_at, '-infinity') AS next_pull_at,
       NULLIF(i.lease_expires_at, '-infinity') AS lease_expires_at, i.stuck_key, i.stuck_looks
  FROM mailbox_inboxes i JOIN clients c ON c.id = i.client_id WHERE i.mailbox_id = $1
"""

# Which folder is read decides what was read of it: elsewhere it begins anew. A look that goes on as it was told before
# has lost its lease. Index: mailbox_inboxes_mailbox_id_key.
SAVE = """
INSERT INTO mailbox_inboxes AS i
       (client_id, mailbox_id, email_address, kind, imap_host, imap_port, imap_tls, imap_ca_file, imap_username,
        imap_password_sealed, imap_folder)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (mailbox_id) DO UPDATE
   SET kind = $4, imap_host = $5, imap_port = $6, imap_tls = $7, imap_ca_file = $8, imap_username = $9,
       imap_password_sealed = $10, imap_folder = $11, next_pull_at = '-infinity', failures = 0, last_error = NULL,
       lease_expires_at = '-infinity', stuck_key = NULL, stuck_looks = 0,
       (uid_validity, last_uid, read_to) =
         (SELECT x.* FROM (VALUES (i.uid_validity, i.last_uid, i.read_to)) x
           WHERE (i.kind, i.imap_host, i.imap_username, i.imap_folder) IS NOT DISTINCT FROM ($4, $5, $9, $11))
"""

# Index: mailbox_inboxes_mailbox_id_key.
REMOVE = "DELETE FROM mailbox_inboxes WHERE mailbox_id = $1"

# The one that has waited longest, for so long ($1); its next turn is spread about so long after ($2).
# Index: mailbox_inboxes_due.
TAKE = """
WITH taken AS MATERIALIZED (
  SELECT i.id FROM mailbox_inboxes i JOIN email_mailboxes m ON m.id = i.mailbox_id
   WHERE i.next_pull_at <= relayd_now() AND i.lease_expires_at <= relayd_now() AND m.deleted_at IS NULL
   ORDER BY i.next_pull_at LIMIT 1 FOR NO KEY UPDATE OF i SKIP LOCKED)
UPDATE mailbox_inboxes i
   SET lease_expires_at = relayd_now() + make_interval(secs => $1),
       next_pull_at = relayd_now() + make_interval(secs => $2::float8 * (0.75 + random() * 0.5))
  FROM taken WHERE i.id = taken.id
RETURNING i.mailbox_id
"""

# Whoever has the lease ($2) alone. Index: mailbox_inboxes_pkey.
ADVANCE = """
UPDATE mailbox_inboxes SET uid_validity = $3, last_uid = $4, read_to = $5 WHERE id = $1 AND lease_expires_at = $2
"""

# Whoever has the lease ($2) alone; $3: it is its turn again at once. Index: mailbox_inboxes_pkey.
SUCCEED = """
UPDATE mailbox_inboxes
   SET lease_expires_at = '-infinity', failures = 0, last_error = NULL, stuck_key = NULL, stuck_looks = 0,
       last_pulled_at = relayd_now(), next_pull_at = CASE WHEN $3 THEN '-infinity' ELSE next_pull_at END
 WHERE id = $1 AND lease_expires_at = $2
"""

# Index: email_mailboxes_pkey.
UPSTREAM_OF = "SELECT upstream_id FROM email_mailboxes WHERE id = $1"

# Each failure in a row doubles the wait, up to four hours. Where a message is to blame ($4, so many looks in a row: $5)
# the inbox can be read otherwise, and only those looks count. Whoever has the lease ($2) alone.
# Index: mailbox_inboxes_pkey.
FAIL = """
UPDATE mailbox_inboxes i
   SET lease_expires_at = '-infinity', last_error = $3, failures = f.failures,
       stuck_key = COALESCE($4, i.stuck_key), stuck_looks = COALESCE($5, i.stuck_looks),
       next_pull_at = relayd_now() + make_interval(secs => LEAST(60 * 2 ^ LEAST(f.failures - 1, 10), 14400)
                                                           * (0.75 + random() * 0.5))
  FROM (SELECT id, COALESCE($5::int, failures + 1) AS failures FROM mailbox_inboxes WHERE id = $1) f
 WHERE i.id = f.id AND i.lease_expires_at = $2
RETURNING i.failures
"""


async def upstream_of(connection: Connection, mailbox_id: UUID) -> UUID | None:
    """Through which the mailbox sends."""
    found: UUID | None = await connection.fetchval(UPSTREAM_OF, mailbox_id)
    return found


async def find(connection: Connection, mailbox_id: UUID) -> InboxRecord | None:
    """The inbox of a mailbox, None if none is read."""
    row = await connection.fetchrow(FIND, mailbox_id)
    return InboxRecord(**dict(row)) if row else None


async def save(
    connection: Connection,
    *,
    client_id: UUID,
    mailbox_id: UUID,
    email_address: str,
    kind: str,
    imap_host: str | None = None,
    imap_port: int | None = None,
    imap_tls: str | None = None,
    imap_ca_file: str | None = None,
    imap_username: str | None = None,
    imap_password_sealed: bytes | None = None,
    imap_folder: str | None = None,
) -> None:
    """Read a mailbox's inbox from now on, or in another way than before. The password is sealed for `seal_row`."""
    await connection.execute(
        SAVE,
        client_id,
        mailbox_id,
        email_address,
        kind,
        imap_host,
        imap_port,
        imap_tls,
        imap_ca_file,
        imap_username,
        imap_password_sealed,
        imap_folder,
    )


async def remove(connection: Connection, mailbox_id: UUID) -> None:
    """Read it no more."""
    await connection.execute(REMOVE, mailbox_id)


async def take(connection: Connection, *, lease_seconds: float, every_seconds: float) -> InboxRecord | None:
    """One whose turn it is, for this caller alone until the lease ends; None if there is none. In a transaction."""
    mailbox_id = await connection.fetchval(TAKE, lease_seconds, every_seconds)
    return await find(connection, mailbox_id) if mailbox_id is not None else None


async def advance(
    connection: Connection,
    record: InboxRecord,
    uid_validity: int | None,
    last_uid: int | None,
    read_to: datetime | None,
) -> bool:
    """It was read so far. False: who took it as `record` has it no more, and nothing has changed."""
    done = await connection.execute(ADVANCE, record.id, record.lease_expires_at, uid_validity, last_uid, read_to)
    return done == "UPDATE 1"


async def succeed(connection: Connection, record: InboxRecord, *, is_to_go_on: bool = False) -> None:
    """A look has ended well; `is_to_go_on`: the next is due. Nothing where the lease is another's."""
    await connection.execute(SUCCEED, record.id, record.lease_expires_at, is_to_go_on)


async def fail(
    connection: Connection,
    record: InboxRecord,
    error: str,
    *,
    stuck_key: str | None = None,
    stuck_looks: int | None = None,
) -> int | None:
    """A look has failed; how many in a row that makes, None where the lease is another's.

    `stuck_key`: at this message, which is to blame, `stuck_looks` looks in a row.
    """
    failures: int | None = await connection.fetchval(
        FAIL, record.id, record.lease_expires_at, error[:500], stuck_key, stuck_looks
    )
    return failures
