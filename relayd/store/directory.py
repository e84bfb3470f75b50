"""Who may send as whom: the look-ups that every submission makes."""

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.rules.mail_class import MailClass

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class SendingClient:
    """A living client as a session sees it. A suspended one may not send."""

    id: UUID
    name: str
    may_send_bounces: bool
    is_suspended: bool = False
    joins_recipients: bool = False  # several To or Cc fields become one; else they are refused
    removes_foreign_senders: bool = False  # Sender and Resent-* of others go; else the message is refused


@dataclass(frozen=True, slots=True)
class Login:
    """A credential's verifier (SCRAM-SHA-256) and what it is bound to."""

    credential_id: UUID
    login: str
    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes
    senders: tuple[str, ...] | None
    client: SendingClient
    refuse_after_seconds: int | None  # it would rather be refused than wait longer; None: it waits
    mail_class: MailClass | None  # None: as the mailbox
    pool_id: UUID | None  # whose members send what it submits
    is_active: bool
    refuses_long_lines: bool = False  # rather than have them made shorter


@dataclass(frozen=True, slots=True)
class SendingDomain:
    """A living domain and whose it is."""

    id: UUID
    client_id: UUID
    domain: str
    may_send: bool
    default_pool_id: UUID | None = None  # sends what names no mailbox of its own


@dataclass(frozen=True, slots=True)
class SendingMailbox:
    """The mailbox that sends for a header From, with its lanes."""

    id: UUID
    client_id: UUID
    domain: SendingDomain
    address: Address
    mail_lane_id: int
    bulk_lane_id: int
    dsn_lane_id: int
    is_limited: bool  # some budget limits its mail
    mail_class: MailClass
    refuses: str | None  # set when this mailbox takes no mail now; fit for a log
    converts_eight_bit: bool = False  # 8-bit bodies are encoded in ASCII
    stands_in: bool = False  # for an address of its domain that is no mailbox

    def lane_id(self, mail_class: MailClass) -> int:
        """The lane that its mail of this class waits in."""
        return self.bulk_lane_id if mail_class is MailClass.BULK else self.mail_lane_id


# Index: smtp_credentials_login.
FIND_LOGIN = """
SELECT k.id, k.login, k.salt, k.iterations, k.stored_key, k.server_key, k.senders, k.mail_class,
       k.refuse_after_seconds, k.pool_id, k.is_active,
       k.long_lines = 'refuse' AS refuses_long_lines, c.id AS client_id, c.name, c.may_send_bounces, c.status,
       c.repeated_recipients, c.foreign_senders
  FROM smtp_credentials k JOIN clients c ON c.id = k.client_id
 WHERE k.login = $1 AND k.deleted_at IS NULL AND c.deleted_at IS NULL
"""

# Index: clients_name.
FIND_CLIENT = """
SELECT id AS client_id, name, may_send_bounces, status, repeated_recipients, foreign_senders
  FROM clients WHERE name = $1 AND deleted_at IS NULL
"""

# Index: email_domains_domain.
FIND_DOMAIN = """
SELECT d.id, d.client_id, d.domain, d.status IN ('pending', 'active') AS may_send, d.default_pool_id
  FROM email_domains d WHERE d.domain = $1 AND d.deleted_at IS NULL
"""

# The mailbox of that address, else the domain's default one. Indexes: email_mailboxes_address, email_domains_domain.
FIND_MAILBOX = """
SELECT m.id, m.client_id, m.email_address, m.status, m.mail_class,
       m.eight_bit = 'convert' AS converts_eight_bit, d.id AS domain_id, d.domain,
       d.client_id AS domain_client_id, d.status IN ('pending', 'active') AS domain_may_send, d.default_pool_id,
       c.status = 'active' AS client_may_send, mail.id AS mail_lane_id, bulk.id AS bulk_lane_id, dsn.id AS dsn_lane_id,
       EXISTS (SELECT FROM budgets b WHERE b.id = ANY(mail.budget_ids) AND b.unit_limit IS NOT NULL) AS is_limited,
       lower(m.email_address) <> $1 AS stands_in
  FROM email_domains d
  JOIN email_mailboxes m ON m.deleted_at IS NULL
   AND m.id = COALESCE((SELECT x.id FROM email_mailboxes x WHERE lower(x.email_address) = $1 AND x.deleted_at IS NULL),
                       d.default_mailbox_id)
  JOIN clients c ON c.id = m.client_id
  JOIN mailbox_lanes mail ON mail.mailbox_id = m.id AND mail.class = 'mail' AND mail.is_home
  JOIN mailbox_lanes bulk ON bulk.mailbox_id = m.id AND bulk.class = 'bulk' AND bulk.is_home
  JOIN mailbox_lanes dsn ON dsn.mailbox_id = m.id AND dsn.class = 'dsn' AND dsn.is_home
 WHERE d.domain = $2 AND d.deleted_at IS NULL
"""

# Index: email_mailboxes_pkey.
FIND_ADDRESS = "SELECT email_address FROM email_mailboxes WHERE id = $1"

