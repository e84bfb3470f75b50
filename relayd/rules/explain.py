"""Say where a queue entry is, why it waits and when it goes. Pure: facts and the clock in, a verdict out.

What only an operator can change is named first and gives no time. Else the latest of all that says "not before" does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from shlex import quote
from typing import assert_never

from relayd.rules.budget import LIMIT_REASONS, Budget
from relayd.rules.duration import at_time
from relayd.rules.facts import EntryFacts, Facts, RouteFacts
from relayd.rules.states import LaneClass, PendingReason, Status
from relayd.rules.stops import because, stops


class Where(StrEnum):
    """The verdict in one word, for scripts."""

    SENT = "sent"
    FAILED = "failed"
    BOUNCED = "bounced"
    SPAM = "spam"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    HELD = "held"
    UNCERTAIN = "uncertain"
    SCHEDULED = "scheduled"
    SENDING = "sending"
    STOPPED = "stopped"  # somebody must resume, activate or raise something
    LIMITED = "limited"
    BLOCKED = "blocked"  # the upstream said not before
    BROKEN = "broken"  # its upstream does not work, and there is no other
    DEFERRED = "deferred"
    DUE = "due"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence for people, an estimate (None: only somebody's act can tell), a command that helps."""

    where: Where
    sentence: str
    goes_at: datetime | None = None
    next_step: str | None = None


def explain(facts: Facts, now: datetime) -> Verdict:
    """The verdict on one entry."""
    entry = facts.entry
    match entry.status:
        case Status.SENT:
            return _sent(entry, now)
        case Status.FAILED if entry.reason == "suppressed":
            return _suppressed(facts, now)
        case Status.FAILED | Status.BOUNCED | Status.SPAM:
            return _with_suppression(_ended(entry, now), facts, now)
        case Status.PENDING:
            return _pending(facts, now)
        case Status.SENDING:
            return _sending(entry, now)
        case Status.QUEUED:
            return _stopped(facts, now) or _waiting(facts, now)
        case _:
            assert_never(entry.status)


def _sent(entry: EntryFacts, now: datetime) -> Verdict:
    named = f" (its id there: {entry.provider_message_id})" if entry.provider_message_id else ""
    said = f"; the reply: {entry.reason}" if entry.reason else ""
    return Verdict(Where.SENT, f"sent {_when(entry.ended_at, now)} through {entry.claim_upstream}{named}{said}")


def _ended(entry: EntryFacts, now: datetime) -> Verdict:
    again = f"relayd queue retry {entry.entry_id} --failed"
    ended = _when(entry.ended_at, now)
    if entry.status is Status.SPAM:
        return Verdict(Where.SPAM, f"sent, and reported as spam {ended}")
    if entry.status is Status.BOUNCED:
        return Verdict(Where.BOUNCED, f"bounced {ended}: {entry.reason or 'no reason recorded'}", next_step=again)
    if entry.reason == "cancelled":
        by = f" by {entry.last_actor}" if entry.last_actor else ""
        return Verdict(Where.CANCELLED, f"cancelled{by} {ended}; no bounce was sent", next_step=again)
    return Verdict(Where.FAILED, f"failed {ended}: {entry.reason or 'no reason recorded'}", next_step=again)


def _with_suppression(verdict: Verdict, facts: Facts, now: datetime) -> Verdict:
    """The verdict on an entry that ended, and whether its recipient is suppressed now."""
    found = facts.suppression
    if found is None:
        return verdict
    until = f"until {at_time(found.expires_at, now)}" if found.expires_at else "until it is removed from the list"
    sentence = (
        f"{verdict.sentence}; {facts.recipient} is now suppressed for client {facts.mailbox.client} {until}"
        f" (reason: {found.reason.words}, since {at_time(found.since, now)})"
    )
    again = f"; then {verdict.next_step}" if verdict.next_step else ""
    return replace(verdict, sentence=sentence, next_step=f"{_lift(facts)}{again}")


def _lift(facts: Facts) -> str:
    return f"relayd suppression remove {quote(facts.recipient)} --client {facts.mailbox.client}"


def _suppressed(facts: Facts, now: datetime) -> Verdict:
    again = f"relayd queue retry {facts.entry.entry_id} --failed"
    dropped = f"dropped {_when(facts.entry.ended_at, now)}: its address was on the suppression list"
    verdict = Verdict(Where.SUPPRESSED, f"{dropped} of client {facts.mailbox.client}", next_step=again)
    return _with_suppression(verdict, facts, now)


