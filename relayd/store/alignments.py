"""Whether mail of a domain would still be its own to receivers if it came through an upstream: what DNS said last."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg

from relayd.rules.alignment import Sending
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Pair:
    """A domain and an upstream that its mail may come to leave through, with what a check has to know of both."""

    domain_id: UUID
    upstream_id: UUID
    sending: Sending


# Pairs in use: of lists, and of the mailboxes that have lanes of a route or that it names. $1 those of one mailbox, $2
# of one route, whoever's mail it may be, NULL: of all; $3 checked longer ago, those that never were first; $4 how many.
# Indexes: mailbox_upstreams_mailbox_id_upstream_id_key, mail_route_upstreams_route_id_upstream_id_key,
# mailbox_lanes_route, upstream_alignments_pkey, dkim_keys_domain_id_selector_key.
DUE = """
WITH used AS (
  SELECT x.mailbox_id, x.upstream_id FROM mailbox_upstreams x
   WHERE $2::uuid IS NULL AND ($1::uuid IS NULL OR x.mailbox_id = $1)
  UNION
  SELECT l.mailbox_id, x.upstream_id
    FROM mail_route_upstreams x JOIN mailbox_lanes l ON l.route_id = x.route_id
   WHERE $1::uuid IS NULL AND ($2::uuid IS NULL OR x.route_id = $2)
  UNION
  SELECT r.mailbox_id, x.upstream_id
    FROM mail_route_upstreams x JOIN mail_routes r ON r.id = x.route_id
   WHERE r.mailbox_id IS NOT NULL AND $1::uuid IS NULL AND ($2::uuid IS NULL OR x.route_id = $2)
  UNION
  SELECT m.id, x.upstream_id
    FROM mail_route_upstreams x JOIN mail_routes r ON r.id = x.route_id
    JOIN email_mailboxes m ON r.mailbox_id IS NULL AND (r.client_id IS NULL OR m.client_id = r.client_id)
   WHERE x.route_id = $2),
pair AS (
  SELECT DISTINCT m.domain_id, used.upstream_id FROM used JOIN email_mailboxes m ON m.id = used.mailbox_id
   WHERE m.deleted_at IS NULL)
SELECT pair.domain_id, pair.upstream_id, d.domain, u.provider_type, u.mode, u.dialect, u.smtp_host,
       host(u.source_address) AS source_address, u.spf_include, u.dkim,
       keys.selectors, keys.records
  FROM pair
  JOIN email_domains d ON d.id = pair.domain_id
  CROSS JOIN LATERAL (
    SELECT COALESCE(array_agg(selector ORDER BY id), '{}') AS selectors,
           COALESCE(array_agg(record_value ORDER BY id), '{}') AS records
      FROM dkim_keys k WHERE k.domain_id = d.id AND k.status = 'active') keys
  JOIN email_configurations u ON u.id = pair.upstream_id AND u.deleted_at IS NULL
  LEFT JOIN upstream_alignments a ON a.domain_id = pair.domain_id AND a.upstream_id = pair.upstream_id
 WHERE a.checked_at IS NULL OR a.checked_at < u.updated_at
    OR a.checked_at < relayd_now() - LEAST($3::interval, CASE WHEN a.is_aligned IS NULL THEN interval '1 minute' END)
 ORDER BY a.checked_at NULLS FIRST LIMIT $4
"""

# $3 NULL: DNS did not answer, and what it said before holds. Index: upstream_alignments_pkey.
PUT = """
INSERT INTO upstream_alignments AS a (domain_id, upstream_id, client_id, is_aligned, why, checked_at)
SELECT d.id, $2, d.client_id, $3::boolean, $4, relayd_now() FROM email_domains d WHERE d.id = $1
ON CONFLICT (domain_id, upstream_id) DO UPDATE
   SET is_aligned = COALESCE($3::boolean, a.is_aligned), checked_at = EXCLUDED.checked_at,
       why = CASE WHEN $3::boolean IS NULL AND a.is_aligned IS NOT NULL THEN a.why ELSE EXCLUDED.why END
"""


async def due(
    connection: Connection,
    *,
    older_than: timedelta,
    limit: int,
    mailbox_id: UUID | None = None,
    route_id: UUID | None = None,
) -> list[Pair]:
    """Pairs to check, those that never were first."""
    rows = await connection.fetch(DUE, mailbox_id, route_id, older_than, limit)
    return [_pair(row) for row in rows]


async def put(connection: Connection, pair: Pair, is_aligned: bool | None, why: str) -> None:
    """What a check has found; None: nothing, DNS did not answer."""
    await connection.execute(PUT, pair.domain_id, pair.upstream_id, is_aligned, why[:1000])


def _pair(row: asyncpg.Record) -> Pair:
    sending = Sending(
        domain=row["domain"],
        keys=tuple(zip(row["selectors"], row["records"], strict=True)),
        provider=row["provider_type"],
        mode=row["mode"],
        dialect=row["dialect"],
        host=row["smtp_host"],
        source_address=row["source_address"],
        spf_include=row["spf_include"],
        dkim=row["dkim"],
    )
    return Pair(row["domain_id"], row["upstream_id"], sending)
