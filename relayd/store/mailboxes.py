"""Mailboxes: the sending accounts, each with its daily limit and its upstream."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.mail.address import key_of, plain_of
from relayd.store import names, needs, zones
from relayd.store.connection import Connection
from relayd.store.violations import explained


@dataclass(frozen=True, slots=True)
class MailboxRecord:
    """A living mailbox, with what it has used of its limit at this instant."""

    id: UUID
    email_address: str
    client_id: UUID
    client: str
    domain_id: UUID
    domain: str
    upstream_id: UUID
    upstream: str
    upstreams: list[str]  # all that it has, `name` in order or `name=weight`
    sends_through: str  # where its ordinary mail goes now
    display_name: str | None
    status: str
    status_reason: str | None
    daily_send_limit: int | None  # None is unlimited, 0 is never
    is_warming: bool  # its limit follows its warm-up
    time_zone: str
    limit_window: str
    is_paced: bool  # no more in an hour than the day's share
    mail_class: str  # of what neither message nor credential says
    eight_bit: str  # 8-bit bodies stay as they are (keep) or are encoded in ASCII (convert)
    is_default: bool  # sends what in its domain names no mailbox of its own
    used: int
    window_ends_at: datetime | None
    created_at: datetime
    updated_at: datetime


# All the living. Index: email_mailboxes_address.
SELECT_LIVING = """
SELECT m.id, m.email_address, m.client_id, c.name AS client, m.domain_id, d.domain, m.upstream_id, u.name AS upstream,
       COALESCE((SELECT array_agg(e.name || COALESCE('=' || x.weight, '') ORDER BY x.position)
                   FROM mailbox_upstreams x JOIN email_configurations e ON e.id = x.upstream_id
                  WHERE x.mailbox_id = m.id), ARRAY[u.name]) AS upstreams, goes.name AS sends_through,
       m.display_name, m.status, m.status_reason, m.daily_send_limit,
       m.warmup_enabled AND m.warmup_completed_at IS NULL AS is_warming, m.time_zone,
       m.limit_window, m.is_paced, m.mail_class, m.eight_bit,
       COALESCE(d.default_mailbox_id = m.id, false) AS is_default,
       COALESCE(usage.used, 0) AS used, usage.window_ends_at, m.created_at, m.updated_at
  FROM email_mailboxes m
  JOIN clients c ON c.id = m.client_id
  JOIN email_domains d ON d.id = m.domain_id
  JOIN email_configurations u ON u.id = m.upstream_id
  JOIN mailbox_lanes l ON l.mailbox_id = m.id AND l.class = 'mail' AND l.is_home
  JOIN email_configurations goes ON goes.id = l.upstream_id
  LEFT JOIN email_mailbox_usage usage ON usage.mailbox_id = m.id
 WHERE m.deleted_at IS NULL
"""

# NULL: any. Index: email_mailboxes_address.
LIST = (
    SELECT_LIVING
    + """
   AND ($1::uuid IS NULL OR m.client_id = $1) AND ($2::uuid IS NULL OR m.domain_id = $2)
   AND ($3::uuid IS NULL OR m.upstream_id = $3
        OR EXISTS (SELECT FROM mailbox_upstreams x WHERE x.mailbox_id = m.id AND x.upstream_id = $3))
 ORDER BY d.domain, lower(m.email_address)
"""
)

# $1 as it is stored, $2 its key: a database in the C locale has no lower case beyond ASCII.
# Index: email_mailboxes_address.
FIND = SELECT_LIVING + " AND lower(m.email_address) IN (lower($1), $2)"

# To change it. Whoever only needs it to stay (an enqueue, the tally) neither waits nor is waited for.
FIND_TO_CHANGE = FIND + " FOR NO KEY UPDATE OF m"

# To remove it: also waits for an enqueue that is storing mail of it.
FIND_TO_REMOVE = FIND + " FOR UPDATE OF m"

# For the message about an unknown address. Index: email_mailboxes_address.
SOME_NAMES = "SELECT email_address FROM email_mailboxes WHERE deleted_at IS NULL ORDER BY lower(email_address) LIMIT $1"

# Index: email_mailboxes_address.
ADD = """
INSERT INTO email_mailboxes (client_id, domain_id, upstream_id, email_address, display_name, daily_send_limit,
                             time_zone, limit_window, is_paced, mail_class, eight_bit)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

# What does not touch the mailbox's lanes. Index: email_mailboxes_pkey.
SAVE_FORM = "UPDATE email_mailboxes SET display_name = $2, mail_class = $3, eight_bit = $4 WHERE id = $1"

# As `relayd resume`: one that an operator lets go on is judged by what comes from tomorrow on.
# What makes its lanes look again, even if they are parked. One that is active and warms up is warming.
# Index: email_mailboxes_pkey.
SAVE_SENDING = """
UPDATE email_mailboxes
   SET status = CASE WHEN $2 = 'active' AND warmup_enabled AND warmup_completed_at IS NULL THEN 'warming' ELSE $2 END,
       status_reason = $3, daily_send_limit = $4, time_zone = $5, upstream_id = $6, limit_window = $7, is_paced = $8,
       judged_from = CASE WHEN status <> 'active' AND status <> 'warming' AND $2 = 'active'
                          THEN (relayd_now() AT TIME ZONE time_zone)::date + 1 ELSE judged_from END
 WHERE id = $1
"""