def _pending(facts: Facts, now: datetime) -> Verdict:
    entry = facts.entry
    release = f"relayd queue release {entry.entry_id}"
    match entry.pending_reason:
        case PendingReason.HELD:
            by = f" by {entry.last_actor}" if entry.last_actor else ""
            why = f": {entry.reason}" if entry.reason else ""
            since = f"held{by} since {at_time(entry.last_change_at, now)}{why}"
            return Verdict(Where.HELD, f"{since}; it stays until it is released", next_step=release)
        case PendingReason.UNCERTAIN:
            return _in_doubt(entry, now)
        case PendingReason.SCHEDULED | None:
            return _scheduled(facts, now)
        case _:
            assert_never(entry.pending_reason)


def _in_doubt(entry: EntryFacts, now: datetime) -> Verdict:
    resolve = f"relayd queue uncertain resolve {entry.entry_id}"
    since = f"in doubt since {at_time(entry.attempt_started_at or entry.last_change_at, now)}: {entry.reason}"
    if entry.look_at is None:
        return Verdict(
            Where.UNCERTAIN,
            f"{since}; it may have been delivered, and upstream {entry.claim_upstream} holds such mail until somebody "
            "decides",
            next_step=f"{resolve} --as sent lets it be; --as retry sends it (again); --as failed tells its sender",
        )
    soon = f"relayd looks for it at upstream {entry.claim_upstream} {at_time(entry.look_at, now)}"
    before = f", after {entry.looks} that told nothing" if entry.looks else ""
    return Verdict(
        Where.UNCERTAIN,
        f"{since}; it may have been delivered, and {soon}{before}, and decides by what it sees",
        next_step=f"nothing; who knows better: {resolve} --as sent|retry|failed",
    )


def _scheduled(facts: Facts, now: datetime) -> Verdict:
    entry = facts.entry
    sentence = f"scheduled for {at_time(entry.next_attempt_at, now)}"
    limited = _limited(facts, now)
    if limited is None or limited.goes_at is None or limited.goes_at <= entry.next_attempt_at:
        return Verdict(
            Where.SCHEDULED,
            sentence,
            goes_at=entry.next_attempt_at,
            next_step=f"relayd queue release {entry.entry_id} lets it go at once",
        )
    return Verdict(Where.SCHEDULED, f"{sentence}; {limited.sentence}", goes_at=limited.goes_at)


def _sending(entry: EntryFacts, now: datetime) -> Verdict:
    late = entry.lease_expires_at is not None and entry.lease_expires_at <= now
    if entry.attempt_started_at is None:
        sentence = f"claimed by worker {entry.claimed_by}, about to be sent through {entry.claim_upstream}"
    else:
        sentence = (
            f"being sent through {entry.claim_upstream} by worker {entry.claimed_by} since "
            f"{at_time(entry.attempt_started_at, now)}"
        )
    if late and entry.lease_expires_at is not None:
        sentence += f"; the worker's lease ran out {at_time(entry.lease_expires_at, now)} and is about to be taken back"
    return Verdict(Where.SENDING, f"{sentence} (attempt {entry.retry_count + 1})", goes_at=now)


def _stopped(facts: Facts, now: datetime) -> Verdict | None:
    """What waits for somebody, all of it: one thing resumed is of no use while another is not."""
    found = list(stops(facts, now))
    if not found:
        return None
    return Verdict(
        Where.STOPPED,
        "; and ".join(sentence for sentence, _ in found),
        next_step="; ".join(step for _, step in found if step) or None,
    )


def _waiting(facts: Facts, now: datetime) -> Verdict:
    """Nothing but time is in its way: the latest of what says "not before" decides, and gives the verdict its name."""
    candidates = [_turn(facts, now)]
    held_back = (_retry(facts, now), _blocked(facts, now), _limited(facts, now), _broken(facts, now))
    candidates += [found for found in held_back if found]
    latest = max(candidates, key=lambda verdict: verdict.goes_at or now)
    others = [found.sentence for found in candidates[1:] if found is not latest]
    sentence = "; also ".join([latest.sentence, *others]) + _failures(facts.route, now)
    failing = facts.route.failures or facts.route.broken
    step = f"relayd upstream test {failing.upstream}" if failing else None
    return Verdict(latest.where, sentence, goes_at=latest.goes_at, next_step=step)


def _failures(route: RouteFacts, now: datetime) -> str:
    """The latest failures of its upstream, and why no other one takes over."""
    text = ""
    if route.failures is not None and route.broken is None:
        found = route.failures
        attempts = "the last attempt" if found.count == 1 else f"the last {found.count:,} attempts"
        text = (
            f"; upstream {found.upstream} failed {attempts}, the latest {at_time(found.latest_at, now)}: {found.latest}"
        )
    if (route.failures or route.broken) and route.obstacles:
        text += f"; {'; '.join(route.obstacles)}"
    return text


