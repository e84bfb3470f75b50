"""Who is not to be written to, by client. An address is known by its key: plain, in lower case."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from uuid import UUID

from relayd.mail.address import Address
from relayd.rules.suppression import SuppressionReason
from relayd.store.connection import Connection

MAX_DETAIL_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class NewSuppression:
    """An address to be put on a client's list. `expires_at` None: it stays until somebody removes it."""

    client_id: UUID
    address: Address
    reason: SuppressionReason
    detail: str | None = None
    entry_id: UUID | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """A line of a client's list."""

    address: str
    reason: str
    detail: str | None
    entry_id: UUID | None
    expires_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class HardBounce:
    """An entry that was refused for good since its recipient does not exist."""

    entry_id: UUID
    recipient: Address
    detail: str


# What stands longer wins: a complaint, which never ends, is not cut down to a bounce's months. Locked in the order of
# client and address, so that two that write the same do not wait for each other in a circle. `written_in` of a row that
# stands is not touched: workers have it already. Index: suppressions_client_id_address_key.
ADD = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
given AS (
  SELECT DISTINCT ON (client_id, address) *
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[], $7::bigint[])
      AS t (client_id, address, reason, detail, entry_id, expires_at, fingerprint)
   ORDER BY client_id, address, expires_at DESC NULLS FIRST),
stored AS (
  INSERT INTO suppressions AS s (client_id, address, reason, detail, entry_id, expires_at, fingerprint, created_at,
                                 updated_at)
  SELECT client_id, address, reason, detail, entry_id, expires_at, fingerprint, now, now FROM given, clock
   ORDER BY client_id, address
  ON CONFLICT (client_id, address) DO UPDATE
     SET reason = EXCLUDED.reason, detail = EXCLUDED.detail, entry_id = EXCLUDED.entry_id,
         expires_at = EXCLUDED.expires_at,
         created_at = CASE WHEN s.expires_at <= EXCLUDED.created_at THEN EXCLUDED.created_at ELSE s.created_at END
   WHERE COALESCE(s.expires_at, 'infinity') < COALESCE(EXCLUDED.expires_at, 'infinity')
  RETURNING s.created_at)
SELECT count(*) FILTER (WHERE stored.created_at = clock.now) FROM clock LEFT JOIN stored ON true
"""

# Whose these entries are, and until when the hard bounces of that client count, if at all; a notification's own failure
# puts nobody on a list. $2: days unless the client says otherwise.
# Indexes: email_queue_pkey, messages_pkey, clients_pkey.
OWNERS = """
SELECT q.id, q.client_id, relayd_now() + COALESCE(c.suppression_days, $2::float8) * interval '1 day' AS expires_at
  FROM email_queue q JOIN messages m ON m.id = q.message_id AND m.origin <> 'dsn' JOIN clients c ON c.id = q.client_id
 WHERE q.id = ANY($1::uuid[]) AND COALESCE(c.suppression_days, $2::float8) > 0
"""

# Index: suppressions_client_id_address_key.
REMOVE = "DELETE FROM suppressions WHERE client_id = $1 AND address = ANY($2::text[]) RETURNING address"

# Those in force. $2 after this address, $3 reason, $4 @domain; NULL: any. Index: suppressions_client_id_address_key.
PAGE = """
SELECT address, reason, detail, entry_id, expires_at, created_at FROM suppressions
 WHERE client_id = $1 AND address > $2 AND ($3::text IS NULL OR reason = $3)
   AND ($4::text IS NULL OR right(address, length($4)) = $4)
   AND (expires_at IS NULL OR expires_at > relayd_now())
 ORDER BY address LIMIT $5
"""

# Index: suppressions_client_id_address_key.
FIND = """
SELECT address, reason, detail, entry_id, expires_at, created_at FROM suppressions
 WHERE client_id = $1 AND address = $2 AND (expires_at IS NULL OR expires_at > relayd_now())
"""

# The lines in force of these pairs. Index: suppressions_client_id_address_key.
AMONG = """
SELECT s.client_id, s.address, s.reason, s.detail, s.entry_id, s.expires_at, s.created_at
  FROM unnest($1::uuid[], $2::text[]) AS t (client_id, address)
  JOIN suppressions s ON s.client_id = t.client_id AND s.address = t.address
 WHERE s.expires_at IS NULL OR s.expires_at > relayd_now()
