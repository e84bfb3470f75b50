"""Gather what `rules.explain` rests on: an entry, its place in its line, and everything that may stand in its way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.rules.estimate import Outlook
from relayd.rules.facts import (
    BreakerFacts,
    EntryFacts,
    Facts,
    FailureFacts,
    LaneFacts,
    LimitFacts,
    MailboxFacts,
    RouteFacts,
    SuppressionFacts,
)
from relayd.rules.states import LaneClass, PendingReason, Status
from relayd.rules.suppression import SuppressionReason
from relayd.store import outlook, suppressions, ways
from relayd.store.connection import Connection
from relayd.store.outlook import LaneOutlook
from relayd.store.suppressions import Suppression

# Counting on would cost more than the difference is worth.
MOST_AHEAD = 100_000
# Other lanes that share a limit, and how much of what waits in each.
RIVALS = 100
RIVAL_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Explained:
    """One entry's facts, with the names to show them under."""

    entry_id: UUID
    queue_id: UUID
    recipient: str
    now: datetime  # the database's, which decides what is due
    facts: Facts


# $1 entry ids, $2 how far to count. Indexes: email_queue_pkey; email_queue_due for the count;
# email_delivery_logs_entry for the actor; oauth_tokens_dead.
FACTS = """
SELECT clock.now, q.id AS entry_id, q.message_id AS queue_id, q.recipient_address AS recipient,
       q.mailbox_id,
       q.status, q.reason,
       q.pending_reason, q.retry_count, q.max_retries, q.next_attempt_at, q.claimed_by, q.attempt_started_at,
       q.lease_expires_at, q.provider_message_id, q.updated_at, q.look_at,
       q.looks, went.name AS claim_upstream,
       CASE q.status WHEN 'sent' THEN q.sent_at WHEN 'failed' THEN q.failed_at ELSE q.bounced_at END AS ended_at,
       (SELECT g.actor FROM email_delivery_logs g WHERE g.entry_id = q.id AND g.actor IS NOT NULL
         ORDER BY g.id DESC LIMIT 1) AS last_actor,
       CASE WHEN q.status = 'queued' OR q.pending_reason = 'scheduled' THEN
         (SELECT count(*) FROM (
            SELECT FROM email_queue x WHERE x.lane_id = q.lane_id AND x.status = 'queued'
               AND (x.next_attempt_at, x.id) < (q.next_attempt_at, q.id) LIMIT $2) a) ELSE 0 END AS ahead,
       q.lane_id, l.class, NULLIF(l.blocked_until, '-infinity') AS blocked_until, l.blocked_reason,
       m.email_address, m.status AS mailbox_status, m.status_reason, m.deleted_at IS NOT NULL AS mailbox_is_removed,
       d.domain, d.status AS domain_status, c.name AS client, c.status AS client_status,
       goes.name AS upstream, goes.is_active AND goes.deleted_at IS NULL AS upstream_is_active,
       goes.paused_at AS upstream_paused_at, goes.paused_reason AS upstream_paused_reason,
       s.paused_at AS all_paused_at, s.paused_reason AS all_paused_reason, r.name AS route, likes.name AS preferred,
       k.upstream_id IS NOT NULL AS is_broken, k.reason AS broken_reason,
       failed.name AS failed_upstream, f.consecutive_failures, f.last_failure, f.last_failed_at, l.route_id,
       NULLIF(k.retry_at, 'infinity') AS broken_retry_at, dead.died_at AS grant_died_at, dead.error AS grant_error
  FROM (SELECT relayd_now() AS now) clock
  CROSS JOIN relayd_state s
  CROSS JOIN unnest($1::uuid[]) WITH ORDINALITY AS t (id, place)
  JOIN email_queue q ON q.id = t.id
  JOIN mailbox_lanes l ON l.id = q.lane_id
  JOIN email_mailboxes m ON m.id = q.mailbox_id
  JOIN email_domains d ON d.id = m.domain_id
  JOIN clients c ON c.id = q.client_id
  JOIN email_configurations goes ON goes.id = l.upstream_id
  JOIN email_configurations likes ON likes.id = l.preferred_id
  LEFT JOIN mail_routes r ON r.id = l.route_id AND r.deleted_at IS NULL
  LEFT JOIN upstream_breakers k ON k.upstream_id = l.preferred_id AND k.state <> 'closed'
  LEFT JOIN email_configurations went ON went.id = q.upstream_id
  LEFT JOIN upstream_breakers f ON f.upstream_id = COALESCE(q.upstream_id, l.preferred_id)
   AND f.consecutive_failures > 0 AND f.last_failed_at IS NOT NULL
  LEFT JOIN email_configurations failed ON failed.id = f.upstream_id
  LEFT JOIN LATERAL (
       SELECT o.died_at, o.error FROM oauth_tokens o
        WHERE o.upstream_id = goes.id AND o.died_at IS NOT NULL AND o.subject IN ('', lower(m.email_address))
          AND NOT EXISTS (SELECT FROM oauth_tokens other
                           WHERE other.upstream_id = o.upstream_id AND other.subject = o.subject
                             AND other.died_at IS NULL AND other.expires_at > relayd_now())
        LIMIT 1) dead ON true
 ORDER BY t.place
"""


