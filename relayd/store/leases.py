"""Claims whose holder is gone: the lease has run out, or the worker is known to be dead."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.rules.doubt import Way

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class LapsedClaim:
    """A claim to take back. `started_at` None: untried; else in doubt."""

    entry_id: UUID
    fence: int
    started_at: datetime | None
    first_attempt_at: datetime | None
    retry_count: int
    max_retries: int
    queue_id: UUID
    client_id: UUID
    mailbox_id: UUID
    recipient: str
    on_uncertain: str
    provider: str
    claimed_by: str
    look_by: Way | None = None  # how it can be looked for
    reference: str | None = None  # under which its upstream knows it


# $1: claimants known to be dead, as LIKE patterns; $2: claimants known to live, exempt from those patterns.
# Index: email_queue_in_flight (what is in flight is always little). A node of an older version leaves look_by as the
# attempt before had it, which may have gone another way.
LAPSED = """
SELECT q.id, q.fence, q.attempt_started_at, q.first_attempt_at, q.retry_count, q.max_retries, q.message_id, q.client_id,
       q.mailbox_id, q.recipient_address, q.claimed_by, COALESCE(c.on_uncertain, 'hold') AS on_uncertain,
       COALESCE(c.provider_type, '') AS provider_type, q.provider_reference,
       CASE WHEN c.provider_type = 'google_workspace' THEN q.look_by END AS look_by
  FROM email_queue q LEFT JOIN email_configurations c ON c.id = q.upstream_id
 WHERE q.status = 'sending'
   AND (q.lease_expires_at <= relayd_now()
        OR (q.claimed_by LIKE ANY ($1::text[]) AND NOT q.claimed_by LIKE ANY ($2::text[])))
 ORDER BY q.id LIMIT $3
"""


async def lapsed(
    connection: Connection, *, dead: Sequence[str] = (), living: Sequence[str] = (), limit: int = 1000
) -> list[LapsedClaim]:
    """Claims to take back, the oldest first. `dead` and `living` are LIKE patterns over claimants."""
    rows = await connection.fetch(LAPSED, list(dead), list(living), limit)
    return [
        LapsedClaim(
            entry_id=row["id"],
            fence=row["fence"],
            started_at=row["attempt_started_at"],
            first_attempt_at=row["first_attempt_at"],
            retry_count=row["retry_count"],
            max_retries=row["max_retries"],
            queue_id=row["message_id"],
            client_id=row["client_id"],
            mailbox_id=row["mailbox_id"],
            recipient=row["recipient_address"],
            on_uncertain=row["on_uncertain"],
            provider=row["provider_type"],
            claimed_by=row["claimed_by"],
            look_by=Way(row["look_by"]) if row["look_by"] else None,
            reference=row["provider_reference"],
        )
        for row in rows
    ]
