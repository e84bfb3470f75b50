"""Make the start of attempts durable and load what they send, in one round trip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.mail.envelope import RecipientNotice
from relayd.rules.doubt import Trace
from relayd.store.claim import ClaimedEntry

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """What an attempt sends: the signed bytes (`sign_at_attempt`: not yet) and the envelope's sender side."""

    queue_id: UUID
    reverse_path: Address | None
    content: bytes
    smtputf8: bool
    body_8bitmime: bool
    sign_at_attempt: bool
    dsn_ret: str | None
    envelope_id: str | None


@dataclass(frozen=True, slots=True)
class Start:
    """The claims that may be sent now, their messages by queue id, and their mailboxes' addresses by id.

    `notices`: what their submitters asked to be told, by entry, of those who asked.
    """

    entries: set[ClaimedEntry]
    messages: dict[UUID, StoredMessage]
    mailboxes: dict[UUID, Address]
    notices: dict[UUID, RecipientNotice]


# Only while the claim is ours, unstarted, nothing of it paused, and its budgets still good: no window has turned, no
# limit was lowered under it, there is no new one in which nothing is reserved for it, and its lane goes the same way,
# which is open. A probe is the exception: its lane goes another way, and its upstream is what it tries. A reference is
# an attempt's own, as is the way to look for it: those of the one before must not answer for it. IS NOT DISTINCT FROM
# rules out the indexes over what is in flight, which look cheap to a plan that was made while nothing was. $3 lease
# seconds, $4 provider, $5 claim, $7 mark and $8 way to look by entry. A message comes with its first entry, and its
# body as long as those before it have under $6 octets. Indexes: email_queue_pkey, budgets_pkey, email_mailboxes_pkey,
# messages_pkey, message_bodies_pkey.
START = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
started AS (
  UPDATE email_queue q
     SET attempt_started_at = clock.now, first_attempt_at = COALESCE(q.first_attempt_at, clock.now),
         lease_expires_at = clock.now + make_interval(secs => $3), updated_at = clock.now,
         provider_reference = t.mark, look_by = t.look_by, looks = 0
    FROM unnest($1::uuid[], $2::int[], $4::text[], $5::text[], $7::text[], $8::text[])
           AS t (id, fence, provider, claimed_by, mark, look_by),
         clock, mailbox_lanes l, email_configurations c, relayd_state s
   WHERE q.id = t.id AND q.fence = t.fence AND q.status IS NOT DISTINCT FROM 'sending' AND q.claimed_by = t.claimed_by
     AND q.attempt_started_at IS NULL AND q.lease_expires_at > clock.now
     AND l.id = q.lane_id AND NOT l.held
     AND CASE WHEN EXISTS (SELECT FROM upstream_breakers k WHERE k.upstream_id = q.upstream_id AND k.state <> 'closed')
              THEN EXISTS (SELECT FROM upstream_breakers k
                            WHERE k.upstream_id = q.upstream_id AND k.probing_by = q.claimed_by)
                   AND COALESCE(q.reserved_budgets, '{}') @> relayd_budgets_of(l.mailbox_id, l.class, q.upstream_id)
              ELSE l.upstream_id = q.upstream_id AND COALESCE(q.reserved_budgets, '{}') @> l.budget_ids END
     AND c.id = q.upstream_id AND c.is_active AND c.paused_at IS NULL AND s.paused_at IS NULL
     AND NOT EXISTS (SELECT FROM budgets b
                      WHERE b.id = ANY(q.reserved_budgets)
                        AND (b.units_used > b.unit_limit OR b.began_at > clock.now
                             OR (b.turns_at <= clock.now AND NOT b.is_rolling)))
  RETURNING q.id, q.client_id, q.message_id, q.mailbox_id, q.fence, q.upstream_id, q.dsn_notify, q.dsn_orcpt,
            t.provider, t.claimed_by),
logged AS (
  INSERT INTO email_delivery_logs
         (client_id, message_id, entry_id, event, attempt, provider, upstream_id, created_at, updated_at)
  SELECT client_id, message_id, id, 'sending', fence, provider, upstream_id, now, now FROM started, clock),
