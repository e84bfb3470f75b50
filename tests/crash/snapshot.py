"""What the database says of every entry at one moment, and of every mailbox's usage."""

from dataclasses import dataclass
from uuid import UUID

from relayd.store.connection import Connection


@dataclass(frozen=True)
class Entry:
    """One recipient. `doubts`: attempts logged as uncertain; `events`: what the log has of it, in order.

    `is_stuck`: it could go, its claim is nobody's any more, or its lane sleeps, and nothing has happened for a while.
    """

    entry_id: UUID
    queue_id: UUID
    recipient: str
    status: str
    is_stuck: bool
    mailbox: str
    reverse_path: str
    origin: str
    parent_id: UUID | None
    events: tuple[str, ...]
    doubts: int

    @property
    def is_live(self) -> bool:
        return self.status in ("pending", "queued", "sending")

    @property
    def has_failed(self) -> bool:
        """For good, with a row that says so."""
        return self.status in ("failed", "bounced") and self.status in self.events


@dataclass(frozen=True)
class Usage:
    """A mailbox's units in the window that began at `window_began_at` (Unix time; None: none is open)."""

    mailbox: str
    used: int
    limit: int | None
    window_began_at: float | None


@dataclass(frozen=True)
class Snapshot:
    entries: tuple[Entry, ...]
    usages: tuple[Usage, ...]


# $1: seconds for which something must have been due before its waiting is called stuck. A lane's due_at is left out on
# purpose: one that is wrong is what this looks for.
ENTRIES = """
SELECT q.id, q.message_id, q.recipient_address, q.status, x.email_address, m.reverse_path, m.origin, m.parent_id,
       log.events, log.doubts,
       (q.status = 'queued' AND q.next_attempt_at < relayd_now() - make_interval(secs => $1)
        AND l.blocked_until <= relayd_now() AND NOT l.held AND c.paused_at IS NULL AND s.paused_at IS NULL)
       OR (q.status = 'sending' AND q.lease_expires_at < relayd_now() - make_interval(secs => $1)) AS is_stuck
  FROM email_queue q
  JOIN messages m ON m.id = q.message_id
  JOIN email_mailboxes x ON x.id = q.mailbox_id
  JOIN mailbox_lanes l ON l.id = q.lane_id
  JOIN email_configurations c ON c.id = l.upstream_id
  CROSS JOIN relayd_state s
  LEFT JOIN LATERAL (
    SELECT array_agg(g.event ORDER BY g.id) AS events,
           -- Given up after a doubtful attempt: no reply's code, yet at the dot.
           count(*) FILTER (WHERE g.event = 'uncertain'
                            OR (g.event = 'failed' AND g.stage = 'dot' AND g.error_code IS NULL)) AS doubts
      FROM email_delivery_logs g WHERE g.entry_id = q.id) log ON true
"""

USAGES = """
SELECT email_address, used, daily_send_limit, extract(epoch FROM window_ends_at - interval '1 day')::float8 AS began_at
  FROM email_mailbox_usage
"""


async def take_snapshot(connection: Connection, *, patience_seconds: float = 5.0) -> Snapshot:
    """Everything in this database, as of one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        entries = await connection.fetch(ENTRIES, patience_seconds)
        usages = await connection.fetch(USAGES)
    return Snapshot(
        tuple(
            Entry(
                entry_id=row["id"],
                queue_id=row["message_id"],
                recipient=row["recipient_address"],
                status=row["status"],
                is_stuck=row["is_stuck"],
                mailbox=row["email_address"],
                reverse_path=row["reverse_path"],
                origin=row["origin"],
                parent_id=row["parent_id"],
                events=tuple(row["events"] or ()),
                doubts=row["doubts"],
            )
            for row in entries
        ),
        tuple(Usage(row["email_address"], row["used"], row["daily_send_limit"], row["began_at"]) for row in usages),
    )
