"""Claim what is due and reserve its budget, in one transaction. Never scans past what may not go.

The claim starts from lanes that may run (locked, the locked ones skipped), reads each one's oldest due entries, and
takes whole messages in turn from each lane. It waits for nobody, so it cannot deadlock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.mail.address import Address

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class ClaimedEntry:
    """One queue entry under our lease. `fence` numbers the claims of an entry; the newest one owns it.

    A claim that was lost with Postgres leaves its number to the next one, so `claimed_by` has to match too.
    """

    entry_id: UUID
    fence: int
    claimed_by: str
    queue_id: UUID
    client_id: UUID
    mailbox_id: UUID
    upstream_id: UUID
    recipient: Address
    retry_count: int
    max_retries: int
    first_attempt_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim took. `leaves_more`: another claim may take more at once. Without it, nothing was left that is due,
    but for what other claims were holding just then.
    """

    entries: list[ClaimedEntry]
    leaves_more: bool


# $1 upstream ids and $2 how many messages each can take; $3 entries read for an upstream, and taken of a lane; $4 this
# claim's name; $5 lease seconds.
# Not worth a wait for the disk: a claim that is lost with Postgres was not started, since the start's commit is later
# in the same log and does wait. Indexes: mailbox_lanes_runnable, email_queue_due, email_queue_message.
CLAIM = """
WITH clock AS MATERIALIZED (
  SELECT relayd_now() AS now, set_config('synchronous_commit', 'off', true) AS cheap),
lane AS MATERIALIZED (
  SELECT l.*, u.wanted
    FROM clock
    JOIN relayd_state s ON s.paused_at IS NULL
    CROSS JOIN unnest($1::uuid[], $2::int[]) AS u (id, wanted)
    JOIN email_configurations c ON c.id = u.id AND c.is_active AND c.paused_at IS NULL
    CROSS JOIN LATERAL (
      SELECT id, mailbox_id, class, upstream_id, runnable_at FROM mailbox_lanes
       WHERE upstream_id = u.id AND NOT held AND runnable_at <= clock.now
       ORDER BY runnable_at LIMIT u.wanted FOR UPDATE SKIP LOCKED) l),
mailbox AS MATERIALIZED (
  SELECT m.id, m.window_ends_at,
         CASE WHEN m.daily_send_limit IS NULL THEN NULL
              WHEN m.window_ends_at <= clock.now THEN 0
              ELSE GREATEST(m.daily_send_limit - m.current_daily_sends, 0) END AS allowance,
         m.window_ends_at <= clock.now AS turned
    FROM lane JOIN email_mailboxes m ON m.id = lane.mailbox_id, clock
   WHERE lane.class = 'mail'
     FOR NO KEY UPDATE OF m SKIP LOCKED),
-- The oldest of each lane. The read limit is shared out among the lanes: how deep they are costs nothing.
oldest AS (
  SELECT lane.id AS lane_id, lane.upstream_id, lane.wanted, lane.allowance, e.message_id,
         row_number() OVER (PARTITION BY lane.id ORDER BY min(e.next_attempt_at), e.message_id) AS turn
    FROM (SELECT lane.*, mailbox.allowance,
                 CASE WHEN lane.class = 'mail' AND (mailbox.id IS NULL OR mailbox.turned) THEN 0
                      ELSE GREATEST($3, 2 * lane.wanted) / count(*) OVER (PARTITION BY lane.upstream_id) + 1
                 END AS share
            FROM lane LEFT JOIN mailbox ON mailbox.id = lane.mailbox_id AND lane.class = 'mail') lane, clock,
    LATERAL (
      SELECT q.message_id, q.next_attempt_at FROM email_queue q
       WHERE q.lane_id = lane.id AND q.status = 'queued' AND q.next_attempt_at <= clock.now
       ORDER BY q.next_attempt_at, q.id
       LIMIT LEAST(lane.share, $3, lane.allowance)) e
   GROUP BY 1, 2, 3, 4, 5),
placed AS (
  SELECT *, row_number() OVER (PARTITION BY upstream_id ORDER BY turn, lane_id) AS place FROM oldest),
-- All of a message's due recipients. (IS NOT DISTINCT FROM: see `free`.)
whole AS (
  SELECT *, max(unit) OVER (PARTITION BY lane_id, turn) AS last_unit
    FROM (SELECT p.*, e.id AS entry_id,
                 row_number() OVER (PARTITION BY p.lane_id ORDER BY p.turn, e.next_attempt_at, e.id) AS unit
            FROM placed p, clock,
            LATERAL (
              SELECT q.id, q.next_attempt_at FROM email_queue q
               WHERE q.message_id = p.message_id AND q.lane_id = p.lane_id
                 AND q.status IS NOT DISTINCT FROM 'queued' AND q.next_attempt_at <= clock.now
               ORDER BY q.next_attempt_at, q.id LIMIT $3) e
           WHERE p.place <= p.wanted) counted),
-- A message that the read limit cuts waits for the next claim, unless it is all there is.
ranked AS (
  SELECT entry_id FROM whole
   WHERE (allowance IS NULL OR unit <= allowance) AND (turn = 1 OR last_unit <= $3)),
free AS (
  -- Asked again of the locked row: since the snapshot another may have claimed it, tried it and put it off.
  -- IS NOT DISTINCT FROM, for it rules out the indexes over what is queued: to a plan that was made while nothing was,
  -- they look as cheap as the primary key, and would then be read from end to end.
  SELECT q.id FROM ranked r JOIN email_queue q ON q.id = r.entry_id, clock
   WHERE q.status IS NOT DISTINCT FROM 'queued' AND q.next_attempt_at <= clock.now
     FOR UPDATE OF q SKIP LOCKED),
claimed AS (
  UPDATE email_queue q
     SET status = 'sending', reason = NULL, claimed_by = $4, fence = q.fence + 1, attempt_started_at = NULL,
         lease_expires_at = clock.now + make_interval(secs => $5), upstream_id = lane.upstream_id,
         updated_at = clock.now, reserved_until = mailbox.window_ends_at
    FROM free, clock, lane LEFT JOIN mailbox ON mailbox.id = lane.mailbox_id AND lane.class = 'mail'
   WHERE q.id = free.id AND lane.id = q.lane_id
  RETURNING q.id, q.fence, q.message_id, q.client_id, q.mailbox_id, q.lane_id, q.upstream_id, q.recipient_address,
            q.retry_count, q.max_retries, q.first_attempt_at, q.reserved_until),
spent AS (
  UPDATE email_mailboxes m SET current_daily_sends = m.current_daily_sends + units.count
    FROM (SELECT mailbox_id, count(*) AS count FROM claimed WHERE reserved_until IS NOT NULL GROUP BY 1) units
   WHERE m.id = units.mailbox_id)
SELECT lane.id AS lane_id, mailbox.id AS turned_mailbox_id, claimed.id AS entry_id, claimed.fence, claimed.message_id,
       claimed.client_id, claimed.mailbox_id, claimed.upstream_id, claimed.recipient_address, claimed.retry_count,
       claimed.max_retries, claimed.first_attempt_at
  FROM lane
  LEFT JOIN mailbox ON mailbox.id = lane.mailbox_id AND lane.class = 'mail' AND mailbox.turned
  LEFT JOIN claimed ON claimed.lane_id = lane.id
 ORDER BY claimed.id
"""

