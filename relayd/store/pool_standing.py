"""How the members of mailbox pools stand: who may send, with how much room. For the door and for moving entries."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from relayd.mail.address import Address
from relayd.rules.mail_class import MailClass
from relayd.rules.pool_choice import Standing
from relayd.rules.states import LaneClass
from relayd.store.connection import Connection
from relayd.store.directory import SendingDomain, SendingMailbox

# What waits beyond this makes no difference to who sends next.
MOST_WAITING = 2000


@dataclass(frozen=True, slots=True)
class SendingPool:
    """A living pool."""

    id: UUID
    name: str
    client: str
    may_rewrite_from: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A mailbox that a pool may send from, and how it stands for either class of mail."""

    pool_id: UUID
    mailbox: SendingMailbox
    transactional: Standing
    bulk: Standing

    def standing(self, mail_class: MailClass) -> Standing:
        """How it stands for mail of this class."""
        return self.bulk if mail_class is MailClass.BULK else self.transactional


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member in one of its lanes, to which mail that waits elsewhere may be moved."""

    mailbox_id: UUID
    address: str
    standing: Standing


# Index: mailbox_pools_pkey.
FIND_POOL = """
SELECT p.id, p.name, c.name AS client, p.may_rewrite_from
  FROM mailbox_pools p JOIN clients c ON c.id = p.client_id
 WHERE p.id = $1 AND p.deleted_at IS NULL
"""

# Index: mailbox_pools_name.
FIND_POOL_ID = "SELECT id FROM mailbox_pools WHERE client_id = $1 AND name = $2 AND deleted_at IS NULL"

# Members of pools $1 that are neither removed nor suspended, a row for each of their lanes of classes $3 and of the way
# that route $4 and share $5 are (both NULL: home). Budgets are read once, through the view that is right at any
# instant; what waits is counted up to $2.
# Indexes: mailbox_pool_members_pool_id_mailbox_id_key, mailbox_lanes_mailbox_id_class_key, budgets_pkey,
# email_queue_due.
STANDINGS = """
WITH lane AS MATERIALIZED (
  SELECT p.pool_id, l.id, l.mailbox_id, l.class, l.upstream_id, l.held, l.blocked_until, l.budget_ids
    FROM mailbox_pool_members p
    JOIN mailbox_lanes l ON l.mailbox_id = p.mailbox_id AND l.class = ANY($3::text[])
     AND l.route_id IS NOT DISTINCT FROM $4::uuid AND l.share_id IS NOT DISTINCT FROM $5::uuid
   WHERE p.pool_id = ANY($1::uuid[])),
usage AS MATERIALIZED (
  SELECT budget_id, unit_limit, bulk_limit, used FROM budget_usage
   WHERE budget_id IN (SELECT unnest(budget_ids) FROM lane))
SELECT lane.pool_id, lane.class, lane.id AS lane_id,
       NOT lane.held AND lane.blocked_until <= relayd_now() AND u.is_active AND u.paused_at IS NULL
         AND k.upstream_id IS NULL AS may_send,
       budget.units_left, budget.unit_limit, COALESCE(budget.used_share, 0) AS used_share, waiting.entries,
       m.id, m.client_id, m.email_address, m.mail_class, m.eight_bit, m.spam_rate, m.bounce_rate,
       d.id AS domain_id, d.client_id AS domain_client_id, d.domain, dsn.id AS dsn_lane_id
  FROM lane
  JOIN email_mailboxes m ON m.id = lane.mailbox_id AND m.deleted_at IS NULL AND m.status <> 'suspended'
  JOIN email_domains d ON d.id = m.domain_id AND d.status IN ('pending', 'active')
  JOIN clients c ON c.id = m.client_id AND c.status = 'active'
  JOIN email_configurations u ON u.id = lane.upstream_id
  LEFT JOIN upstream_breakers k ON k.upstream_id = u.id AND k.state <> 'closed'
  JOIN mailbox_lanes dsn ON dsn.mailbox_id = m.id AND dsn.class = 'dsn' AND dsn.is_home
  CROSS JOIN LATERAL (
    SELECT min(most - used) AS units_left, max(used / GREATEST(most, 1)::float8) AS used_share,
           (array_agg(most ORDER BY used / GREATEST(most, 1)::float8 DESC))[1] AS unit_limit
      FROM (SELECT used, CASE lane.class WHEN 'bulk' THEN bulk_limit ELSE unit_limit END AS most
              FROM usage WHERE budget_id = ANY(lane.budget_ids)) fits
     WHERE most IS NOT NULL) budget
  CROSS JOIN LATERAL (
    SELECT count(*) AS entries
      FROM (SELECT FROM email_queue q WHERE q.lane_id = lane.id AND q.status = 'queued' LIMIT $2) capped) waiting
 ORDER BY lane.pool_id, lane.mailbox_id, lane.class
"""


async def find_pool(connection: Connection, pool_id: UUID) -> SendingPool | None:
    """The living pool of that id."""
    row = await connection.fetchrow(FIND_POOL, pool_id)
    return SendingPool(**dict(row)) if row else None


async def find_pool_id(connection: Connection, client_id: UUID, name: str) -> UUID | None:
    """The client's living pool of that name."""
    found: UUID | None = await connection.fetchval(FIND_POOL_ID, client_id, name)
    return found


async def members(connection: Connection, pool_ids: Sequence[UUID]) -> list[Member]:
    """The members of these pools, by pool, but for those that are removed or suspended."""
    rows = await connection.fetch(STANDINGS, pool_ids, MOST_WAITING, [LaneClass.BULK, LaneClass.MAIL], None, None)
    # Two rows a member: bulk comes first.
    return [_member(bulk, mail) for bulk, mail in zip(rows[::2], rows[1::2], strict=True)]


async def on_route(
    connection: Connection, pool_id: UUID, lane_class: LaneClass, route_id: UUID, share_id: UUID | None
) -> list[Candidate]:
    """The members that have a lane of that route and share, and how they stand there."""
    rows = await connection.fetch(STANDINGS, [pool_id], MOST_WAITING, [lane_class], route_id, share_id)
    return [Candidate(row["id"], row["email_address"], _standing(row)) for row in rows]


def _member(bulk: asyncpg.Record, mail: asyncpg.Record) -> Member:
    assert (bulk["class"], mail["class"], bulk["id"]) == ("bulk", "mail", mail["id"])
    mailbox = SendingMailbox(
        id=mail["id"],
        client_id=mail["client_id"],
        domain=SendingDomain(mail["domain_id"], mail["domain_client_id"], mail["domain"], may_send=True),
        address=Address.stored(mail["email_address"]),
        mail_lane_id=mail["lane_id"],
        bulk_lane_id=bulk["lane_id"],
        dsn_lane_id=mail["dsn_lane_id"],
        is_limited=mail["unit_limit"] is not None,
        mail_class=MailClass(mail["mail_class"]),
        refuses=None,
        converts_eight_bit=mail["eight_bit"] == "convert",
    )
    return Member(mail["pool_id"], mailbox, _standing(mail), _standing(bulk))


def _standing(row: asyncpg.Record) -> Standing:
    return Standing(
        lane_id=row["lane_id"],
        may_send=row["may_send"],
        left=row["units_left"],
        limit=row["unit_limit"],
        used_share=row["used_share"],
        waiting=row["entries"],
        spam_rate=row["spam_rate"],
        bounce_rate=row["bounce_rate"],
    )
