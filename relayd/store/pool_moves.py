"""Move queued entries of pools from members that cannot send now to members that can.

It waits for nobody: lanes and entries that somebody holds are left for the next round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from relayd.mail.address import Address
from relayd.rules.states import LaneClass
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Stuck:
    """A lane that cannot send now and holds due entries of a pool. `route_id`, `share_id`: its way, from any member."""

    pool_id: UUID
    client_id: UUID
    lane_id: int
    lane_class: LaneClass
    mailbox: str
    why: str
    route_id: UUID | None = None
    share_id: UUID | None = None


# Walks from one (pool, lane) to the next in the index, however many entries each has. While everything is paused, or
# where nothing but its upstream stops a lane that has no other, nobody can take over; that is for the caller to see.
# Mail of a route leaves as the route says, whoever sends it: so it stays where its upstream stops it, and where the
# route is its mailbox's own, or gone, so that it is about to be put elsewhere.
# Indexes: email_queue_pool, mailbox_lanes_pkey, mail_routes_pkey.
STUCK = """
WITH RECURSIVE waiting AS (
  (SELECT pool_id, lane_id FROM email_queue
    WHERE pool_id IS NOT NULL AND status = 'queued' ORDER BY pool_id, lane_id LIMIT 1)
  UNION ALL
  SELECT next.* FROM waiting w, LATERAL (
    SELECT q.pool_id, q.lane_id FROM email_queue q
     WHERE q.pool_id IS NOT NULL AND q.status = 'queued' AND (q.pool_id, q.lane_id) > (w.pool_id, w.lane_id)
     ORDER BY q.pool_id, q.lane_id LIMIT 1) next)
SELECT w.pool_id, l.client_id, l.id AS lane_id, l.class AS lane_class, l.route_id, l.share_id,
       m.email_address AS mailbox,
       CASE WHEN m.status NOT IN ('warming', 'active') THEN 'it is ' || m.status
            WHEN l.held THEN 'it may not send'
            WHEN l.blocked_until > relayd_now() THEN COALESCE(l.blocked_reason, 'it is parked')
            WHEN k.upstream_id IS NOT NULL THEN 'its upstream does not work'
            ELSE 'its upstream is paused' END AS why
  FROM relayd_state s
  CROSS JOIN waiting w
  JOIN mailbox_pools p ON p.id = w.pool_id AND p.deleted_at IS NULL
  JOIN mailbox_lanes l ON l.id = w.lane_id
  JOIN email_mailboxes m ON m.id = l.mailbox_id
  JOIN email_configurations u ON u.id = l.upstream_id
  LEFT JOIN upstream_breakers k ON k.upstream_id = u.id AND k.state <> 'closed'
  LEFT JOIN mail_routes r ON r.id = l.route_id
 WHERE s.paused_at IS NULL
   AND (l.held OR l.blocked_until > relayd_now()
        OR (l.route_id IS NULL AND (NOT u.is_active OR u.paused_at IS NOT NULL OR k.upstream_id IS NOT NULL)))
   AND (l.route_id IS NULL OR (r.deleted_at IS NULL AND r.mailbox_id IS NULL))
 ORDER BY w.pool_id, w.lane_id
"""

# Members of pool $1 that have no lane of class $2, route $3 and share $4 yet, $5 of them.
# Indexes: mailbox_pool_members_pool_id_mailbox_id_key, mailbox_lanes_mailbox_id_class_key.
WITHOUT_LANE = """
SELECT p.mailbox_id FROM mailbox_pool_members p
  JOIN email_mailboxes m ON m.id = p.mailbox_id AND m.deleted_at IS NULL AND m.status IN ('warming', 'active')
 WHERE p.pool_id = $1
   AND NOT EXISTS (SELECT FROM mailbox_lanes l
                    WHERE l.mailbox_id = p.mailbox_id AND l.class = $2 AND l.route_id = $3::uuid
                      AND l.share_id IS NOT DISTINCT FROM $4::uuid)
 ORDER BY p.mailbox_id LIMIT $5
"""

# The oldest $3 due entries of pool $1 in lane $2. Indexes: email_queue_pool, messages_pkey.
DUE = """
SELECT q.id, q.recipient_address, s.header_from
  FROM (SELECT relayd_now() AS now) clock,
       LATERAL (
         SELECT x.id, x.message_id, x.recipient_address FROM email_queue x
          WHERE x.pool_id = $1 AND x.lane_id = $2 AND x.status = 'queued' AND x.next_attempt_at <= clock.now
          ORDER BY x.next_attempt_at, x.id LIMIT $3) q
  JOIN messages s ON s.id = q.message_id
