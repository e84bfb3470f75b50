"""Entries that were tried long enough, and whose upstream is not used now: nobody else would give them up."""

from dataclasses import dataclass

from relayd.store.connection import Connection
from relayd.store.leases import LapsedClaim

# An upstream that has only just failed may be back in a moment, for one more attempt.
OPEN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Overdue:
    """Such an entry as its last claim left it, and why it still waits."""

    claim: LapsedClaim
    reason: str


# $1 seconds after the first attempt, $3 seconds for which nobody may have tried. Not what waits for a limit, a pause or
# an operator: its time is not over. What is older than they are and still waits is little.
# Indexes: email_queue_live, mailbox_lanes_pkey, upstream_breakers_pkey, email_configurations_pkey.
OVERDUE = """
SELECT q.id, q.fence, q.first_attempt_at, q.retry_count, q.max_retries, q.message_id, q.client_id, q.mailbox_id,
       q.recipient_address, u.name, u.provider_type, u.on_uncertain, b.reason
  FROM email_queue q
  JOIN mailbox_lanes l ON l.id = q.lane_id AND NOT l.held AND l.blocked_until <= relayd_now()
  JOIN upstream_breakers b ON b.upstream_id = l.upstream_id AND b.state <> 'closed'
                          AND b.opened_at < relayd_now() - make_interval(secs => $3)
  JOIN email_configurations u ON u.id = l.upstream_id AND u.paused_at IS NULL
  JOIN relayd_state s ON s.paused_at IS NULL
 WHERE q.status = 'queued' AND (q.status IN ('pending', 'queued', 'sending')) IS TRUE
   AND q.created_at < relayd_now() - make_interval(secs => $1)
   AND q.first_attempt_at < relayd_now() - make_interval(secs => $1) AND q.next_attempt_at <= relayd_now()
 ORDER BY q.created_at LIMIT $2
"""


async def overdue(connection: Connection, *, give_up_seconds: float, limit: int) -> list[Overdue]:
    """The oldest of them."""
    rows = await connection.fetch(OVERDUE, give_up_seconds, limit, OPEN_SECONDS)
    return [
        Overdue(
            LapsedClaim(
                entry_id=row["id"],
                fence=row["fence"],
                started_at=row["first_attempt_at"],
                first_attempt_at=row["first_attempt_at"],
                retry_count=row["retry_count"],
                max_retries=row["max_retries"],
                queue_id=row["message_id"],
                client_id=row["client_id"],
                mailbox_id=row["mailbox_id"],
                recipient=row["recipient_address"],
                on_uncertain=row["on_uncertain"],
                provider=row["provider_type"],
                claimed_by="",
            ),
            f"upstream {row['name']} is not used: {row['reason'] or 'its breaker is open'}",
        )
        for row in rows
    ]
