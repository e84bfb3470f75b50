"""Copy what the ledger says into the columns that reports read, where a window has turned and nothing was sent since.

Each step is two statements: rows are locked first, so that the second sees what whoever held them has done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Mirror:
    """`lock` picks up to $2 rows after id $1 that differ, `copy` brings those of the ids $1 up to date."""

    lock: str
    copy: str


# Rows that somebody holds are left for the next round. Reads all budgets. Index: budgets_owner_id_kind_key.
LOCK_MAILBOXES = """
SELECT m.id FROM email_mailboxes m JOIN budget_usage u ON u.owner_id = m.id AND u.kind = 'mailbox_day'
 WHERE m.id > $1
   AND (m.current_daily_sends, m.window_ends_at) IS DISTINCT FROM (u.used, COALESCE(u.turns_at, 'infinity'))
 ORDER BY m.id LIMIT $2 FOR NO KEY UPDATE OF m SKIP LOCKED
"""

# Index: email_mailboxes_pkey.
COPY_MAILBOXES = """
UPDATE email_mailboxes m SET current_daily_sends = u.used, window_ends_at = COALESCE(u.turns_at, 'infinity')
  FROM budget_usage u WHERE m.id = ANY($1::uuid[]) AND u.owner_id = m.id AND u.kind = 'mailbox_day'
"""

# What each domain has used; one without a budget of its own, what its mailboxes have. Index: email_mailboxes_domain.
_DOMAIN = """
WITH usage AS (SELECT d.id, COALESCE(own.used, boxes.used, 0) AS used
  FROM email_domains d
  LEFT JOIN budget_usage own ON own.owner_id = d.id AND own.kind = 'domain_day'
  LEFT JOIN (SELECT m.domain_id, sum(u.used)::int AS used
               FROM email_mailboxes m JOIN budget_usage u ON u.owner_id = m.id AND u.kind = 'mailbox_day'
              GROUP BY 1) boxes ON boxes.domain_id = d.id)
"""

# Index: email_domains_pkey.
LOCK_DOMAINS = (
    _DOMAIN
    + """
SELECT d.id FROM email_domains d JOIN usage u ON u.id = d.id
 WHERE d.id > $1 AND d.current_daily_sends <> u.used
 ORDER BY d.id LIMIT $2 FOR NO KEY UPDATE OF d SKIP LOCKED
"""
)

# Index: email_domains_pkey.
COPY_DOMAINS = (
    _DOMAIN
    + """
UPDATE email_domains d SET current_daily_sends = u.used FROM usage u
 WHERE u.id = d.id AND d.id = ANY($1::uuid[])
"""
)

# What each client has used; one without a budget of its own, what its mailboxes have. Index: email_mailboxes_client.
_CLIENT = """
WITH usage AS (SELECT c.id, COALESCE(own.used, boxes.used, 0) AS used
  FROM clients c
  LEFT JOIN budget_usage own ON own.owner_id = c.id AND own.kind = 'client_day'
  LEFT JOIN (SELECT m.client_id, sum(u.used)::int AS used
               FROM email_mailboxes m JOIN budget_usage u ON u.owner_id = m.id AND u.kind = 'mailbox_day'
              GROUP BY 1) boxes ON boxes.client_id = c.id)
"""

# Index: clients_pkey.
LOCK_CLIENTS = (
    _CLIENT
    + """
SELECT c.id FROM clients c JOIN usage u ON u.id = c.id
 WHERE c.id > $1 AND c.current_daily_sends <> u.used
 ORDER BY c.id LIMIT $2 FOR NO KEY UPDATE OF c SKIP LOCKED
"""
)

# Index: clients_pkey.
COPY_CLIENTS = (
    _CLIENT
    + """
UPDATE clients c SET current_daily_sends = u.used FROM usage u
 WHERE u.id = c.id AND c.id = ANY($1::uuid[])
"""
)

# What a quota's columns should say.
_QUOTA = """
WITH usage AS (SELECT g.id, COALESCE(d.used, 0) AS daily_used, d.turns_at AS daily_reset_at,
       COALESCE(h.used, 0) AS hourly_used, h.turns_at AS hourly_reset_at,
       COALESCE(d.used >= d.unit_limit, false) OR COALESCE(h.used >= h.unit_limit, false) AS is_exceeded
  FROM google_workspace_quota g
  LEFT JOIN budget_usage d ON d.owner_id = g.id AND d.kind = 'provider_day'
  LEFT JOIN budget_usage h ON h.owner_id = g.id AND h.kind = 'provider_hour')
"""

# Index: google_workspace_quota_pkey.
LOCK_QUOTAS = (
    _QUOTA
    + """
SELECT g.id FROM google_workspace_quota g JOIN usage u ON u.id = g.id
 WHERE g.id > $1
   AND (g.daily_used, g.daily_reset_at, g.hourly_used, g.hourly_reset_at, g.is_exceeded)
       IS DISTINCT FROM (u.daily_used, u.daily_reset_at, u.hourly_used, u.hourly_reset_at, u.is_exceeded)
 ORDER BY g.id LIMIT $2 FOR NO KEY UPDATE OF g SKIP LOCKED
"""
)

# exceeded_at is when it was found spent; without that there is none. Index: google_workspace_quota_pkey.
COPY_QUOTAS = (
    _QUOTA
    + """
UPDATE google_workspace_quota g
   SET daily_used = u.daily_used, daily_reset_at = u.daily_reset_at, hourly_used = u.hourly_used,
       hourly_reset_at = u.hourly_reset_at, is_exceeded = u.is_exceeded,
       exceeded_at = CASE WHEN u.is_exceeded THEN COALESCE(g.exceeded_at, relayd_now()) END
  FROM usage u WHERE u.id = g.id AND g.id = ANY($1::uuid[])
"""
)

MIRRORS = (
    Mirror(LOCK_MAILBOXES, COPY_MAILBOXES),
    Mirror(LOCK_DOMAINS, COPY_DOMAINS),
    Mirror(LOCK_CLIENTS, COPY_CLIENTS),
    Mirror(LOCK_QUOTAS, COPY_QUOTAS),
)


async def copy(connection: Connection, mirror: Mirror, *, after: UUID, most: int) -> Sequence[UUID]:
    """Bring up to `most` rows after that id up to date, and say which; none when all is done.

    Waits for nobody, leaves no audit row and no updated_at. Call inside a transaction.
    """
    ids = [row["id"] for row in await connection.fetch(mirror.lock, after, most)]
    if ids:
        await connection.execute(mirror.copy, ids)
    return ids
