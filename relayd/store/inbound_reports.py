"""What came in of bounces, complaints and answers: kept as it came until it has been read, and for a while after."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class NewReport:
    """One that comes in. `source_key` names it in the inbox that it was read from; of two with one key one is kept."""

    client_id: UUID
    source: str
    content: bytes = field(repr=False)
    domain_id: UUID | None = None
    mailbox_id: UUID | None = None
    source_key: str | None = None
    forward_path: str | None = None
    reverse_path: str | None = None
    peer: str | None = None
    subject_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class WaitingReport:
    """One that is to be read."""

    id: UUID
    client_id: UUID
    client: str
    mailbox_id: UUID | None
    source: str
    subject_id: UUID | None
    age_seconds: float
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """One as an operator sees it."""

    id: UUID
    client: str
    source: str
    mailbox: str | None
    forward_path: str | None
    reverse_path: str | None
    peer: str | None
    size_octets: int
    status: str
    kind: str | None
    detail: str | None
    error: str | None
    queue_id: UUID | None
    entry_id: UUID | None
    received_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What was made of one. `status` new: it is looked at again after `again_seconds`."""

    status: str
    kind: str
    detail: str
    message_id: UUID | None = None
    entry_id: UUID | None = None
    again_seconds: float = 0.0


# Unless so many wait already ($11). Indexes: inbound_reports_new, inbound_reports_source_key.
ADD = """
INSERT INTO inbound_reports
       (client_id, source, content, domain_id, mailbox_id, source_key, forward_path, reverse_path, peer, subject_id)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
 WHERE (SELECT count(*) FROM (SELECT FROM inbound_reports WHERE status = 'new' LIMIT $11::int) w) < $11::int
ON CONFLICT (mailbox_id, source_key) WHERE source_key IS NOT NULL DO UPDATE SET peer = inbound_reports.peer
RETURNING id
"""

# Index: inbound_reports_source_key.
HAS = "SELECT EXISTS (SELECT FROM inbound_reports WHERE mailbox_id = $1 AND source_key = $2)"

# The oldest whose time has come. Read outside of a transaction. Index: inbound_reports_new.
WAITING = """
SELECT r.id, r.client_id, c.name AS client, r.mailbox_id, r.source, r.subject_id, r.content,
       EXTRACT(epoch FROM relayd_now() - r.received_at)::float8 AS age_seconds
  FROM inbound_reports r JOIN clients c ON c.id = r.client_id
 WHERE r.status = 'new' AND r.next_look_at <= relayd_now()
 ORDER BY r.next_look_at, r.id LIMIT $1
"""

# Whoever has it settles it, once. Index: inbound_reports_pkey.
LOCK = """
SELECT EXTRACT(epoch FROM relayd_now() - received_at)::float8 FROM inbound_reports
 WHERE id = $1 AND status = 'new' FOR UPDATE SKIP LOCKED
"""

# Index: inbound_reports_pkey.
SETTLE = """
UPDATE inbound_reports
   SET status = $2, kind = $3, detail = $4, message_id = $5, entry_id = $6, error = NULL,
       settled_at = CASE WHEN $2 = 'new' THEN NULL ELSE relayd_now() END,
       next_look_at = relayd_now() + make_interval(secs => $7)
 WHERE id = $1
"""

# What cannot be read now is put off. Index: inbound_reports_pkey.
POSTPONE = """
UPDATE inbound_reports SET error = $2, next_look_at = relayd_now() + make_interval(secs => $3)
 WHERE id = $1 AND status = 'new'
"""

# What cannot be read at all is done with. Index: inbound_reports_pkey.
SET_ASIDE = """
UPDATE inbound_reports
   SET status = 'ignored', kind = 'unrecognised', error = $2, settled_at = relayd_now()
 WHERE id = $1 AND status = 'new'
"""