# Which of these mailboxes, locked by the claim, can roll now: all that they have in flight can be locked. Who settles
# holds entries and then waits for their mailbox, so here nobody may be waited for. Index: email_queue_in_flight.
ROLLABLE = """
WITH in_flight AS MATERIALIZED (
  SELECT q.mailbox_id FROM email_queue q
   WHERE q.mailbox_id = ANY($1::uuid[]) AND q.status = 'sending' AND q.reserved_until IS NOT NULL
     FOR NO KEY UPDATE OF q SKIP LOCKED)
SELECT m.id FROM unnest($1::uuid[]) AS m (id)
 WHERE (SELECT count(*) FROM in_flight f WHERE f.mailbox_id = m.id)
     = (SELECT count(*) FROM email_queue q
         WHERE q.mailbox_id = m.id AND q.status = 'sending' AND q.reserved_until IS NOT NULL)
"""

# Before ROLL, in a statement of its own: a snapshot older than this lock could miss a claim that was made meanwhile.
# Index: email_mailboxes_pkey.
LOCK_MAILBOXES = "SELECT FROM email_mailboxes WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE"

# A new window begins. What is in flight may end in it, so it counts on both sides. Index: email_queue_in_flight.
ROLL = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
mailbox AS MATERIALIZED (
  SELECT m.id,
         (date_trunc('day', clock.now AT TIME ZONE m.time_zone) + interval '1 day') AT TIME ZONE m.time_zone AS ends
    FROM email_mailboxes m, clock
   WHERE m.id = ANY($1::uuid[]) AND m.window_ends_at <= clock.now
   ORDER BY m.id FOR NO KEY UPDATE OF m),
