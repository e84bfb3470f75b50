"""Claim what is due and reserve its budget, in one transaction. Never scans past what may not go.

The claim starts from lanes that may run (locked, the locked ones skipped), reads each one's oldest due entries, and
takes whole messages in turn from each lane. It waits for nobody, so it cannot deadlock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg

from relayd.mail.address import Address
from relayd.rules.relay_events import LimitReached
from relayd.store import budget, lanes, windows

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
    but for what other claims were holding just then. `limits_reached`: by lanes that may send no more.
    """

    entries: list[ClaimedEntry]
    leaves_more: bool
    limits_reached: list[LimitReached]


# $1 upstream ids and $2 how many messages each can take; $3 entries read for an upstream, and taken of a lane; $4 this
# claim's name; $5 lease seconds; $6 where in the ring of clients to look for those that others crowd out.
# Not worth a wait for the disk: a claim that is lost with Postgres was not started, since the start's commit is later
# in the same log and does wait.
# Indexes: upstream_breakers_pkey, mailbox_lanes_runnable, mailbox_lanes_client, budgets_pkey, email_queue_due,
# email_queue_message.
CLAIM = """
WITH RECURSIVE clock AS MATERIALIZED (
  SELECT relayd_now() AS now, set_config('synchronous_commit', 'off', true) AS cheap),
upstream AS MATERIALIZED (
  SELECT u.id, u.wanted
    FROM clock
    JOIN relayd_state s ON s.paused_at IS NULL
    CROSS JOIN unnest($1::uuid[], $2::int[]) AS u (id, wanted)
    JOIN email_configurations c ON c.id = u.id AND c.is_active AND c.paused_at IS NULL
    -- From one whose breaker is not closed nothing is taken, but by the claim that is its probe.
    LEFT JOIN upstream_breakers k ON k.upstream_id = u.id AND k.state <> 'closed'
   WHERE k.upstream_id IS NULL OR k.probing_by = $4),
longest AS MATERIALIZED (
  SELECT l.*
    FROM clock, upstream u
    CROSS JOIN LATERAL (
      SELECT id, mailbox_id, client_id, class, upstream_id, budget_ids, runnable_at FROM mailbox_lanes
       WHERE upstream_id = u.id AND NOT held AND runnable_at <= clock.now
       ORDER BY runnable_at LIMIT u.wanted FOR UPDATE SKIP LOCKED) l),
-- Where more lanes may run than are wanted, one client's may be all of them: some of the others', too.
client AS (
  SELECT u.id AS upstream_id, $6::uuid AS client_id, false AS wrapped, 0 AS step FROM upstream u
   WHERE (SELECT count(*) FROM longest WHERE longest.upstream_id = u.id) >= u.wanted
  UNION ALL
  SELECT c.upstream_id, n.client_id, n.wrapped, c.step + 1
    FROM client c, LATERAL (
      (SELECT l.client_id, c.wrapped FROM mailbox_lanes l
        WHERE l.upstream_id = c.upstream_id AND NOT l.held AND l.client_id > c.client_id
          AND (NOT c.wrapped OR l.client_id <= $6::uuid)
        ORDER BY l.client_id LIMIT 1)
      UNION ALL
      (SELECT l.client_id, true FROM mailbox_lanes l
        WHERE NOT c.wrapped AND l.upstream_id = c.upstream_id AND NOT l.held AND l.client_id <= $6::uuid
        ORDER BY l.client_id LIMIT 1)
      LIMIT 1) n
   WHERE c.step < 64),
others AS MATERIALIZED (
  SELECT l.* FROM clock, client c
    CROSS JOIN LATERAL (
      SELECT id, mailbox_id, client_id, class, upstream_id, budget_ids, runnable_at FROM mailbox_lanes
       WHERE upstream_id = c.upstream_id AND client_id = c.client_id AND NOT held AND runnable_at <= clock.now
       ORDER BY runnable_at LIMIT 2 FOR UPDATE SKIP LOCKED) l
   WHERE c.step > 0),
lane AS MATERIALIZED (
  SELECT * FROM (
    SELECT ranked.*, row_number() OVER (PARTITION BY upstream_id ORDER BY rank, runnable_at) AS place
      FROM (SELECT *, row_number() OVER (PARTITION BY upstream_id, client_id ORDER BY runnable_at) AS rank
              FROM (SELECT * FROM longest UNION SELECT * FROM others) locked) ranked) placed
   WHERE place <= (SELECT wanted FROM upstream u WHERE u.id = placed.upstream_id)),
-- Whoever holds one of these just now is in a claim, or changes a limit: its lanes wait for the next look.
budget AS MATERIALIZED (
  SELECT b.id, b.unit_limit - b.units_used AS room, b.bulk_limit - b.units_used AS bulk_room,
         b.began_at > clock.now
           OR (b.turns_at <= clock.now AND (NOT b.is_rolling OR b.units_used >= b.bulk_limit)) AS turned
    FROM budgets b, clock
   WHERE b.id IN (SELECT unnest(lane.budget_ids) FROM lane)
     FOR NO KEY UPDATE OF b SKIP LOCKED),
part AS MATERIALIZED (
  SELECT lane.id AS lane_id, u.id AS budget_id, b.id IS NULL AS contended, COALESCE(b.turned, false) AS turned,
         CASE WHEN lane.class = 'bulk' THEN b.bulk_room ELSE b.room END AS room
    FROM lane CROSS JOIN unnest(lane.budget_ids) AS u (id) LEFT JOIN budget b ON b.id = u.id),
fit AS MATERIALIZED (
  SELECT lane.*, u.wanted, COALESCE(part.contended, false) AS contended,
         CASE WHEN part.contended OR part.turned OR part.room < 0 THEN 0 ELSE part.room END AS room
    FROM lane
    JOIN upstream u ON u.id = lane.upstream_id
    LEFT JOIN (SELECT lane_id, bool_or(contended) AS contended, bool_or(turned) AS turned,
                      min(room) AS room FROM part GROUP BY 1) part ON part.lane_id = lane.id),
-- The oldest of each lane. The read limit is shared out among the lanes: how deep they are costs nothing.
oldest AS (
  SELECT fit.id AS lane_id, fit.client_id, fit.class, fit.upstream_id, fit.budget_ids, fit.wanted, e.message_id,
         row_number() OVER (PARTITION BY fit.id ORDER BY min(e.next_attempt_at), e.message_id) AS turn
    FROM (SELECT *, GREATEST($3, 2 * wanted) / count(*) OVER (PARTITION BY upstream_id) + 1 AS share FROM fit) fit,
    clock,
    LATERAL (
      SELECT q.message_id, q.next_attempt_at FROM email_queue q
       WHERE q.lane_id = fit.id AND q.status = 'queued' AND q.next_attempt_at <= clock.now
       ORDER BY q.next_attempt_at, q.id
       LIMIT LEAST(fit.share, $3, fit.room)) e
   GROUP BY 1, 2, 3, 4, 5, 6, 7),
-- Clients take turns, and their lanes; of four turns of a client's lanes one is for bulk.
placed AS (
  SELECT *, row_number() OVER (PARTITION BY upstream_id ORDER BY client_turn, turn, lane_id) AS place
    FROM (SELECT *, row_number() OVER (PARTITION BY upstream_id, client_id
                                       ORDER BY turn * CASE class WHEN 'bulk' THEN 4 ELSE 1 END, lane_id) AS client_turn
            FROM oldest) taken),
-- All of a message's due recipients. (IS NOT DISTINCT FROM: see `free`.)
whole AS MATERIALIZED (
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
-- What is beyond the room of any of its budgets, all lanes counted in one order without ties: the first of all is the
-- first in each of its budgets, so something goes wherever there is room.
over AS (
  SELECT entry_id
    FROM (SELECT w.entry_id, part.room,
                 row_number() OVER (PARTITION BY part.budget_id ORDER BY w.place, w.unit, w.entry_id) AS nth
            FROM whole w JOIN part ON part.lane_id = w.lane_id AND part.room IS NOT NULL) counted
   WHERE nth > room),
-- A message that the read limit cuts waits for the next claim, unless it is all there is. (NOT IN, which is hashed:
-- NOT EXISTS was planned for one row, and counted all again for each entry.)
ranked AS (
  SELECT entry_id, lane_id, upstream_id, budget_ids FROM whole
   WHERE (turn = 1 OR last_unit <= $3) AND entry_id NOT IN (SELECT entry_id FROM over)),
free AS (
  -- Asked again of the locked row: since the snapshot another may have claimed it, tried it and put it off.
  -- IS NOT DISTINCT FROM, for it rules out the indexes over what is queued: to a plan that was made while nothing was,
  -- they look as cheap as the primary key, and would then be read from end to end.
  SELECT q.id, r.upstream_id, r.budget_ids FROM ranked r JOIN email_queue q ON q.id = r.entry_id, clock
   WHERE q.status IS NOT DISTINCT FROM 'queued' AND q.next_attempt_at <= clock.now AND q.lane_id = r.lane_id
     FOR UPDATE OF q SKIP LOCKED),
claimed AS (
  UPDATE email_queue q
     SET status = 'sending', reason = NULL, claimed_by = $4, fence = q.fence + 1, attempt_started_at = NULL,
         lease_expires_at = clock.now + make_interval(secs => $5), upstream_id = free.upstream_id,
         updated_at = clock.now, reserved_budgets = NULLIF(free.budget_ids, '{}')
    FROM free, clock
   WHERE q.id = free.id
  RETURNING q.id, q.fence, q.message_id, q.client_id, q.mailbox_id, q.lane_id, q.upstream_id, q.recipient_address,
            q.retry_count, q.max_retries, q.first_attempt_at, q.reserved_budgets),
spent AS (
  UPDATE budgets b SET units_used = b.units_used + units.count
    FROM (SELECT u.id, count(*)::integer AS count FROM claimed CROSS JOIN unnest(claimed.reserved_budgets) AS u (id)
           GROUP BY 1) units
   WHERE b.id = units.id)
SELECT fit.id AS lane_id, fit.contended, claimed.reserved_budgets,
       CASE WHEN fit.room = 0
         THEN ARRAY(SELECT budget_id FROM part WHERE part.lane_id = fit.id AND part.turned) END AS turned_budgets,
       claimed.id AS entry_id, claimed.fence, claimed.message_id,
       claimed.client_id, claimed.mailbox_id, claimed.upstream_id, claimed.recipient_address, claimed.retry_count,
       claimed.max_retries, claimed.first_attempt_at
  FROM fit LEFT JOIN claimed ON claimed.lane_id = fit.id
 ORDER BY claimed.id
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
    arguments = (list(wanted), list(wanted.values()), read_limit, claimant, lease_seconds, uuid4())
    rows = await connection.fetch(CLAIM, *arguments)
    turned = {budget_id for row in rows for budget_id in row["turned_budgets"] or ()}
    if turned:
        # Open their windows, and claim again unless there is enough to do.
        await windows.roll(connection, sorted(turned))
        if not any(row["entry_id"] for row in rows):
            rows += await connection.fetch(CLAIM, *arguments)
    reserved = turned | {budget_id for row in rows for budget_id in row["reserved_budgets"] or ()}
    if reserved:
        await budget.mirror(connection, sorted(reserved))
    contended = {row["lane_id"]: row["contended"] for row in rows}
    leaves_more = False
    reached: list[LimitReached] = []
    if contended:
        is_runnable, reached = await lanes.reschedule(
            connection, list(contended), [each for each in contended if contended[each]], spread_seconds=spread_seconds
        )
        leaves_more = len(contended) >= min(wanted.values()) or is_runnable
    return Claim([_entry(row, claimant) for row in rows if row["entry_id"] is not None], leaves_more, reached)


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
