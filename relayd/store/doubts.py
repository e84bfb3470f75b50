"""Entries in doubt: which of them to look into, and what becomes of one that is decided.

A decision is made outside a transaction, by a look at an upstream or by an operator: it holds for the doubt that it was
made about, and for no later one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.rules.doubt import Way
from relayd.rules.states import Status

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class Doubt:
    """One entry in doubt. `is_alone`: no other message or attempt under its Message-ID could be taken for it.

    `attempted_at`: when the attempt began, or else when the doubt arose.
    """

    entry_id: UUID
    fence: int
    queue_id: UUID
    client_id: UUID
    mailbox_id: UUID
    mailbox: Address
    recipient: Address
    message_id: str
    upstream_id: UUID
    upstream: str
    provider: str
    reference: str | None
    attempted_at: datetime
    looks: int
    retry_count: int
    max_retries: int
    first_attempt_at: datetime | None
    on_uncertain: str
    look_by: Way | None = None  # None: this attempt has left nothing to look for
    is_alone: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a doubt. `status` PENDING: it stays one, and is looked into at `look_at` (None: by nobody).

    `text` is for the log, `reason` for the entry; both without secrets.
    """

    doubt: Doubt
    status: Status
    text: str
    reason: str
    looks: int = 0
    look_at: datetime | None = None
    provider_message_id: str | None = None


_COLUMNS = """
SELECT q.id AS entry_id, q.fence, q.message_id AS queue_id, q.client_id, q.mailbox_id, x.email_address AS mailbox,
       q.recipient_address AS recipient, m.message_id_header AS message_id, q.upstream_id, c.name AS upstream,
       c.provider_type AS provider, q.provider_reference AS reference,
       COALESCE(q.attempt_started_at, q.updated_at) AS attempted_at, q.looks, q.retry_count, q.max_retries,
       q.first_attempt_at, c.on_uncertain, q.look_by"""

# The oldest of each upstream that are due for a look. What was attempted under the same Message-ID, but for the same
# attempt's other recipients, might be what is found. Indexes: email_queue_looks, the tables' primary keys,
# messages_message_id_header, email_queue_message.
DUE = f"""{_COLUMNS},
       NOT EXISTS (
         SELECT FROM messages m2 JOIN email_queue q2 ON q2.message_id = m2.id
          WHERE m2.message_id_header = m.message_id_header AND q2.id <> q.id AND q2.first_attempt_at IS NOT NULL
            AND q2.provider_reference IS DISTINCT FROM q.provider_reference
       ) AS is_alone
  FROM email_configurations c
  CROSS JOIN LATERAL (
    SELECT * FROM email_queue q1
     WHERE q1.pending_reason = 'uncertain' AND q1.look_at <= relayd_now() AND q1.upstream_id = c.id
     ORDER BY q1.look_at LIMIT $1) q
  JOIN messages m ON m.id = q.message_id
  JOIN email_mailboxes x ON x.id = q.mailbox_id
 ORDER BY q.look_at
"""  # noqa: S608 (constants of this module)

# Those of these entries that are in doubt. Indexes: the tables' primary keys.
OF = f"""{_COLUMNS}
  FROM email_queue q
  JOIN messages m ON m.id = q.message_id
  JOIN email_mailboxes x ON x.id = q.mailbox_id
  JOIN email_configurations c ON c.id = q.upstream_id
 WHERE q.id = ANY($1::uuid[]) AND q.pending_reason = 'uncertain'
 ORDER BY q.id
"""

# Each only while it is the doubt that was decided about. A final one is logged as every end is, for those who count the
# log, a moment after what decided it. What the attempt may have used stays used: nothing is returned here.
# Index: email_queue_pkey.
DECIDE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
given AS MATERIALIZED (
  SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::int[], $7::timestamptz[],
                       $8::text[], $9::text[])
    AS t (id, fence, status, text, reason, looks, look_at, provider_message_id, provider)),
target AS MATERIALIZED (
  SELECT g.* FROM given g JOIN email_queue q ON q.id = g.id
   WHERE q.status IS NOT DISTINCT FROM 'pending' AND q.pending_reason = 'uncertain' AND q.fence = g.fence
   ORDER BY q.id FOR NO KEY UPDATE OF q),
changed AS (
  UPDATE email_queue q
     SET status = t.status, pending_reason = CASE WHEN t.status = 'pending' THEN 'uncertain' END, reason = t.reason,
         looks = t.looks, look_at = t.look_at, updated_at = clock.now,
         next_attempt_at = CASE WHEN t.status = 'queued' THEN clock.now ELSE q.next_attempt_at END,
         provider_message_id = COALESCE(t.provider_message_id, q.provider_message_id),
         sent_at = CASE WHEN t.status = 'sent' THEN clock.now END,
         failed_at = CASE WHEN t.status = 'failed' THEN clock.now END
    FROM target t, clock WHERE q.id = t.id
  RETURNING q.id, q.client_id, q.message_id, q.lane_id, q.fence, q.upstream_id, q.status, q.next_attempt_at),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, attempt, error_message, provider,
                                   upstream_id, actor, created_at, updated_at)
  SELECT c.client_id, c.message_id, c.id, e.event, c.fence, t.text, t.provider, c.upstream_id,
         CASE WHEN $10 THEN relayd_actor() END, now + e.later, now + e.later
    FROM changed c JOIN target t ON t.id = c.id, clock,
    LATERAL (SELECT 'resolved' AS event, interval '0' AS later WHERE c.status <> 'pending' OR t.look_at IS NULL
             UNION ALL SELECT c.status, interval '1 microsecond' WHERE c.status IN ('sent', 'failed')) e)
SELECT id, lane_id, status, next_attempt_at FROM changed
"""


async def due(connection: Connection, *, most: int) -> list[Doubt]:
    """Up to `most` doubts of each upstream that are to be looked into now, the longest due first."""
    return [_doubt(row) for row in await connection.fetch(DUE, most)]


async def of(connection: Connection, entry_ids: Sequence[UUID]) -> list[Doubt]:
    """The doubts among these entries."""
    return [_doubt(row) for row in await connection.fetch(OF, entry_ids)]


async def decide(
    connection: Connection, decisions: Sequence[Decision], *, by_operator: bool = False
) -> tuple[set[UUID], list[tuple[int, datetime]]]:
    """Apply those whose doubt still stands; returns their entries, and for `lanes.requeue` what is due in which lane.

    Call inside a transaction. `by_operator`: the log names `relayd.actor`, which the transaction has set.
    """
    rows = await connection.fetch(
        DECIDE,
        [each.doubt.entry_id for each in decisions],
        [each.doubt.fence for each in decisions],
        [each.status for each in decisions],
        [each.text[:1000] for each in decisions],
        [each.reason[:1000] for each in decisions],
        [each.looks for each in decisions],
        [each.look_at for each in decisions],
        [each.provider_message_id for each in decisions],
        [each.doubt.provider for each in decisions],
        by_operator,
    )
    due = [(row["lane_id"], row["next_attempt_at"]) for row in rows if row["status"] == Status.QUEUED]
    return {row["id"] for row in rows}, due


def _doubt(row: asyncpg.Record) -> Doubt:
    fields = dict(row)
    fields |= {name: Address.stored(fields[name]) for name in ("mailbox", "recipient")}
    fields["look_by"] = Way(fields["look_by"]) if fields["look_by"] else None
    return Doubt(**fields)
