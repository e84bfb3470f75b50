"""What happens to messages from acceptance on. Metrics count these and the mail log writes them; nothing else does.

Labels that metrics count by are bounded: states, stages, upstream names. Texts are for the log alone.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from relayd.rules.news import Action
from relayd.rules.outcome import Stage
from relayd.rules.states import Status
from relayd.rules.suppression import SuppressionReason


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message was committed to the queue; its 250 may be said."""

    queue_id: UUID
    client: str
    mailbox: str
    reverse_path: str
    recipients: int
    size_octets: int
    message_id: str
    peer: str
    login: str | None
    protocol: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message was read and refused. `reason` is one of a fixed set of words."""

    client: str
    peer: str
    login: str | None
    reason: str
    reply: str
    detail: str


@dataclass(frozen=True, slots=True)
class Bounced:
    """A delivery status notification was queued. `action` is the gravest that it tells of."""

    queue_id: UUID
    about: UUID
    recipient: str
    action: Action


@dataclass(frozen=True, slots=True)
class RecipientDropped:
    """A recipient of a message just taken is suppressed: it was stored, ended at once, and gets nothing."""

    queue_id: UUID
    entry_id: UUID
    client: str
    recipient: str
    reason: str


@dataclass(frozen=True, slots=True)
class AddressesSuppressed:
    """Addresses went onto clients' suppression lists for what became of mail to them."""

    count: int
    reason: SuppressionReason


@dataclass(frozen=True, slots=True)
class BatchCommitted:
    """One transaction of a batched step (enqueue, claim, start, settle)."""

    step: str
    items: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The start of an attempt is durable; the transaction with the upstream begins."""

    queue_id: UUID
    entry_id: UUID
    recipient: str
    upstream: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt's outcome is settled."""

    queue_id: UUID
    entry_id: UUID
    recipient: str
    upstream: str
    provider: str
    outcome: str
    status: Status
    stage: Stage
    reason: str
    attempt: int
    next_attempt_at: datetime | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ClaimsReturned:
    """Claims went back into the queue without having been tried. `reason` is one of a fixed set of words."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class ClaimsInDoubt:
    """Attempts whose worker died in the middle: sent or not, nobody knows."""

    count: int


class WorkerEnd(StrEnum):
    """How a worker ended that was not told to."""

    EXIT = "exit"  # by itself, with a code
    SIGNAL = "signal"
    NOT_STARTED = "not_started"  # the system could not start its process
    NOT_READY = "not_ready"  # it did not become ready in time, and was killed
    SILENT = "silent"  # its event loop stood still, and it was killed


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker ended that was not told to; the supervisor starts another. `pid` is 0 if its process never started."""

    claimant: str
    pid: int
    end: WorkerEnd
    reason: str


@dataclass(frozen=True, slots=True)
class LogLinesDropped:
    """Lines of the log were lost because its reader did not keep up."""

    count: int


@dataclass(frozen=True, slots=True)
class StoreLost:
    """Postgres could not be used by a step."""

    step: str
    detail: str


@dataclass(frozen=True, slots=True)
class LimitReached:
    """A lane has come to one of its limits: its mail waits until then. `limit` is one of a fixed set of words."""

    mailbox: str
    lane: str
    limit: str
    until: datetime


@dataclass(frozen=True, slots=True)
class BreakerOpened:
    """An upstream is not used any more, or, `after_probe`, still not: one message tries it at `retry_at`."""

    upstream: str
    reason: str
    retry_at: datetime
    after_probe: bool


@dataclass(frozen=True, slots=True)
class BreakerClosed:
    """An upstream is used again."""

    upstream: str


RelayEvent = (
    Accepted
    | Rejected
    | Bounced
    | RecipientDropped
    | AddressesSuppressed
    | BatchCommitted
    | AttemptStarted
    | AttemptEnded
    | ClaimsReturned
    | ClaimsInDoubt
    | LimitReached
    | WorkerDied
    | LogLinesDropped
    | StoreLost
    | BreakerOpened
    | BreakerClosed
)
