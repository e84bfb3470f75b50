"""Load what is to be sent and make the start of its attempt durable."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.store.claim import ClaimedEntry

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """What an attempt sends: the signed bytes and the envelope's sender side."""

    queue_id: UUID
    reverse_path: Address | None
    content: bytes
    smtputf8: bool
    body_8bitmime: bool


# Only while the claim is ours, unstarted, nothing of it paused, and its budget still good: the window has not turned
# and the limit was not lowered under it. $3 lease seconds, $4 provider and $5 claim by entry. Index: email_queue_pkey.
START = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
started AS (
  UPDATE email_queue q
     SET attempt_started_at = clock.now, first_attempt_at = COALESCE(q.first_attempt_at, clock.now),
         lease_expires_at = clock.now + make_interval(secs => $3)
    FROM unnest($1::uuid[], $2::int[], $4::text[], $5::text[]) AS t (id, fence, provider, claimed_by), clock,
         email_mailboxes m, mailbox_lanes l, email_configurations c, relayd_state s
   WHERE q.id = t.id AND q.fence = t.fence AND q.status = 'sending' AND q.claimed_by = t.claimed_by
     AND q.attempt_started_at IS NULL AND q.lease_expires_at > clock.now
     AND m.id = q.mailbox_id AND l.id = q.lane_id AND NOT l.held
     AND c.id = q.upstream_id AND c.is_active AND c.paused_at IS NULL AND s.paused_at IS NULL
     AND (q.reserved_until IS NULL
          OR (q.reserved_until = m.window_ends_at AND m.window_ends_at > clock.now
              AND (m.daily_send_limit IS NULL OR m.current_daily_sends <= m.daily_send_limit)))
  RETURNING q.id, q.client_id, q.message_id, q.fence, q.upstream_id, t.provider, t.claimed_by),
logged AS (
  INSERT INTO email_delivery_logs
         (client_id, message_id, entry_id, event, attempt, provider, upstream_id, created_at, updated_at)
  SELECT client_id, message_id, id, 'sending', fence, provider, upstream_id, now, now FROM started, clock)
SELECT id, claimed_by FROM started
"""

# Bodies are loaded up to a few MB at a time. Indexes: messages_pkey, message_bodies_pkey.
SIZES = "SELECT id, size_octets FROM messages WHERE id = ANY($1::uuid[])"
LOAD = """
SELECT m.id, m.reverse_path, m.smtputf8, m.body_8bitmime, b.content
  FROM messages m JOIN message_bodies b ON b.message_id = m.id WHERE m.id = ANY($1::uuid[])
"""


async def start(
    connection: Connection, claims: Sequence[tuple[ClaimedEntry, str]], *, lease_seconds: float
) -> set[ClaimedEntry]:
    """Make the start of these attempts durable (claim and provider); returns the claims that may be sent.

    Outside a transaction it has committed on return. What is not returned must not be sent: its claim was lost, or its
    budget is gone; settle it as postponed. A claim that was lost with Postgres may stand here beside the one that was
    made in its place: of the same entry one is returned and the other is not.
    """
    rows = await connection.fetch(
        START,
        [entry.entry_id for entry, _ in claims],
        [entry.fence for entry, _ in claims],
        lease_seconds,
        [provider for _, provider in claims],
        [entry.claimed_by for entry, _ in claims],
    )
    started = {(row["id"], row["claimed_by"]) for row in rows}
    return {entry for entry, _ in claims if (entry.entry_id, entry.claimed_by) in started}


async def load(connection: Connection, queue_ids: Sequence[UUID], *, batch_octets: int) -> dict[UUID, StoredMessage]:
    """The messages of these queue ids, read in batches of about `batch_octets`."""
    sizes = await connection.fetch(SIZES, queue_ids)
    messages: dict[UUID, StoredMessage] = {}
    batch: list[UUID] = []
    octets = 0
    for position, row in enumerate(sizes):
        batch.append(row["id"])
        octets += row["size_octets"]
        if octets >= batch_octets or position == len(sizes) - 1:
            for found in await connection.fetch(LOAD, batch):
                messages[found["id"]] = _message(found)
            batch, octets = [], 0
    return messages


def _message(row: asyncpg.Record) -> StoredMessage:
    return StoredMessage(
        queue_id=row["id"],
        reverse_path=Address.parse(row["reverse_path"]) if row["reverse_path"] else None,
        content=row["content"],
        smtputf8=row["smtputf8"],
        body_8bitmime=row["body_8bitmime"],
    )