# Newest first, narrowed by what is given; $6 how many. Indexes: inbound_reports_client, inbound_reports_pkey.
LIST = """
SELECT r.id, c.name AS client, r.source, m.email_address AS mailbox, r.forward_path, r.reverse_path, r.peer,
       length(r.content) AS size_octets, r.status, r.kind, r.detail, r.error, r.message_id AS queue_id, r.entry_id,
       r.received_at, r.settled_at
  FROM inbound_reports r JOIN clients c ON c.id = r.client_id LEFT JOIN email_mailboxes m ON m.id = r.mailbox_id
 WHERE ($1::uuid IS NULL OR r.client_id = $1) AND ($2::text IS NULL OR r.status = $2)
   AND ($3::text IS NULL OR r.kind = $3) AND ($4::uuid IS NULL OR r.message_id = $4 OR r.entry_id = $4)
   AND ($5::uuid IS NULL OR r.id = $5)
 ORDER BY r.id DESC LIMIT $6
"""

# Index: inbound_reports_pkey.
CONTENT = "SELECT content FROM inbound_reports WHERE id = $1"

# Index: inbound_reports_pkey.
RETRY = """
UPDATE inbound_reports
   SET status = 'new', settled_at = NULL, error = NULL, next_look_at = relayd_now()
 WHERE id = $1
"""

# What was read longer than $1 ago. Index: inbound_reports_pkey; a chore's, once an hour.
PRUNE = """
DELETE FROM inbound_reports WHERE id IN (
  SELECT id FROM inbound_reports WHERE status <> 'new' AND settled_at < relayd_now() - $1::interval
   ORDER BY id LIMIT $2)
"""


async def add(connection: Connection, new: NewReport, *, max_waiting: int) -> UUID | None:
    """Store it, or find it stored; None where too many wait. Outside a transaction it has committed on return."""
    found: UUID | None = await connection.fetchval(
        ADD,
        new.client_id,
        new.source,
        new.content,
        new.domain_id,
        new.mailbox_id,
        new.source_key,
        new.forward_path,
        new.reverse_path,
        new.peer,
        new.subject_id,
        max_waiting,
    )
    return found


async def has(connection: Connection, mailbox_id: UUID, source_key: str) -> bool:
    """Whether this message of that mailbox's inbox is stored."""
    found: bool = await connection.fetchval(HAS, mailbox_id, source_key)
    return found


async def waiting(connection: Connection, *, most: int) -> list[WaitingReport]:
    """The next to be read."""
    return [WaitingReport(**dict(row)) for row in await connection.fetch(WAITING, most)]


async def lock(connection: Connection, report_id: UUID) -> float | None:
    """Its age in seconds if it is this transaction's to settle, else None."""
    age: float | None = await connection.fetchval(LOCK, report_id)
    return age


async def settle(connection: Connection, report_id: UUID, reading: Reading) -> None:
    """Keep what was made of it."""
    await connection.execute(
        SETTLE,
        report_id,
        reading.status,
        reading.kind,
        reading.detail[:1000],
        reading.message_id,
        reading.entry_id,
        reading.again_seconds,
    )


async def postpone(connection: Connection, report_id: UUID, error: str, *, seconds: float) -> None:
    """Say why it could not be read, and look again later."""
    await connection.execute(POSTPONE, report_id, error[:1000], seconds)


async def set_aside(connection: Connection, report_id: UUID, error: str) -> bool:
    """Say why it cannot be read, and look at it no more; False if it is done with already."""
    return (await connection.execute(SET_ASIDE, report_id, error[:1000])) == "UPDATE 1"


async def found(
    connection: Connection,
    *,
    client_id: UUID | None = None,
    status: str | None = None,
    kind: str | None = None,
    about: UUID | None = None,
    report_id: UUID | None = None,
    most: int = 100,
) -> Sequence[ReportRecord]:
    """Newest first, narrowed by what is given. `about`: a message or an entry."""
    rows: list[Any] = await connection.fetch(LIST, client_id, status, kind, about, report_id, most)
    return [ReportRecord(**dict(row)) for row in rows]


async def content_of(connection: Connection, report_id: UUID) -> bytes | None:
    """The bytes as they came."""
    octets: bytes | None = await connection.fetchval(CONTENT, report_id)
    return octets


async def retry(connection: Connection, report_id: UUID) -> None:
    """Have it read again, now."""
    await connection.execute(RETRY, report_id)


async def prune(connection: Connection, age: timedelta, *, limit: int) -> int:
    """Forget up to `limit` that were read longer ago; returns how many."""
    return int((await connection.execute(PRUNE, age, limit)).split()[-1])