"""

# Index: email_queue_pkey.
RECIPIENTS = """
SELECT id, client_id, recipient_address FROM email_queue WHERE id = ANY($1::uuid[])
"""

# Indexes: email_queue_pkey, clients_pkey.
CLIENTS = "SELECT q.id, c.name FROM email_queue q JOIN clients c ON c.id = q.client_id WHERE q.id = ANY($1::uuid[])"

# Index: suppressions_expires.
PRUNE = """
DELETE FROM suppressions WHERE id IN (
  SELECT id FROM suppressions WHERE expires_at <= relayd_now() ORDER BY expires_at LIMIT $1)
"""


def fingerprint(client_id: UUID, key: str) -> int:
    """Eight octets that stand for an address of a client; two may share them, so a match is only a reason to look."""
    return int.from_bytes(blake2b(client_id.bytes + key.encode(), digest_size=8).digest(), signed=True)


async def add(connection: Connection, suppressions: Sequence[NewSuppression]) -> int:
    """Put them on their clients' lists, in this transaction; returns how many were not there. An address that is there
    already stays, for the longer of the two times. Late in the transaction: others that add the same wait for it.
    """
    if not suppressions:
        return 0
    keys = [each.address.key for each in suppressions]
    added: int = await connection.fetchval(
        ADD,
        [each.client_id for each in suppressions],
        keys,
        [each.reason for each in suppressions],
        [each.detail[:MAX_DETAIL_CHARACTERS] if each.detail else None for each in suppressions],
        [each.entry_id for each in suppressions],
        [each.expires_at for each in suppressions],
        [fingerprint(each.client_id, key) for each, key in zip(suppressions, keys, strict=True)],
    )
    return added


async def add_hard_bounces(connection: Connection, bounces: Sequence[HardBounce], *, default_days: float) -> int:
    """Put the recipients of these entries on their clients' lists, for as long as each client has it."""
    if not bounces:
        return 0
    owners = {
        row["id"]: row for row in await connection.fetch(OWNERS, [each.entry_id for each in bounces], default_days)
    }
    return await add(
        connection,
        [
            NewSuppression(
                owner["client_id"],
                each.recipient,
                SuppressionReason.HARD_BOUNCE,
                each.detail,
                each.entry_id,
                owner["expires_at"],
            )
            for each in bounces
            if (owner := owners.get(each.entry_id)) is not None
        ],
    )


async def remove(connection: Connection, client_id: UUID, addresses: Sequence[Address]) -> list[str]:
    """Take them off the list; returns the keys of those that were on it."""
    rows = await connection.fetch(REMOVE, client_id, [address.key for address in addresses])
    return [row["address"] for row in rows]


async def page(
    connection: Connection, client_id: UUID, *, after: str, reason: str | None, domain: str | None, limit: int
) -> list[Suppression]:
    """Up to `limit` lines in force after that address, by address."""
    rows = await connection.fetch(PAGE, client_id, after, reason, f"@{domain}" if domain else None, limit)
    return [Suppression(**dict(row)) for row in rows]


async def find(connection: Connection, client_id: UUID, address: Address) -> Suppression | None:
    """The line of that address, if it is in force."""
    row = await connection.fetchrow(FIND, client_id, address.key)
    return Suppression(**dict(row)) if row else None


async def of_entries(connection: Connection, entry_ids: Sequence[UUID]) -> dict[UUID, Suppression]:
    """Of these entries those whose recipient is on its client's list now: its line, by the entry's id."""
    rows = await connection.fetch(RECIPIENTS, list(entry_ids))
    pairs = {row["id"]: (row["client_id"], Address.stored(row["recipient_address"]).key) for row in rows}
    wanted = list(dict.fromkeys(pairs.values()))
    lines = await connection.fetch(AMONG, [client_id for client_id, _ in wanted], [key for _, key in wanted])
    found = {(line["client_id"], line["address"]): line for line in lines}
    return {
        entry_id: Suppression(**{name: line[name] for name in Suppression.__dataclass_fields__})
        for entry_id, pair in pairs.items()
        if (line := found.get(pair)) is not None
    }


async def clients_of(connection: Connection, entry_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The name of each entry's client."""
    return {row["id"]: row["name"] for row in await connection.fetch(CLIENTS, list(entry_ids))}


async def prune(connection: Connection, *, limit: int) -> int:
    """Remove up to `limit` lines that have expired; returns how many."""
    return int((await connection.execute(PRUNE, limit)).split()[-1])