entry AS (
  SELECT id, claimed_by, message_id, mailbox_id, dsn_notify, dsn_orcpt,
         row_number() OVER (PARTITION BY message_id ORDER BY id) AS turn FROM started),
message AS (
  SELECT e.id AS entry_id, m.id, m.reverse_path, m.smtputf8, m.body_8bitmime, m.sign_at_attempt, m.dsn_ret,
         m.envelope_id, sum(m.size_octets) OVER (ORDER BY e.id) - m.size_octets AS octets_before
    FROM entry e, LATERAL (SELECT * FROM messages WHERE id = e.message_id OFFSET 0) m WHERE e.turn = 1)
SELECT e.id AS entry_id, e.claimed_by, e.mailbox_id, x.email_address, e.dsn_notify, e.dsn_orcpt, m.id, m.reverse_path,
       m.smtputf8, m.body_8bitmime, m.sign_at_attempt, m.dsn_ret, m.envelope_id, b.content
  FROM entry e
  LEFT JOIN LATERAL (SELECT email_address FROM email_mailboxes WHERE id = e.mailbox_id OFFSET 0) x ON true
  LEFT JOIN message m ON m.entry_id = e.id
  LEFT JOIN LATERAL (
    SELECT content FROM message_bodies WHERE message_id = m.id AND m.octets_before < $6 OFFSET 0) b ON true
"""

# Indexes: messages_pkey, message_bodies_pkey.
LOAD = """
SELECT m.id, m.reverse_path, m.smtputf8, m.body_8bitmime, m.sign_at_attempt, m.dsn_ret, m.envelope_id, b.content
  FROM messages m JOIN message_bodies b ON b.message_id = m.id WHERE m.id = $1
"""


async def start(
    connection: Connection,
    claims: Sequence[tuple[ClaimedEntry, str]],
    *,
    lease_seconds: float,
    batch_octets: int = 8 * 1024 * 1024,
    traces: Mapping[UUID, Trace] | None = None,
) -> Start:
    """Make the start of these attempts durable (claim and provider); returns the claims that may be sent.

    Outside a transaction they have committed on return. What is not returned must not be sent: its claim was lost, or
    its budget is gone; settle it as postponed. A claim that was lost with Postgres may stand here beside the one that
    was made in its place: of the same entry one is returned and the other is not. Bodies beyond `batch_octets` are
    read one by one. `traces`: how the attempt can be looked for, by entry, where it can be at all.
    """
    found_by = [(traces or {}).get(entry.entry_id) for entry, _ in claims]
    rows = await connection.fetch(
        START,
        [entry.entry_id for entry, _ in claims],
        [entry.fence for entry, _ in claims],
        lease_seconds,
        [provider for _, provider in claims],
        [entry.claimed_by for entry, _ in claims],
        batch_octets,
        [each and each.mark for each in found_by],
        [each and each.way for each in found_by],
    )
    messages = {}
    for row in rows:
        if row["id"] is None:
            continue  # another recipient of a message that has come with its first one
        found = row if row["content"] is not None else await connection.fetchrow(LOAD, row["id"])
        if found is not None:
            messages[row["id"]] = _message(found)
    started = {(row["entry_id"], row["claimed_by"]) for row in rows}
    return Start(
        {entry for entry, _ in claims if (entry.entry_id, entry.claimed_by) in started},
        messages,
        {row["mailbox_id"]: Address.stored(row["email_address"]) for row in rows if row["email_address"]},
        {
            row["entry_id"]: RecipientNotice(row["dsn_notify"], row["dsn_orcpt"])
            for row in rows
            if row["dsn_notify"] or row["dsn_orcpt"]
        },
    )


def _message(row: asyncpg.Record) -> StoredMessage:
    return StoredMessage(
        queue_id=row["id"],
        reverse_path=Address.stored(row["reverse_path"]) if row["reverse_path"] else None,
        content=row["content"],
        smtputf8=row["smtputf8"],
        body_8bitmime=row["body_8bitmime"],
        sign_at_attempt=row["sign_at_attempt"],
        dsn_ret=row["dsn_ret"],
        envelope_id=row["envelope_id"],
    )