def _turn(facts: Facts, now: datetime) -> Verdict:
    entry = facts.entry
    if not entry.ahead:
        sentence = f"due now, first of its line, waiting for a free connection{_instead(facts)}"
        return Verdict(Where.DUE, sentence, goes_at=now)
    route = f" and route {facts.route.route}" if facts.route.route else ""
    line = f"in the line of mailbox {facts.mailbox.address}{route}, {_ahead(entry)}"
    return Verdict(
        Where.DUE, f"due now, waiting for its turn and a free connection: {line}{_instead(facts)}", goes_at=now
    )


def _instead(facts: Facts) -> str:
    """What mail that goes another way than usual is told of it."""
    route = facts.route
    if route.preferred is None or route.broken is None:
        return ""
    return f"; it goes through {route.upstream}, for {route.preferred} does not work{because(route.broken.reason)}"


def _broken(facts: Facts, now: datetime) -> Verdict | None:
    route, broken = facts.route, facts.route.broken
    if broken is None or route.preferred is not None:
        return None
    what = f"upstream {broken.upstream} does not work{because(broken.reason)}, and there is no other that may take over"
    if broken.retry_at is None:
        return None  # an operator's doing: see `stops`
    retry_at = max(broken.retry_at, now)
    return Verdict(Where.BROKEN, f"{what}; one message tries it again {at_time(retry_at, now)}", goes_at=retry_at)


def _retry(facts: Facts, now: datetime) -> Verdict | None:
    entry = facts.entry
    if entry.next_attempt_at <= now:
        return None
    when = at_time(entry.next_attempt_at, now)
    said = f" ({entry.reason})" if entry.reason else ""
    if entry.retry_count == 0:
        return Verdict(Where.DEFERRED, f"postponed{said}; it goes {when}", goes_at=entry.next_attempt_at)
    # The first attempt is no retry.
    spent = f"attempt {entry.retry_count} of at most {entry.max_retries + 1}"
    return Verdict(
        Where.DEFERRED, f"deferred after {spent}{said}; the next attempt is {when}", goes_at=entry.next_attempt_at
    )


def _blocked(facts: Facts, now: datetime) -> Verdict | None:
    lane = facts.lane
    if lane.blocked_until is None or lane.blocked_until <= now:
        return None
    if lane.blocked_reason in LIMIT_REASONS and facts.limits.binding is not None:
        return None
    return Verdict(
        Where.BLOCKED,
        f"mailbox {facts.mailbox.address} is parked until {at_time(lane.blocked_until, now)}"
        f"{because(lane.blocked_reason)}",
        goes_at=lane.blocked_until,
    )


def _limited(facts: Facts, now: datetime) -> Verdict | None:
    """By the budget that it waits for; the others are in a list beside it."""
    entry, estimate, budget = facts.entry, facts.limits.estimate, facts.limits.binding
    if budget is None or estimate.at is None:
        return None
    is_known = estimate.is_known and not entry.ahead_is_capped
    leaves = f"so it leaves {'about' if is_known else 'not before'} {at_time(estimate.at, now)}"
    parts = [_used(budget, facts.lane.lane_class), *_told(budget, now), *_turns(budget, now)]
    if budget.growth:
        parts.append("its limit grows as it warms up")
    if facts.limits.sharing:
        lanes = "another lane waits" if facts.limits.sharing == 1 else f"{facts.limits.sharing:,} other lanes wait"
        parts.append(f"{lanes} for it too")
    return Verdict(Where.LIMITED, "; ".join([*parts, f"{_ahead(entry)}, {leaves}"]), goes_at=estimate.at)


def _used(budget: Budget, lane_class: LaneClass) -> str:
    kept = (budget.unit_limit or 0) - (budget.bulk_limit or 0) if lane_class is LaneClass.BULK else 0
    slice = f", {kept:,} of them kept from bulk mail," if kept else ""
    verb = "has taken" if budget.is_of_provider else "has sent"
    return f"{budget.allows()}{slice} and {verb} {budget.used:,}"


def _told(budget: Budget, now: datetime) -> Iterator[str]:
    if budget.told is not None and budget.told_at is not None:
        yield f"it said itself that they are spent, {at_time(budget.told_at, now)}: {budget.told}"


def _turns(budget: Budget, now: datetime) -> Iterator[str]:
    if budget.turns_at is None:
        return
    when = at_time(budget.turns_at, now)
    if budget.is_rolling:
        yield f"the next are freed {when}"
    elif budget.is_hourly:
        yield f"the next hour begins {when}"
    else:
        yield f"the window turns at midnight in {budget.time_zone}, {when}"


def _ahead(entry: EntryFacts) -> str:
    if entry.ahead_is_capped:
        return f"more than {entry.ahead:,} entries are ahead"
    match entry.ahead:
        case 0:
            return "none is ahead"
        case 1:
            return "1 entry is ahead"
        case many:
            return f"{many:,} entries are ahead"


def _when(ended_at: datetime | None, now: datetime) -> str:
    return at_time(ended_at, now) if ended_at else "at an unknown time"
