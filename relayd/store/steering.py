"""Move lanes to where their mail goes now, and let go at once what only a broken upstream has kept back.

In batches, each a transaction of its own: what a crash cuts off, the next round does.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from relayd.store import lanes
from relayd.store.connection import Connection
from relayd.store.pool import Database

LANES = 1000
ENTRIES = 500

# Index: mailbox_upstreams_upstream, mail_route_upstreams_upstream, mailbox_lanes_route.
LANES_OF_UPSTREAM = "SELECT relayd_lanes_of_upstream($1)"

# Lanes that have more than one way, or are not where they would be. The others are where their mailbox says.
LANES_WITH_WAYS = """
SELECT ARRAY(
  SELECT l.id FROM mailbox_upstreams x JOIN mailbox_lanes l ON l.mailbox_id = x.mailbox_id
  UNION
  SELECT id FROM mailbox_lanes WHERE route_id IS NOT NULL
  UNION
  SELECT id FROM mailbox_lanes WHERE preferred_id <> upstream_id
  ORDER BY 1)
"""

STEER = "SELECT relayd_steer_lanes($1::bigint[])"

# Entries that were deferred because their upstream failed, and whose lane goes another way that works; and, of upstream
# $1, which works again, all of them. $2 at most so many. Whoever holds one just now has it. Indexes:
# email_queue_upstream_failed, mailbox_lanes_pkey, upstream_breakers_pkey.
LET_GO = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
target AS MATERIALIZED (
  SELECT q.id, q.upstream_id <> l.upstream_id AS goes_another_way
    FROM clock, email_queue q
    JOIN mailbox_lanes l ON l.id = q.lane_id
   WHERE q.upstream_failed AND q.status = 'queued' AND q.next_attempt_at > clock.now
     AND (q.upstream_id <> l.upstream_id OR q.upstream_id = $1)
     AND NOT EXISTS (SELECT FROM upstream_breakers k
                      WHERE k.upstream_id = l.upstream_id AND (k.state <> 'closed' OR k.consecutive_failures > 0))
   ORDER BY q.id LIMIT $2 FOR UPDATE OF q SKIP LOCKED),
changed AS (
  UPDATE email_queue q SET next_attempt_at = clock.now, upstream_failed = NULL, updated_at = clock.now
    FROM target, clock WHERE q.id = target.id
  RETURNING q.id, q.client_id, q.message_id, q.lane_id, target.goes_another_way),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, created_at, updated_at)
  SELECT client_id, message_id, id, 'rerouted', 'goes through its next upstream', now, now
    FROM changed, clock WHERE goes_another_way)
SELECT lane_id, clock.now FROM changed, clock
"""


# The lanes for entries that go on through the next upstream, made where there are none yet. $1 entries.
# Indexes: email_queue_pkey, mailbox_lanes_pkey, mailbox_lanes_mailbox_id_class_key.
MAKE_NEXT_LANES = """
SELECT relayd_lane(l.mailbox_id, l.class, l.route_id, n.next_share)
  FROM (SELECT DISTINCT lane_id, upstream_id FROM email_queue WHERE id = ANY($1::uuid[])) q
  JOIN mailbox_lanes l ON l.id = q.lane_id
  CROSS JOIN LATERAL relayd_next_upstream(q.lane_id, q.upstream_id) n
 WHERE NOT EXISTS (SELECT FROM mailbox_lanes x
                    WHERE x.mailbox_id = l.mailbox_id AND x.class = l.class
                      AND x.route_id IS NOT DISTINCT FROM l.route_id AND x.share_id IS NOT DISTINCT FROM n.next_share)
"""

# Which of these entries have an upstream that they go on through at once. $1 entries. Indexes as before.
HAVE_NEXT = """
SELECT q.id
  FROM (SELECT DISTINCT lane_id, upstream_id FROM email_queue WHERE id = ANY($1::uuid[])) pair
  CROSS JOIN LATERAL relayd_next_upstream(pair.lane_id, pair.upstream_id) n
  JOIN email_queue q ON q.lane_id = pair.lane_id AND q.upstream_id = pair.upstream_id
 WHERE q.id = ANY($1::uuid[]) AND NOT n.is_round
"""