# What a refused sender may be told: a client's mailboxes, and its domains that take any address.
# Indexes: email_mailboxes_client, email_domains_client.
FIND_SENDERS = """
SELECT email_address AS sender FROM email_mailboxes WHERE client_id = $1 AND deleted_at IS NULL
UNION ALL
SELECT '*@' || domain FROM email_domains
 WHERE client_id = $1 AND deleted_at IS NULL AND default_mailbox_id IS NOT NULL
 ORDER BY 1 LIMIT $2
"""

# Active keys that sign for a domain. Index: dkim_keys_domain_id_selector_key.
FIND_KEYS = """
SELECT id, selector, algorithm, private_key_sealed FROM dkim_keys WHERE domain_id = $1 AND status = 'active'
 ORDER BY algorithm DESC, id
"""


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A domain's DKIM key as stored; `seal_row` is what it was sealed for."""

    id: UUID
    selector: str
    algorithm: str
    private_key_sealed: bytes

    @property
    def seal_row(self) -> str:
        """The row's identity, the seal's associated data."""
        return dkim_key_row(self.id)


def dkim_key_row(key_id: UUID) -> str:
    """The identity under which a DKIM key is sealed."""
    return f"dkim_keys/{key_id}/private_key"


async def find_login(connection: Connection, login: str) -> Login | None:
    """The living credential of that login, whether or not it may send now."""
    row = await connection.fetchrow(FIND_LOGIN, login)
    if row is None:
        return None
    return Login(
        credential_id=row["id"],
        login=row["login"],
        salt=row["salt"],
        iterations=row["iterations"],
        stored_key=row["stored_key"],
        server_key=row["server_key"],
        senders=tuple(row["senders"]) if row["senders"] is not None else None,
        client=_client(row),
        refuse_after_seconds=row["refuse_after_seconds"],
        mail_class=MailClass(row["mail_class"]) if row["mail_class"] else None,
        pool_id=row["pool_id"],
        is_active=row["is_active"],
        refuses_long_lines=row["refuses_long_lines"],
    )


async def find_client(connection: Connection, name: str) -> SendingClient | None:
    """The living client of that name, whether or not it may send now."""
    row = await connection.fetchrow(FIND_CLIENT, name)
    return _client(row) if row else None


async def find_domain(connection: Connection, domain: str) -> SendingDomain | None:
    """The living domain of that name, whoever's it is."""
    row = await connection.fetchrow(FIND_DOMAIN, domain)
    return SendingDomain(**dict(row)) if row else None


async def find_mailbox(connection: Connection, header_from: Address) -> SendingMailbox | None:
    """The mailbox that sends for `header_from`: of that address, else its domain's default one."""
    row = await connection.fetchrow(FIND_MAILBOX, header_from.key, header_from.ascii_domain)
    if row is None:
        return None
    refuses = None if row["status"] in ("warming", "active", "paused") else f"mailbox is {row['status']}"
    if not row["domain_may_send"]:
        refuses = "domain is suspended"
    if not row["client_may_send"]:
        refuses = "client is suspended"
    return SendingMailbox(
        id=row["id"],
        client_id=row["client_id"],
        domain=SendingDomain(
            row["domain_id"], row["domain_client_id"], row["domain"], row["domain_may_send"], row["default_pool_id"]
        ),
        address=Address.stored(row["email_address"]),
        mail_lane_id=row["mail_lane_id"],
        bulk_lane_id=row["bulk_lane_id"],
        dsn_lane_id=row["dsn_lane_id"],
        is_limited=row["is_limited"],
        mail_class=MailClass(row["mail_class"]),
        refuses=refuses,
        converts_eight_bit=row["converts_eight_bit"],
        stands_in=row["stands_in"],
    )


async def find_address(connection: Connection, mailbox_id: UUID) -> Address | None:
    """A mailbox's address, even if it takes no mail any more."""
    address = await connection.fetchval(FIND_ADDRESS, mailbox_id)
    return Address.stored(address) if address else None


async def senders_of(connection: Connection, client_id: UUID, limit: int) -> list[str]:
    """Some of the addresses that a client may send as, `*@domain` for a domain with a default mailbox."""
    return [row["sender"] for row in await connection.fetch(FIND_SENDERS, client_id, limit)]


async def find_keys(connection: Connection, domain_id: UUID) -> list[SealedKey]:
    """The active DKIM keys of a domain, RSA first."""
    rows = await connection.fetch(FIND_KEYS, domain_id)
    return [SealedKey(row["id"], row["selector"], row["algorithm"], row["private_key_sealed"]) for row in rows]


def _client(row: asyncpg.Record) -> SendingClient:
    return SendingClient(
        row["client_id"],
        row["name"],
        row["may_send_bounces"],
        is_suspended=row["status"] == "suspended",
        joins_recipients=row["repeated_recipients"] == "join",
        removes_foreign_senders=row["foreign_senders"] == "remove",
    )
