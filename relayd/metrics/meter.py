"""Count events. Labels are bounded: enumerations, fixed words, and names of which only so many are told apart.

In a worker the values lie in files under PROMETHEUS_MULTIPROC_DIR, which prometheus_client reads when it is imported:
the variable must be set before the process starts.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from relayd.metrics.files import count_in_allocated_files
from relayd.metrics.labels import BoundedNames
from relayd.metrics.report_meter import ReportMeter
from relayd.rules.control_events import SecretsResealed, TierRefused
from relayd.rules.events import Event
from relayd.rules.grant_events import GrantDied
from relayd.rules.news import Action
from relayd.rules.relay_events import (
    Accepted,
    AddressesSuppressed,
    AttemptEnded,
    AttemptStarted,
    BatchCommitted,
    Bounced,
    BreakerClosed,
    BreakerOpened,
    ClaimsInDoubt,
    ClaimsReturned,
    LimitReached,
    LogLinesDropped,
    RecipientDropped,
    Rejected,
    StoreLost,
    WorkerDied,
    WorkerEnd,
)
from relayd.rules.report_events import BouncedLater, Complained, InboxFailed, Replied, ReportRead
from relayd.rules.session_events import (
    Authenticated,
    AuthenticationFailed,
    Cap,
    Ending,
    PeerLinesSummed,
    RefusalsSummed,
    Refused,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TlsFailed,
)
from relayd.rules.suppression import SuppressionReason
from relayd.rules.upkeep_events import (
    DoubtLookedInto,
    LookResult,
    MailboxPaused,
    MailRerouted,
    PoolMailMoved,
    WarmUpTurned,
    Way,
)

MAX_UPSTREAMS = 100
# Words that our own code chooses; the cap is for the day on which one of them is not a word.
MAX_WORDS = 20

SIZE_BYTES = [float(1024 * 4**power) for power in range(9)]
ATTEMPT_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900]
SESSION_SECONDS = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 7200]
COMMIT_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
BATCH_ITEMS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]


class Meter:
    """The metrics that events make, in a registry. One a process: in a worker all instances share the files."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._upstreams = BoundedNames(MAX_UPSTREAMS)
        self._reasons = BoundedNames(MAX_WORDS)
        self._steps = BoundedNames(MAX_WORDS)
        self._mechanisms = BoundedNames(MAX_WORDS)
        self._outcomes = BoundedNames(MAX_WORDS)
        self._reports = ReportMeter(registry)
        self._create_session_metrics()
        self._create_relay_metrics()

    def record(self, event: Event) -> None:
        """Count one event."""
        match event:
            case Accepted():
                self._accepted.inc()
                self._recipients.inc(event.recipients)
                self._size.observe(event.size_octets)
            case AttemptStarted():
                self._in_flight.inc()
            case AttemptEnded():
                self._count_attempt(event)
            case BatchCommitted():
                step = self._steps.label(event.step)
                self._batch_items.labels(step).observe(event.items)
                self._commit_seconds.labels(step).observe(event.seconds)
            case SessionOpened():
                self._sessions_opened.inc()
                self._sessions_open.inc()
            case SessionClosed():
                self._sessions_closed.labels(event.reason).inc()
                self._sessions_open.dec()
                self._session_seconds.observe(event.seconds)
            case SessionRefused():
                self._sessions_refused.labels(event.reason).inc()
            case TlsFailed():
                self._tls_failures.inc()
            case RefusalsSummed() | PeerLinesSummed():
                self._log_lines_summed.inc(event.unlogged)
            case Refused():
                self._refusals.labels(event.stage, event.reason).inc()
            case Authenticated():
                self._authentications.labels(self._mechanisms.label(event.mechanism), "accepted").inc()
            case AuthenticationFailed():
                self._authentications.labels(self._mechanisms.label(event.mechanism), "refused").inc()
            case Rejected():
                self._rejected.labels(self._reasons.label(event.reason)).inc()
            case Bounced():
                self._bounces.labels(event.action).inc()
            case RecipientDropped():
                self._recipients_dropped.inc()
            case AddressesSuppressed():
                self._suppressions.labels(event.reason).inc(event.count)
            case ClaimsReturned():
                self._claims_returned.inc(event.count)
            case ClaimsInDoubt():
                self._claims_in_doubt.inc(event.count)
            case StoreLost():
                self._store_unavailable.labels(self._steps.label(event.step)).inc()
            case WorkerDied():
                self._worker_ends.labels(event.end).inc()
            case LogLinesDropped():
                self._log_lines_dropped.inc(event.count)
            case WarmUpTurned():
                self._warm_up_days.labels(event.way).inc()
            case MailboxPaused():
                self._mailboxes_paused.inc()
            case LimitReached():
                self._limits_reached.labels(self._reasons.label(event.limit)).inc()
            case TierRefused():
                self._tier_refusals.labels(self._reasons.label(event.noun)).inc()
            case SecretsResealed():
                self._secrets_resealed.inc(event.resealed)
            case ReportRead() | BouncedLater() | Complained() | Replied() | InboxFailed():
                self._reports.record(event)
            case PoolMailMoved():
                self._pool_moves.inc(event.entries)
            case GrantDied():
                self._grants_died.labels(self._upstreams.label(event.upstream)).inc()
            case DoubtLookedInto():
                self._looks.labels(event.conclusion).inc()
            case BreakerOpened():
                self._breaker_changes.labels(self._upstreams.label(event.upstream), "opened").inc()
            case BreakerClosed():
                self._breaker_changes.labels(self._upstreams.label(event.upstream), "closed").inc()
            case MailRerouted():
                self._rerouted.inc(event.entries)
            case _:
                assert_never(event)

    def _count_attempt(self, event: AttemptEnded) -> None:
        if not event.upstream:
            return  # a claim settled untried; ClaimsReturned has counted it
        upstream = self._upstreams.label(event.upstream)
        self._attempts.labels(upstream, self._outcomes.label(event.outcome), event.stage).inc()
        self._attempt_seconds.labels(upstream).observe(event.seconds)
        self._in_flight.dec()

    def _create_session_metrics(self) -> None:
        self._sessions_open = self._gauge("relayd_sessions_open", "SMTP sessions that are open")
        self._sessions_opened = self._counter("relayd_sessions_opened_total", "SMTP sessions greeted")
        self._sessions_closed = self._counter(
            "relayd_sessions_closed_total", "SMTP sessions over, by why they ended", reason=Ending
        )
        self._sessions_refused = self._counter(
            "relayd_sessions_refused_total", "Connections turned away before the greeting, by cap", cap=Cap
        )
        self._session_seconds = self._histogram(
            "relayd_session_seconds", "How long SMTP sessions lasted", SESSION_SECONDS
        )
        self._tls_failures = self._counter("relayd_tls_failures_total", "TLS handshakes of clients that failed")
        self._authentications = self._counter(
            "relayd_authentications_total", "AUTH tries decided, by mechanism and result", mechanism=(), result=()
        )
        self._refusals = self._counter(
            "relayd_refusals_total",
            "Commands and messages answered 4xx or 5xx, by stage and reason",
            stage=(),
            reason=(),
        )

    def _create_relay_metrics(self) -> None:
        self._accepted = self._counter("relayd_messages_accepted_total", "Messages durably queued and answered 250")
        self._recipients = self._counter("relayd_recipients_accepted_total", "Recipients of the messages accepted")
        self._size = self._histogram("relayd_message_size_bytes", "Size of the messages accepted", SIZE_BYTES)
        self._rejected = self._counter(
            "relayd_messages_rejected_total", "Messages read whole and refused, by reason", reason=()
        )
        self._bounces = self._counter(
            "relayd_bounces_total", "Delivery status notifications queued, by the gravest they tell of", action=Action
        )
        self._recipients_dropped = self._counter(
            "relayd_recipients_dropped_total", "Recipients taken and dropped, since their address is suppressed"
        )
        self._suppressions = self._counter(
            "relayd_suppressions_total",
            "Addresses put on suppression lists for what became of mail",
            reason=SuppressionReason,
        )
        self._batch_items = self._histogram(
            "relayd_batch_items", "Items in one transaction of a batched step", BATCH_ITEMS, "step"
        )
        self._commit_seconds = self._histogram(
            "relayd_batch_commit_seconds", "Time from a batched step's begin to its commit", COMMIT_SECONDS, "step"
        )
        self._store_unavailable = self._counter(
            "relayd_store_unavailable_total", "Times Postgres could not be used, by step", step=()
        )
        self._attempts = self._counter(
            "relayd_attempts_total",
            "Attempts settled, one a recipient, by upstream, outcome and the stage reached",
            upstream=(),
            outcome=(),
            stage=(),
        )
        self._attempt_seconds = self._histogram(
            "relayd_attempt_seconds", "How long attempts took, one a recipient", ATTEMPT_SECONDS, "upstream"
        )
        self._in_flight = self._gauge("relayd_attempts_in_flight", "Attempts begun and not settled, one a recipient")
        self._claims_returned = self._counter("relayd_claims_returned_total", "Claims given back untried")
        self._worker_ends = self._counter(
            "relayd_worker_restarts_total", "Workers that ended unasked and are started again, by how", end=WorkerEnd
        )
        self._log_lines_dropped = self._counter(
            "relayd_log_lines_dropped_total", "Lines of the log dropped because its reader did not keep up"
        )
        self._log_lines_summed = self._counter(
            "relayd_log_lines_summed_total", "Refusals without a line of their own in the log: one line sums them up"
        )
        self._warm_up_days = self._counter(
            "relayd_warm_up_turns_total", "Days that warming mailboxes ended, by what became of their stage", way=Way
        )
        self._mailboxes_paused = self._counter(
            "relayd_health_pauses_total", "Mailboxes that relayd itself paused for what became of their mail"
        )
        self._limits_reached = self._counter(
            "relayd_limits_reached_total", "Times a mailbox's mail came to a limit and waits, by limit", limit=()
        )
        self._tier_refusals = self._counter(
            "relayd_tier_refusals_total", "Changes refused since a client's tier does not allow them, by noun", noun=()
        )
        self._secrets_resealed = self._counter(
            "relayd_secrets_resealed_total", "Secrets that a rotation has sealed anew"
        )
        self._pool_moves = self._counter(
            "relayd_pool_moves_total", "Queued entries that went to another mailbox of their pool"
        )
        self._grants_died = self._counter(
            "relayd_oauth_grants_died_total", "Times that a grant began to give no token, by upstream", upstream=()
        )
        self._looks = self._counter(
            "relayd_doubts_looked_into_total",
            "Looks at an upstream for an attempt in doubt, one a recipient, by what came of them",
            conclusion=LookResult,
        )
        self._breaker_changes = self._counter(
            "relayd_upstream_breaker_changes_total",
            "Times an upstream's breaker was opened, each probe that failed included, or closed",
            upstream=(),
            change=(),
        )
        self._rerouted = self._counter(
            "relayd_rerouted_total", "Queued entries that took another way since routes or lists had changed"
        )
        self._claims_in_doubt = self._counter(
            "relayd_claims_in_doubt_total", "Attempts whose worker died in the middle: sent or not, nobody knows"
        )

    def _counter(self, name: str, about: str, **labels: Iterable[str]) -> Counter:
        counter = Counter(name, about, list(labels), registry=self.registry)
        if len(labels) == 1:
            # From 0 on, or the first of its kind would not show in a rate.
            for value in next(iter(labels.values())):
                counter.labels(value)
        return counter

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, registry=self.registry, multiprocess_mode="livesum")

    def _histogram(self, name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, about, labels, registry=self.registry, buckets=buckets)


@cache
def own_meter() -> Meter:
    """This process's meter."""
    count_in_allocated_files()
    return Meter(CollectorRegistry())


def record(event: Event) -> None:
    """Count an event with this process's meter."""
    own_meter().record(event)
