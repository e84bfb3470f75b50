"""What providers allow (table google_workspace_quota): an upstream as a whole, or one mailbox of it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.errors import Refusal
from relayd.store import zones
from relayd.store.connection import Connection
from relayd.store.mailboxes import MailboxRecord
from relayd.store.upstreams import UpstreamRecord
from relayd.store.violations import explained


@dataclass(frozen=True, slots=True)
class QuotaTerms:
    """What an operator says. None: no such limit. The reserve is the part that bulk mail may not use."""

    daily_limit: int | None = None
    hourly_limit: int | None = None
    limit_window: str = "rolling"
    time_zone: str = "UTC"
    bulk_reserve_percent: int = 0


@dataclass(frozen=True, slots=True)
class QuotaRecord:
    """A quota and its use at this instant. `mailbox` None: of the upstream as a whole."""

    id: UUID
    upstream: str
    mailbox: str | None
    terms: QuotaTerms
    daily_used: int | None
    daily_turns_at: datetime | None
    hourly_used: int | None
    hourly_turns_at: datetime | None
    created_at: datetime
    updated_at: datetime


# Of one upstream, the whole first. Indexes: google_workspace_quota_of, budgets_owner_id_kind_key.
LIST = """
SELECT g.id, e.name AS upstream, m.email_address AS mailbox, g.daily_limit, g.hourly_limit, g.limit_window, g.time_zone,
       g.bulk_reserve_percent, d.used AS daily_used, d.turns_at AS daily_turns_at, h.used AS hourly_used,
       h.turns_at AS hourly_turns_at, g.created_at, g.updated_at
  FROM google_workspace_quota g
  JOIN email_configurations e ON e.id = g.upstream_id
  LEFT JOIN email_mailboxes m ON m.id = g.mailbox_id
  LEFT JOIN budget_usage d ON d.owner_id = g.id AND d.kind = 'provider_day'
  LEFT JOIN budget_usage h ON h.owner_id = g.id AND h.kind = 'provider_hour'
 WHERE g.upstream_id = $1
 ORDER BY lower(m.email_address) NULLS FIRST
"""

# Indexes: email_mailboxes_upstream, mailbox_upstreams_upstream, mail_route_upstreams_upstream, mailbox_lanes_route.
MAY_SEND = "SELECT $2 IN (SELECT relayd_senders_through($1))"

# Index: google_workspace_quota_of.
PUT = """
INSERT INTO google_workspace_quota AS g (client_id, upstream_id, mailbox_id, daily_limit, hourly_limit, limit_window,
                                         time_zone, bulk_reserve_percent)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (upstream_id, COALESCE(mailbox_id, '00000000-0000-0000-0000-000000000000')) DO UPDATE
   SET daily_limit = $4, hourly_limit = $5, limit_window = $6, time_zone = $7, bulk_reserve_percent = $8
"""

# Index: google_workspace_quota_of.
REMOVE = "DELETE FROM google_workspace_quota WHERE upstream_id = $1 AND mailbox_id IS NOT DISTINCT FROM $2"


async def of_upstream(connection: Connection, upstream_id: UUID) -> list[QuotaRecord]:
    """The upstream's own quota first, then those of its mailboxes by address."""
    return [
        QuotaRecord(
            id=row["id"],
            upstream=row["upstream"],
            mailbox=row["mailbox"],
            terms=QuotaTerms(
                row["daily_limit"],
                row["hourly_limit"],
                row["limit_window"],
                row["time_zone"],
                row["bulk_reserve_percent"],
            ),
            daily_used=row["daily_used"],
            daily_turns_at=row["daily_turns_at"],
            hourly_used=row["hourly_used"],
            hourly_turns_at=row["hourly_turns_at"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )
        for row in await connection.fetch(LIST, upstream_id)
    ]


async def find(connection: Connection, upstream: UpstreamRecord, mailbox: MailboxRecord | None) -> QuotaRecord | None:
    """The quota of this mailbox there, or of the upstream as a whole."""
    address = mailbox and mailbox.email_address
    return next((each for each in await of_upstream(connection, upstream.id) if each.mailbox == address), None)


async def put(
    connection: Connection, upstream: UpstreamRecord, mailbox: MailboxRecord | None, terms: QuotaTerms
) -> QuotaRecord:
    """Store what holds from now on; both are locked already. Raises Refusal for a mailbox that sends elsewhere."""
    if mailbox is not None and not await connection.fetchval(MAY_SEND, upstream.id, mailbox.id):
        raise Refusal(
            f"mailbox {mailbox.email_address} sends through {mailbox.upstream}, not through {upstream.name}",
            hint=f"relayd upstream quota {mailbox.upstream} --mailbox {mailbox.email_address} … limits it there",
        )
    await zones.check(connection, terms.time_zone)
    with explained(taken="there is such a quota already"):
        await connection.execute(
            PUT,
            mailbox.client_id if mailbox else upstream.client_id,
            upstream.id,
            mailbox and mailbox.id,
            terms.daily_limit,
            terms.hourly_limit,
            terms.limit_window,
            terms.time_zone,
            terms.bulk_reserve_percent,
        )
    stored = await find(connection, upstream, mailbox)
    assert stored is not None, "it has just been stored"
    return stored


async def remove(connection: Connection, upstream: UpstreamRecord, mailbox: MailboxRecord | None) -> bool:
    """Forget a quota; returns whether there was one."""
    return await connection.execute(REMOVE, upstream.id, mailbox and mailbox.id) != "DELETE 0"
