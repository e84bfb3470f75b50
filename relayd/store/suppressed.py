"""How a worker learns who is suppressed: all fingerprints once, then what was written since; and the line itself.

A row is seen by what its transaction was numbered, not by when it was written: a reader takes the number below which
all transactions had ended, and asks next time for whatever has that number or a higher one.
"""

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.mail.address import Address

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

SLICE = 100_000
LOWEST = -(1 << 63)


@dataclass(frozen=True, slots=True)
class SuppressedRecipient:
    """Why a recipient gets nothing from a client, and what is done about it."""

    address: Address
    reason: str
    detail: str | None
    since: datetime
    client: str
    is_dropped: bool  # taken and dropped; else refused
    wants_event: bool


MARK = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"

# One slice in order, packed: a million come without making a million objects. Index: suppressions_fingerprint alone.
PACKED_SLICE = """
SELECT string_agg(int8send(fingerprint), ''::bytea ORDER BY fingerprint)
  FROM (SELECT fingerprint FROM suppressions WHERE fingerprint > $1 ORDER BY fingerprint LIMIT $2) x
"""

# What has been written since the mark $1 was taken. A database that was restored from a dump holds numbers of another
# server's: they were read with all the others. Index: suppressions_written_in.
PACKED_SINCE = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS mark,
       (SELECT string_agg(int8send(fingerprint), ''::bytea) FROM suppressions
         WHERE written_in >= $1::text::xid8 AND written_in < pg_snapshot_xmax(pg_current_snapshot())) AS packed
"""

# Indexes: suppressions_client_id_address_key, clients_pkey.
CONFIRM = """
SELECT s.address, s.reason, s.detail, s.created_at, c.name, c.suppressed = 'drop' AS is_dropped,
       c.bounces <> 'mail' AS wants_event
  FROM suppressions s JOIN clients c ON c.id = s.client_id
 WHERE s.client_id = $1 AND s.address = ANY($2::text[]) AND (s.expires_at IS NULL OR s.expires_at > relayd_now())
"""

# $1 entries that were stored a moment ago in this transaction, $2 why. Index: email_queue_pkey.
DROP = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
dropped AS (
  UPDATE email_queue q
     SET status = 'failed', reason = 'suppressed', pending_reason = NULL, failed_at = clock.now, updated_at = clock.now
    FROM unnest($1::uuid[], $2::text[]) AS t (id, why), clock
   WHERE q.id = t.id AND q.status IN ('queued', 'pending')
  RETURNING q.client_id, q.message_id, q.id, t.why)
INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, created_at, updated_at)
SELECT client_id, message_id, id, 'suppressed', why, now, now FROM dropped, clock
"""


async def mark(connection: Connection) -> str:
    """A mark to read on from. Take it before reading all."""
    found: str = await connection.fetchval(MARK)
    return found


async def slice_after(connection: Connection, last: int) -> "array[int]":
    """The next fingerprints in rising order; fewer than SLICE when these are the last. Equal ones may come once."""
    return _unpacked(await connection.fetchval(PACKED_SLICE, last, SLICE))


async def since(connection: Connection, marked: str) -> tuple[str, "array[int]"]:
    """The next mark, and the fingerprints written since this one."""
    row = await connection.fetchrow(PACKED_SINCE, marked)
    assert row is not None
    return row["mark"], _unpacked(row["packed"])


async def confirm(connection: Connection, client_id: UUID, addresses: Sequence[Address]) -> list[SuppressedRecipient]:
    """Those of these addresses that really are on the client's list now."""
    by_key = {address.key: address for address in addresses}
    return [
        SuppressedRecipient(
            by_key[row["address"]],
            row["reason"],
            row["detail"],
            row["created_at"],
            row["name"],
            row["is_dropped"],
            row["wants_event"],
        )
        for row in await connection.fetch(CONFIRM, client_id, list(by_key))
    ]


async def drop(connection: Connection, entries: Sequence[tuple[UUID, str]]) -> None:
    """End entries that this transaction has stored, each with why: nothing is sent and nobody is told."""
    await connection.execute(DROP, [entry_id for entry_id, _ in entries], [why[:1000] for _, why in entries])


def _unpacked(packed: bytes | None) -> "array[int]":
    found = array("q")
    if packed:
        found.frombytes(packed)
        if sys.byteorder == "little":
            found.byteswap()  # Postgres sends the high octet first
    return found