# Entries whose upstream has just failed go to the lane of the next one, at once and without an attempt spent; when all
# have been tried, back to the first after the usual wait. $1 entries, which this transaction holds.
# Indexes as before.
FAIL_OVER = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
pair AS (SELECT DISTINCT lane_id, upstream_id FROM email_queue WHERE id = ANY($1::uuid[])),
goal AS MATERIALIZED (
  SELECT pair.lane_id AS from_lane, pair.upstream_id AS failed, x.id AS to_lane, n.is_round, u.name
    FROM pair
    JOIN mailbox_lanes l ON l.id = pair.lane_id
    CROSS JOIN LATERAL relayd_next_upstream(pair.lane_id, pair.upstream_id) n
    JOIN email_configurations u ON u.id = n.next_id
    JOIN mailbox_lanes x ON x.mailbox_id = l.mailbox_id AND x.class = l.class
     AND x.route_id IS NOT DISTINCT FROM l.route_id AND x.share_id IS NOT DISTINCT FROM n.next_share),
changed AS (
  UPDATE email_queue q
     SET lane_id = goal.to_lane, updated_at = clock.now,
         next_attempt_at = CASE WHEN goal.is_round THEN q.next_attempt_at ELSE clock.now END,
         retry_count = CASE WHEN goal.is_round THEN q.retry_count ELSE GREATEST(q.retry_count - 1, 0) END,
         upstream_failed = CASE WHEN goal.is_round THEN q.upstream_failed END
    FROM goal, clock
   WHERE q.id = ANY($1::uuid[]) AND q.lane_id = goal.from_lane AND q.upstream_id = goal.failed AND q.status = 'queued'
  RETURNING q.id, q.client_id, q.message_id, q.lane_id, q.next_attempt_at, goal.name),
logged AS (
  INSERT INTO email_delivery_logs (client_id, message_id, entry_id, event, error_message, created_at, updated_at)
  SELECT client_id, message_id, id, 'rerouted', 'goes through ' || name || ' next', now, now FROM changed, clock)
SELECT id, lane_id, next_attempt_at FROM changed
"""


async def steer(database: Database, upstream_id: UUID | None = None) -> int:
    """Move those lanes that should be elsewhere: of an upstream whose state has changed, or, None, of all. Returns how
    many moved.
    """
    async with database.connection() as connection:
        if upstream_id is None:
            lane_ids: Sequence[int] = await connection.fetchval(LANES_WITH_WAYS)
        else:
            lane_ids = await connection.fetchval(LANES_OF_UPSTREAM, upstream_id)
    moved = 0
    for begin in range(0, len(lane_ids), LANES):
        async with database.transaction() as connection:
            moved += len(await connection.fetchval(STEER, lane_ids[begin : begin + LANES]))
    return moved


async def let_go(database: Database, upstream_id: UUID | None = None) -> int:
    """Make due at once what waits only because an upstream failed and has another way, or, of `upstream_id`, the same
    way again. Returns how many entries.
    """
    total = 0
    while True:
        async with database.transaction() as connection:
            rows = await connection.fetch(LET_GO, upstream_id, ENTRIES)
            if rows:
                await lanes.requeue(connection, [(row["lane_id"], row["now"]) for row in rows])
        total += len(rows)
        if len(rows) < ENTRIES:
            return total


async def make_next_lanes(connection: Connection, entry_ids: Sequence[UUID]) -> set[UUID]:
    """The lanes that `fail_over` needs for these entries. In a transaction of its own: it locks mailboxes and lanes.

    Returns the entries that have an upstream which they have not tried in this round.
    """
    await connection.execute(MAKE_NEXT_LANES, list(entry_ids))
    return {row["id"] for row in await connection.fetch(HAVE_NEXT, list(entry_ids))}


async def fail_over(connection: Connection, entry_ids: Sequence[UUID]) -> dict[UUID, tuple[int, datetime]]:
    """Send entries that this transaction has settled as failed by their upstream on through the next one.

    Returns the lane of each that moved and when it is due; the caller has the lanes look. The others have no next one.
    """
    rows = await connection.fetch(FAIL_OVER, list(entry_ids))
    return {row["id"]: (row["lane_id"], row["next_attempt_at"]) for row in rows}


async def steer_lanes(connection: Connection, lane_ids: Sequence[int]) -> None:
    """Move those of these lanes that should be elsewhere. In the caller's transaction."""
    await connection.fetchval(STEER, sorted(lane_ids))