"""

# Up to $4 due entries of pool $1 from lane $2 to lane $3, the oldest first; of the oldest $5 those that their
# credential lets the other mailbox send, and of those only $7 unless that is NULL. Both lanes and the other mailbox are
# locked first, so that neither claims and nobody removes it meanwhile, and asked again once they are. The message
# follows: whoever sends it is told of by its bounce.
# Indexes: mailbox_lanes_pkey, email_mailboxes_pkey, email_queue_pool, messages_pkey.
MOVE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
home AS MATERIALIZED (
  SELECT m.id, lower(m.email_address) AS address FROM email_mailboxes m
   WHERE m.id = (SELECT mailbox_id FROM mailbox_lanes WHERE id = $3) AND m.deleted_at IS NULL
     FOR KEY SHARE SKIP LOCKED),
lane AS MATERIALIZED (
  SELECT l.id, l.held, l.blocked_until,
         u.is_active AND u.paused_at IS NULL AND NOT EXISTS (
           SELECT FROM upstream_breakers k WHERE k.upstream_id = u.id AND k.state <> 'closed') AS takes_mail
    FROM mailbox_lanes l JOIN email_configurations u ON u.id = l.upstream_id
   WHERE l.id IN ($2, $3) ORDER BY l.id FOR NO KEY UPDATE OF l SKIP LOCKED),
target AS MATERIALIZED (
  SELECT q.id
    FROM clock, home,
         lane source, lane goal,
         LATERAL (
           SELECT x.id, x.message_id FROM email_queue x
            WHERE x.pool_id = $1 AND x.lane_id = source.id AND x.status = 'queued' AND x.next_attempt_at <= clock.now
            ORDER BY x.next_attempt_at, x.id LIMIT $5) oldest
    JOIN email_queue q ON q.id = oldest.id
    JOIN messages s ON s.id = oldest.message_id
    LEFT JOIN smtp_credentials k ON k.id = s.credential_id
   WHERE source.id = $2 AND goal.id = $3
     AND (source.held OR source.blocked_until > clock.now OR NOT source.takes_mail)
     AND NOT goal.held AND goal.blocked_until <= clock.now AND goal.takes_mail
     AND q.lane_id = source.id AND q.status IS NOT DISTINCT FROM 'queued'
     AND ($7::uuid[] IS NULL OR q.id = ANY($7))
     AND (k.senders IS NULL OR home.address = ANY(k.senders) OR split_part(home.address, '@', -1) = ANY(k.senders))
   LIMIT $4 FOR UPDATE OF q SKIP LOCKED),
changed AS (
  UPDATE email_queue q SET lane_id = $3, mailbox_id = home.id, updated_at = clock.now
    FROM target, home, clock WHERE q.id = target.id
  RETURNING q.id, q.client_id, q.message_id),
followed AS (
  UPDATE messages s SET mailbox_id = home.id, updated_at = clock.now
    FROM home, clock WHERE s.id IN (SELECT message_id FROM changed)),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, created_at, updated_at)
  SELECT client_id, message_id, id, 'queued', $6, now, now FROM changed, clock),
woken AS (
  UPDATE mailbox_lanes l SET due_at = LEAST(l.due_at, clock.now)
    FROM clock WHERE l.id = $3 AND EXISTS (SELECT FROM changed))
SELECT count(*) FROM changed
"""

# How far into a lane one looks for entries that may be moved.
LOOK = 5000


async def stuck(connection: Connection) -> list[Stuck]:
    """Lanes that cannot send now though they hold entries of pools. An idle one may be among them."""
    rows = await connection.fetch(STUCK)
    return [Stuck(**{**dict(row), "lane_class": LaneClass(row["lane_class"])}) for row in rows]


async def without_lane(connection: Connection, lane: Stuck, *, most: int) -> list[UUID]:
    """Up to so many members of the pool that may send and have no lane of the same class and route yet."""
    rows = await connection.fetch(WITHOUT_LANE, lane.pool_id, lane.lane_class, lane.route_id, lane.share_id, most)
    return [row["mailbox_id"] for row in rows]


async def due(connection: Connection, lane: Stuck) -> list[tuple[UUID, Address, Address]]:
    """The entries that `move` looks at: id, author, recipient."""
    rows = await connection.fetch(DUE, lane.pool_id, lane.lane_id, LOOK)
    return [(row["id"], Address.stored(row["header_from"]), Address.stored(row["recipient_address"])) for row in rows]


async def move(
    connection: Connection,
    lane: Stuck,
    *,
    to_lane_id: int,
    most: int,
    text: str,
    only: Sequence[UUID] | None = None,
) -> int:
    """Move up to `most` due entries (None: any, else of `only`), logged with `text`; returns how many. Call inside a
    transaction.
    """
    moved: int = await connection.fetchval(MOVE, lane.pool_id, lane.lane_id, to_lane_id, most, LOOK, text[:1000], only)
    return moved
