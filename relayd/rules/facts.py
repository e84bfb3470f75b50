"""What there is to know about a queue entry before one can say why it waits. Gathered by `store.explanation`."""

from dataclasses import dataclass
from datetime import datetime

from relayd.rules.budget import Budget
from relayd.rules.estimate import Estimate
from relayd.rules.states import LaneClass, PendingReason, Status
from relayd.rules.suppression import SuppressionReason


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """The entry itself and its place in its line."""

    entry_id: str
    status: Status
    reason: str | None
    pending_reason: PendingReason | None
    retry_count: int
    max_retries: int
    next_attempt_at: datetime
    claimed_by: str | None
    attempt_started_at: datetime | None
    lease_expires_at: datetime | None
    ended_at: datetime | None
    provider_message_id: str | None
    claim_upstream: str | None
    last_change_at: datetime  # when it came into its state, as far as its row tells
    last_actor: str | None  # who last operated on it
    ahead: int  # queued entries of its lane that go first; of a scheduled one all that are queued
    ahead_is_capped: bool
    look_at: datetime | None = None  # in doubt: when relayd looks at the upstream
    looks: int = 0  # that told nothing


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """The line that it waits in."""

    lane_class: LaneClass
    blocked_until: datetime | None
    blocked_reason: str | None


@dataclass(frozen=True, slots=True)
class MailboxFacts:
    """Who sends it."""

    address: str
    status: str
    status_reason: str | None
    is_removed: bool
    domain: str
    domain_status: str
    client: str
    client_status: str


@dataclass(frozen=True, slots=True)
class BreakerFacts:
    """An upstream that is not used. `retry_at` None: until somebody closes its breaker."""

    upstream: str
    reason: str | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class FailureFacts:
    """Attempts in a row that an upstream failed."""

    upstream: str
    count: int
    latest: str
    latest_at: datetime


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Where it goes next, and whether anything goes at all."""

    upstream: str
    upstream_is_active: bool
    upstream_paused_at: datetime | None
    upstream_paused_reason: str | None
    all_paused_at: datetime | None
    all_paused_reason: str | None
    grant_died_at: datetime | None = None
    grant_error: str | None = None
    route: str | None = None  # the route that says so; None: its mailbox's list
    preferred: str | None = None  # where it would go if all worked, if that is another upstream
    broken: BreakerFacts | None = None  # why the upstream, or the preferred one, is not used
    failures: FailureFacts | None = None  # of the upstream that failed it last, or that it waits for
    obstacles: tuple[str, ...] = ()  # why the others of its list cannot take over


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """Every budget that it has to fit, and when it leaves by them all. `sharing`: others that wait for the same one."""

    budgets: tuple[Budget, ...]
    estimate: Estimate
    sharing: int

    @property
    def binding(self) -> Budget | None:
        """The one that it waits for."""
        return next((budget for budget in self.budgets if budget.id == self.estimate.held_by), None)


@dataclass(frozen=True, slots=True)
class SuppressionFacts:
    """The recipient's line on the client's suppression list, in force now. `expires_at` None: until it is removed."""

    reason: SuppressionReason
    since: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the verdict rests on."""

    entry: EntryFacts
    lane: LaneFacts
    mailbox: MailboxFacts
    route: RouteFacts
    limits: LimitFacts
    recipient: str = ""
    suppression: SuppressionFacts | None = None
