"""Read the ledger: every budget as it stands at this instant. What changes it is the owner's row, by trigger."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.rules.budgets import BudgetKind, LimitWindow
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class BudgetRecord:
    """One budget. `whose`: the client, domain, mailbox or upstream that it limits; a mailbox's quota names both."""

    kind: BudgetKind
    whose: str
    client: str | None  # None: of an upstream that all share
    unit_limit: int | None  # None is unlimited, 0 is never
    bulk_limit: int | None
    used: int
    limit_window: LimitWindow
    time_zone: str
    turns_at: datetime | None  # rolling: when the next units come back, None if nothing is used


@dataclass(frozen=True, slots=True)
class Usage:
    """What has been used of a limit, and when some of it comes back; None where no limit counts."""

    used: int
    turns_at: datetime | None


# NULL: any. Of a mailbox those that its mail has to fit, of a client, a domain or an upstream those that are in it.
# Reads all budgets. Indexes: google_workspace_quota_pkey, email_mailboxes_pkey, mailbox_lanes_mailbox_id_class_key.
LIST = """
SELECT u.kind, concat_ws(' ', CASE WHEN u.kind = 'client_day' THEN c.name END, e.name,
                         COALESCE(m.email_address, d.domain)) AS whose,
       c.name AS client, u.unit_limit, u.bulk_limit, u.used,
       CASE WHEN u.is_rolling THEN 'rolling' ELSE 'calendar' END AS limit_window, u.time_zone, u.turns_at
  FROM budget_usage u
  LEFT JOIN clients c ON c.id = u.client_id
  LEFT JOIN google_workspace_quota g ON g.id = u.owner_id
  LEFT JOIN email_configurations e ON e.id = g.upstream_id
  LEFT JOIN email_mailboxes m ON m.id = COALESCE(g.mailbox_id, u.owner_id)
  LEFT JOIN email_domains d ON d.id = COALESCE(m.domain_id, u.owner_id)
 WHERE ($1::uuid IS NULL
        OR u.budget_id = ANY((SELECT budget_ids FROM mailbox_lanes
                               WHERE mailbox_id = $1 AND class = 'mail' AND is_home)::int[]))
   AND ($2::uuid IS NULL OR d.id = $2) AND ($3::uuid IS NULL OR u.client_id = $3)
   AND ($4::uuid IS NULL OR g.upstream_id = $4)
 ORDER BY array_position('{client_day,domain_day,mailbox_day,mailbox_hour,provider_day,provider_hour}', u.kind), whose
"""

# Of a client or a domain: by its own budget, or else what its mailboxes have used together.
# Indexes: budgets_owner_id_kind_key, email_mailboxes_client, email_mailboxes_domain.
USAGE = """
SELECT COALESCE(own.used, relayd_used_by($1, $1, NULL, NULL)) AS used, own.turns_at
  FROM (SELECT) AS one LEFT JOIN budget_usage own ON own.owner_id = $1
"""


async def living(
    connection: Connection,
    *,
    mailbox_id: UUID | None = None,
    domain_id: UUID | None = None,
    client_id: UUID | None = None,
    upstream_id: UUID | None = None,
) -> list[BudgetRecord]:
    """Budgets by kind and owner, narrowed by what is given."""
    return [
        BudgetRecord(
            kind=BudgetKind(row["kind"]),
            whose=row["whose"],
            client=row["client"],
            unit_limit=row["unit_limit"],
            bulk_limit=row["bulk_limit"],
            used=row["used"],
            limit_window=LimitWindow(row["limit_window"]),
            time_zone=row["time_zone"],
            turns_at=row["turns_at"],
        )
        for row in await connection.fetch(LIST, mailbox_id, domain_id, client_id, upstream_id)
    ]


async def usage(connection: Connection, owner_id: UUID) -> Usage:
    """What a client or a domain has used."""
    row = await connection.fetchrow(USAGE, owner_id)
    assert row is not None
    return Usage(**dict(row))