# Index: email_domains_pkey.
MAKE_DEFAULT = "UPDATE email_domains SET default_mailbox_id = $2 WHERE id = $1"

# Index: email_mailboxes_pkey.
REMOVE = "UPDATE email_mailboxes SET deleted_at = relayd_now() WHERE id = $1"


async def add(
    connection: Connection,
    *,
    client_id: UUID,
    domain_id: UUID,
    upstream_id: UUID,
    email_address: str,
    display_name: str | None = None,
    daily_send_limit: int | None = 10,
    time_zone: str = "UTC",
    limit_window: str = "calendar",
    is_paced: bool = False,
    mail_class: str = "transactional",
    eight_bit: str = "keep",
) -> MailboxRecord:
    """A new, active mailbox. Raises Refusal if the address is taken, BadValue for an unknown time zone."""
    await zones.check(connection, time_zone)
    with explained(taken=f"there is a mailbox {email_address} already"):
        await connection.execute(
            ADD,
            client_id,
            domain_id,
            upstream_id,
            email_address,
            display_name,
            daily_send_limit,
            time_zone,
            limit_window,
            is_paced,
            mail_class,
            eight_bit,
        )
    return await find(connection, email_address)


async def find(connection: Connection, email_address: str) -> MailboxRecord:
    """The living mailbox of that address, in whatever case. Raises NotFound, which says which there are."""
    return await _find(connection, FIND, email_address)


async def find_to_change(connection: Connection, email_address: str) -> MailboxRecord:
    """As find, and nobody else changes it until this transaction ends."""
    return await _find(connection, FIND_TO_CHANGE, email_address)


async def find_to_remove(connection: Connection, email_address: str) -> MailboxRecord:
    """As find_to_change, and nobody stores mail of it either."""
    return await _find(connection, FIND_TO_REMOVE, email_address)


async def living(
    connection: Connection,
    *,
    client_id: UUID | None = None,
    domain_id: UUID | None = None,
    upstream_id: UUID | None = None,
) -> list[MailboxRecord]:
    """Mailboxes by domain and address, narrowed by what is given."""
    return [MailboxRecord(**dict(row)) for row in await connection.fetch(LIST, client_id, domain_id, upstream_id)]


async def save(connection: Connection, found: MailboxRecord, wanted: MailboxRecord) -> MailboxRecord:
    """Store what differs from what find_to_change gave: all but its address, owner and domain."""
    if wanted.time_zone != found.time_zone:
        await zones.check(connection, wanted.time_zone)
    with explained(taken=f"there is a mailbox {found.email_address} already"):
        if _form(wanted) != _form(found):
            await connection.execute(SAVE_FORM, found.id, *_form(wanted))
        if _sending(wanted) != _sending(found):
            await connection.execute(SAVE_SENDING, found.id, *_sending(wanted))
    return await find(connection, found.email_address)


async def make_default(connection: Connection, mailbox: MailboxRecord, is_default: bool = True) -> MailboxRecord:
    """Let it send, or not, what in its domain names no mailbox of its own, in place of whichever did."""
    if is_default != mailbox.is_default:
        await connection.execute(MAKE_DEFAULT, mailbox.domain_id, mailbox.id if is_default else None)
    return await find(connection, mailbox.email_address)


async def remove(connection: Connection, mailbox: MailboxRecord) -> None:
    """Remove a mailbox found with find_to_remove. Raises Refusal while it has mail that is not settled."""
    mail = await needs.mail_of_mailboxes(connection, [mailbox.id])
    list_mail = f"relayd queue list --mailbox {mailbox.email_address}"
    needs.refuse_if_needed(f"mailbox {mailbox.email_address}", [], mail, list_mail=list_mail)
    await make_default(connection, mailbox, False)
    await connection.execute(REMOVE, mailbox.id)


async def _find(connection: Connection, statement: str, email_address: str) -> MailboxRecord:
    row = await connection.fetchrow(statement, plain_of(email_address), key_of(email_address))
    if row is None:
        some = [row["email_address"] for row in await connection.fetch(SOME_NAMES, names.ASKED)]
        raise names.unknown("mailbox", email_address, some, add=f"relayd mailbox add {email_address}")
    return MailboxRecord(**dict(row))


def _form(mailbox: MailboxRecord) -> tuple[str | None, str, str]:
    # $2 to $4 of SAVE_FORM.
    return mailbox.display_name, mailbox.mail_class, mailbox.eight_bit


def _sending(mailbox: MailboxRecord) -> tuple[str, str | None, int | None, str, UUID, str, bool]:
    # $2 to $8 of SAVE_SENDING.
    return (
        mailbox.status,
        mailbox.status_reason,
        mailbox.daily_send_limit,
        mailbox.time_zone,
        mailbox.upstream_id,
        mailbox.limit_window,
        mailbox.is_paced,
    )