async def gather(
    connection: Connection, entry_ids: Sequence[UUID], terms: outlook.Terms, *, most_ahead: int = MOST_AHEAD
) -> list[Explained]:
    """The facts of each of these entries, in the order asked."""
    rows = await connection.fetch(FACTS, entry_ids, most_ahead)
    reach = outlook.Reach(entries=most_ahead, rivals=RIVALS, rival_entries=RIVAL_ENTRIES)
    lanes = {
        lane_id: await outlook.find(connection, lane_id, terms, reach) for lane_id in {row["lane_id"] for row in rows}
    }
    # One for all entries of a lane: each goes on from where the one before has come to.
    outlooks = {lane_id: lane.outlook() for lane_id, lane in lanes.items()}
    listed = await suppressions.of_entries(connection, entry_ids)
    obstacles = {
        row["lane_id"]: await _obstacles(connection, row)
        for row in rows
        if row["is_broken"] or row["failed_upstream"] is not None
    }
    return [
        _explained(
            row,
            lanes[row["lane_id"]],
            outlooks[row["lane_id"]],
            most_ahead,
            listed.get(row["entry_id"]),
            obstacles.get(row["lane_id"], ()),
        )
        for row in rows
    ]


async def _obstacles(connection: Connection, row: asyncpg.Record) -> tuple[str, ...]:
    """Why the upstreams of the lane's list that do not fail could not take over."""
    listed = await ways.standings(connection, row["mailbox_id"], row["route_id"])
    return tuple(text for each in listed[1:] if each.name != row["failed_upstream"] and (text := each.obstacle))


def _explained(
    row: asyncpg.Record,
    lane: LaneOutlook,
    course: Outlook,
    most_ahead: int,
    listed: Suppression | None,
    obstacles: tuple[str, ...],
) -> Explained:
    return Explained(
        entry_id=row["entry_id"],
        queue_id=row["queue_id"],
        recipient=row["recipient"],
        now=row["now"],
        facts=Facts(
            entry=_entry(row, most_ahead),
            lane=LaneFacts(LaneClass(row["class"]), row["blocked_until"], row["blocked_reason"]),
            mailbox=_mailbox(row),
            route=replace(_route(row), obstacles=obstacles),
            limits=_limits(row["ahead"], lane, course),
            recipient=row["recipient"],
            suppression=SuppressionFacts(SuppressionReason(listed.reason), listed.created_at, listed.expires_at)
            if listed
            else None,
        ),
    )


def _route(row: asyncpg.Record) -> RouteFacts:
    failures = None
    if row["failed_upstream"] is not None:
        failures = FailureFacts(
            row["failed_upstream"], row["consecutive_failures"], row["last_failure"], row["last_failed_at"]
        )
    broken = BreakerFacts(row["preferred"], row["broken_reason"], row["broken_retry_at"]) if row["is_broken"] else None
    return RouteFacts(
        upstream=row["upstream"],
        upstream_is_active=row["upstream_is_active"],
        upstream_paused_at=row["upstream_paused_at"],
        upstream_paused_reason=row["upstream_paused_reason"],
        all_paused_at=row["all_paused_at"],
        all_paused_reason=row["all_paused_reason"],
        grant_died_at=row["grant_died_at"],
        grant_error=row["grant_error"],
        route=row["route"],
        preferred=row["preferred"] if row["preferred"] != row["upstream"] else None,
        broken=broken,
        failures=failures,
    )


def _limits(ahead: int, lane: LaneOutlook, course: Outlook) -> LimitFacts:
    estimate = course.leaves(ahead)
    sharing = sum(rival.waiting > 0 and estimate.held_by in rival.budget_ids for rival in lane.rivals)
    return LimitFacts(tuple(lane.own_budgets), estimate, sharing)


def _entry(row: asyncpg.Record, most_ahead: int) -> EntryFacts:
    return EntryFacts(
        entry_id=str(row["entry_id"]),
        status=Status(row["status"]),
        reason=row["reason"],
        pending_reason=PendingReason(row["pending_reason"]) if row["pending_reason"] else None,
        retry_count=row["retry_count"],
        max_retries=row["max_retries"],
        next_attempt_at=row["next_attempt_at"],
        claimed_by=row["claimed_by"],
        attempt_started_at=row["attempt_started_at"],
        lease_expires_at=row["lease_expires_at"],
        ended_at=row["ended_at"],
        provider_message_id=row["provider_message_id"],
        claim_upstream=row["claim_upstream"],
        last_change_at=row["updated_at"],
        last_actor=row["last_actor"],
        ahead=row["ahead"],
        ahead_is_capped=row["ahead"] >= most_ahead,
        look_at=row["look_at"],
        looks=row["looks"],
    )


def _mailbox(row: asyncpg.Record) -> MailboxFacts:
    return MailboxFacts(
        address=row["email_address"],
        status=row["mailbox_status"],
        status_reason=row["status_reason"],
        is_removed=row["mailbox_is_removed"],
        domain=row["domain"],
        domain_status=row["domain_status"],
        client=row["client"],
        client_status=row["client_status"],
    )
