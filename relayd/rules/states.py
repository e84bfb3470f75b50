"""The states of a queue entry and the events of its log. `docs/states.md` draws them; the CHECKs hold them."""

from enum import StrEnum


class Status(StrEnum):
    """email_queue.status."""

    PENDING = "pending"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    BOUNCED = "bounced"
    SPAM = "spam"


LIVE = (Status.PENDING, Status.QUEUED, Status.SENDING)


class LogEvent(StrEnum):
    """email_delivery_logs.event, those that relayd writes today."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DEFERRED = "deferred"
    POSTPONED = "postponed"
    FAILED = "failed"
    BOUNCED = "bounced"
    UNCERTAIN = "uncertain"
    HELD = "held"
    RELEASED = "released"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    DELAYED = "delayed"
    RESOLVED = "resolved"
    SUPPRESSED = "suppressed"
    REROUTED = "rerouted"
    COMPLAINED = "complained"
    REPLIED = "replied"


class PendingReason(StrEnum):
    """Why a pending entry waits for somebody rather than for the clock."""

    SCHEDULED = "scheduled"
    HELD = "held"
    UNCERTAIN = "uncertain"


class LaneClass(StrEnum):
    """mailbox_lanes.class: `bulk` leaves a reserve of each budget to `mail`; `dsn` spends the provider's alone."""

    MAIL = "mail"
    BULK = "bulk"
    DSN = "dsn"