straddling AS (
  UPDATE email_queue q SET reserved_until = mailbox.ends FROM mailbox
   WHERE q.mailbox_id = mailbox.id AND q.status = 'sending' AND q.reserved_until IS NOT NULL
  RETURNING q.mailbox_id)
UPDATE email_mailboxes m
   SET window_ends_at = mailbox.ends,
       current_daily_sends = (SELECT count(*) FROM straddling s WHERE s.mailbox_id = m.id)
  FROM mailbox WHERE m.id = mailbox.id
"""

# When the lanes just locked are next worth a look. A later statement than the claim, on purpose: its snapshot is newer
# than the lane's lock, so nothing that was committed before it can look absent. A lane with more to give goes to the
# back of the line. $2: seconds over which releases are spread after a window turns, each mailbox at its own moment.
RESCHEDULE = """
UPDATE mailbox_lanes l
   SET due_at = CASE WHEN seen.next IS NULL THEN 'infinity' ELSE GREATEST(seen.next, seen.now) END,
       blocked_until = CASE WHEN seen.limited
         THEN seen.window_ends_at + make_interval(secs => $2 * (abs(hashtext(seen.mailbox_id::text)) % 1000) / 1000.0)
         ELSE '-infinity' END,
       blocked_reason = CASE WHEN seen.limited THEN 'mailbox daily limit' END
  FROM (SELECT x.id, x.mailbox_id, m.window_ends_at, clock.now,
               COALESCE(x.class = 'mail' AND m.current_daily_sends >= m.daily_send_limit
                        AND m.window_ends_at > clock.now, false) AS limited,
               (SELECT q.next_attempt_at FROM email_queue q WHERE q.lane_id = x.id AND q.status = 'queued'
                 ORDER BY q.next_attempt_at LIMIT 1) AS next
          FROM (SELECT relayd_now() AS now) clock, mailbox_lanes x JOIN email_mailboxes m ON m.id = x.mailbox_id
         WHERE x.id = ANY($1::bigint[])) seen
 WHERE l.id = seen.id
RETURNING l.runnable_at <= seen.now AS is_runnable
"""


async def claim(
    connection: Connection,
    wanted: Mapping[UUID, int],
    *,
    read_limit: int,
    claimant: str,
    lease_seconds: float,
    spread_seconds: float,
) -> Claim:
    """Claim up to `wanted[upstream_id]` messages for each upstream; all recipients of a message come together
    unless budget or `read_limit` splits them. Call inside a transaction; the claim holds once it has committed.
    `claimant` names this one claim: never use it again.
    """
    upstream_ids, counts = list(wanted), list(wanted.values())
    rows = await connection.fetch(CLAIM, upstream_ids, counts, read_limit, claimant, lease_seconds)
    turned = {row["turned_mailbox_id"] for row in rows} - {None}
    if turned:
        # Once a day a mailbox: open its window, and claim again unless there is enough to do.
        rollable = [row["id"] for row in await connection.fetch(ROLLABLE, list(turned))]
        await connection.execute(ROLL, rollable)
        if rollable and not any(row["entry_id"] for row in rows):
            rows += await connection.fetch(CLAIM, upstream_ids, counts, read_limit, claimant, lease_seconds)
    lanes = sorted({row["lane_id"] for row in rows})
    leaves_more = False
    if lanes:
        rescheduled = await connection.fetch(RESCHEDULE, lanes, spread_seconds)
        leaves_more = len(lanes) >= min(counts) or any(row["is_runnable"] for row in rescheduled)
    return Claim([_entry(row, claimant) for row in rows if row["entry_id"] is not None], leaves_more)


async def roll_windows(connection: Connection, mailbox_ids: Sequence[UUID]) -> None:
    """Open a new window for those of the mailboxes whose window has ended. Call inside a transaction."""
    await connection.execute(LOCK_MAILBOXES, mailbox_ids)
    await connection.execute(ROLL, mailbox_ids)


def _entry(row: asyncpg.Record, claimant: str) -> ClaimedEntry:
    return ClaimedEntry(
        entry_id=row["entry_id"],
        fence=row["fence"],
        claimed_by=claimant,
        queue_id=row["message_id"],
        client_id=row["client_id"],
        mailbox_id=row["mailbox_id"],
        upstream_id=row["upstream_id"],
        recipient=Address.stored(row["recipient_address"]),
        retry_count=row["retry_count"],
        max_retries=row["max_retries"],
        first_attempt_at=row["first_attempt_at"],
    )
