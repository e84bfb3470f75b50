"""Decide what an outcome makes of a queue entry. Pure: the one place where Outcome becomes state."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, assert_never

from relayd.rules.bounce_class import BounceClass, Refusal, classify
from relayd.rules.doubt import LookPolicy
from relayd.rules.outcome import Cause, Deferred, Failed, Limit, Outcome, Postponed, Scope, Sent, Uncertain
from relayd.rules.retry import RetryPolicy, next_attempt_at
from relayd.rules.states import LogEvent, PendingReason, Status

OnUncertain = Literal["retry", "hold"]


@dataclass(frozen=True, slots=True)
class Attempted:
    """What the decision needs to know of the entry that was attempted."""

    retry_count: int
    max_retries: int
    first_attempt_at: datetime
    recipient: str = ""  # its address; a refusal that names another is not about it


@dataclass(frozen=True, slots=True)
class SpentLimit:
    """The upstream says that its limit is spent: that of the mailbox there, or of the upstream as a whole."""

    limit: Limit
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """An entry's next state, its log row, and what becomes of the budget unit that it holds."""

    status: Status
    event: LogEvent
    cause: Cause
    reason: str
    next_attempt_at: datetime | None = None
    pending_reason: PendingReason | None = None
    spends_attempt: bool = True
    returns_unit: bool = True
    notifies: bool = False  # a DSN of the failure goes to the reverse-path
    relays: bool = False  # sent, and who wants to know of a success hears it from us: the upstream does not tell
    bounce: BounceClass | None = None  # of a bounced recipient
    blocks_mailbox_until: datetime | None = None
    provider_message_id: str | None = None
    spent_limit: SpentLimit | None = None  # the ledger learns of it
    look_at: datetime | None = None  # in doubt: relayd looks at the upstream then
    upstream_failed: bool = False  # it waits for its upstream alone, and goes at once when there is another way


def settle(
    outcome: Outcome,
    entry: Attempted,
    policy: RetryPolicy,
    *,
    on_uncertain: OnUncertain,
    now: datetime,
    dice: float,
    looks: LookPolicy | None = None,
    has_next_upstream: bool = False,
) -> Settlement:
    """The settlement of one entry. `dice` (uniform in [0, 1)) is the same for all recipients of a
    transaction, so that those that are tried again are tried together. `looks`: when to ask an upstream that can be
    asked what became of a doubt; None: it cannot. `has_next_upstream`: where this one has failed, the message goes on
    through another, even if this was the last attempt."""
    match outcome:
        case Sent(cause, provider_message_id, dsn_passed):
            return Settlement(
                Status.SENT,
                LogEvent.SENT,
                cause,
                describe(cause),
                returns_unit=False,
                provider_message_id=provider_message_id,
                relays=not dsn_passed,
            )
        case Deferred(scope, cause):
            upstream_failed = scope is Scope.UPSTREAM
            gives_up = not (upstream_failed and has_next_upstream)
            deferred = _again(LogEvent.DEFERRED, cause, entry, policy, now, dice, returns_unit=True, gives_up=gives_up)
            return replace(deferred, upstream_failed=upstream_failed and deferred.status is Status.QUEUED)
        case Postponed(scope, cause, hold_seconds, limit):
            until = now + timedelta(seconds=hold_seconds)
            return Settlement(
                Status.QUEUED,
                LogEvent.POSTPONED,
                cause,
                describe(cause),
                # The mailbox's lane waits, or the upstream's breaker does: the entry need not.
                next_attempt_at=now if scope in (Scope.MAILBOX, Scope.UPSTREAM) else until,
                spends_attempt=False,
                blocks_mailbox_until=until if scope is Scope.MAILBOX else None,
                spent_limit=_spent(scope, limit),
            )
        case Failed(scope, cause):
            bounced = scope is Scope.RECIPIENT
            return Settlement(
                Status.BOUNCED if bounced else Status.FAILED,
                LogEvent.BOUNCED if bounced else LogEvent.FAILED,
                cause,
                describe(cause),
                notifies=True,
                bounce=_bounce_class(cause, entry.recipient) if bounced else None,
            )
        case Uncertain(cause):
            if on_uncertain == "hold" or looks is not None:
                return Settlement(
                    Status.PENDING,
                    LogEvent.UNCERTAIN,
                    cause,
                    describe(cause),
                    pending_reason=PendingReason.UNCERTAIN,
                    returns_unit=False,
                    look_at=None if looks is None else now + timedelta(seconds=looks.first_seconds),
                )
            # What may have been sent has been counted; its retry takes another unit.
            return _again(LogEvent.UNCERTAIN, cause, entry, policy, now, dice, returns_unit=False)
        case _:
            assert_never(outcome)


def _bounce_class(cause: Cause, recipient: str) -> BounceClass:
    recipients = (recipient,) if recipient else ()
    return classify(Refusal(cause.text, cause.code, cause.enhanced, cause.stage, recipients))


def describe(cause: Cause) -> str:
    """One line for an operator: stage, reply, text."""
    reply = " ".join(str(part) for part in (cause.code, cause.enhanced) if part)
    text = cause.text if cause.enhanced is None else cause.text.removeprefix(cause.enhanced).strip()
    return f"{cause.stage}: {reply} {text}".replace(":  ", ": ").strip()[:1000]


def _spent(scope: Scope, limit: Limit | None) -> SpentLimit | None:
    if limit is None or scope not in (Scope.MAILBOX, Scope.UPSTREAM):
        return None
    return SpentLimit(limit, is_whole=scope is Scope.UPSTREAM)


def _again(
    event: LogEvent,
    cause: Cause,
    entry: Attempted,
    policy: RetryPolicy,
    now: datetime,
    dice: float,
    *,
    returns_unit: bool,
    gives_up: bool = True,
) -> Settlement:
    spent = entry.retry_count + 1
    at = next_attempt_at(
        policy,
        attempts_spent=spent,
        first_attempt_at=entry.first_attempt_at,
        max_retries=entry.max_retries,
        now=now,
        dice=dice,
    )
    if at is None and not gives_up:
        at = now
    if at is not None:
        return Settlement(Status.QUEUED, event, cause, describe(cause), next_attempt_at=at, returns_unit=returns_unit)
    reason = f"given up after {spent} attempts; the last: {describe(cause)}"[:1000]
    return Settlement(Status.FAILED, LogEvent.FAILED, cause, reason, returns_unit=returns_unit, notifies=True)
