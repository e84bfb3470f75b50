"""Say where a queue entry is, why it waits and when it goes. Pure: facts and the clock in, a verdict out.

What only an operator can change is named first and gives no time. Else the latest of all that says "not before" does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from relayd.rules.daily_window import window_start
from relayd.rules.duration import at_time
from relayd.rules.facts import EntryFacts, Facts, RouteFacts
from relayd.rules.states import LaneClass, PendingReason, Status

DAILY_LIMIT = "mailbox daily limit"  # mailbox_lanes.blocked_reason


class Where(StrEnum):
    """The verdict in one word, for scripts."""

    SENT = "sent"
    FAILED = "failed"
    BOUNCED = "bounced"
    SPAM = "spam"
    CANCELLED = "cancelled"
    HELD = "held"
    UNCERTAIN = "uncertain"
    SCHEDULED = "scheduled"
    SENDING = "sending"
    STOPPED = "stopped"  # somebody must resume, activate or raise something
    LIMITED = "limited"
    BLOCKED = "blocked"  # the upstream said not before
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
        case Status.FAILED | Status.BOUNCED | Status.SPAM:
            return _ended(entry, now)
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
            return Verdict(
                Where.UNCERTAIN,
                f"in doubt since {at_time(entry.last_change_at, now)}: {entry.reason}; it may have been delivered, and "
                f"upstream {entry.claim_upstream} holds such mail until somebody decides",
                next_step=f"{release} sends it (again); relayd queue cancel {entry.entry_id} lets it be",
            )
        case PendingReason.SCHEDULED | None:
            return Verdict(
                Where.SCHEDULED,
                f"scheduled for {at_time(entry.next_attempt_at, now)}",
                goes_at=entry.next_attempt_at,
            )
        case _:
            assert_never(entry.pending_reason)


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
    found = [*_paused(facts.route, now), *_not_allowed(facts)]
    if not found:
        return None
    return Verdict(
        Where.STOPPED,
        "; and ".join(sentence for sentence, _ in found),
        next_step="; ".join(step for _, step in found if step) or None,
    )


def _paused(route: RouteFacts, now: datetime) -> Iterator[tuple[str, str | None]]:
    if route.all_paused_at is not None:
        since = at_time(route.all_paused_at, now)
        yield f"everything is paused since {since}{_because(route.all_paused_reason)}", "relayd resume everything"
    upstream = f"upstream {route.upstream}"
    if route.upstream_paused_at is not None:
        since = at_time(route.upstream_paused_at, now)
        yield f"{upstream} is paused since {since}{_because(route.upstream_paused_reason)}", f"relayd resume {upstream}"
    if not route.upstream_is_active:
        yield f"{upstream} is not active", f"relayd upstream set {route.upstream} --active"


def _not_allowed(facts: Facts) -> Iterator[tuple[str, str | None]]:
    mailbox = facts.mailbox
    name = f"mailbox {mailbox.address}"
    activate = "--status active"
    if mailbox.client_status != "active":
        yield f"client {mailbox.client} is {mailbox.client_status}", f"relayd client set {mailbox.client} {activate}"
    if mailbox.domain_status not in ("pending", "active"):
        yield f"domain {mailbox.domain} is {mailbox.domain_status}", f"relayd domain set {mailbox.domain} {activate}"
    if mailbox.is_removed:
        yield f"{name} has been removed", None
    elif mailbox.status == "paused":
        yield f"{name} is paused{_because(mailbox.status_reason)}", f"relayd resume {name}"
    elif mailbox.status not in ("warming", "active"):
        step = f"relayd mailbox set {mailbox.address} {activate}"
        yield f"{name} is {mailbox.status}{_because(mailbox.status_reason)}", step
    if mailbox.daily_limit == 0 and facts.lane.lane_class is not LaneClass.DSN:
        step = f"relayd mailbox set {mailbox.address} --daily-limit N"
        yield f"{name} may send 0 a day, so it never leaves", step


def _waiting(facts: Facts, now: datetime) -> Verdict:
    """Nothing but time is in its way: the latest of what says "not before" decides, and gives the verdict its name."""
    candidates = [_turn(facts, now)]
    candidates += [found for found in (_retry(facts, now), _blocked(facts, now), _limited(facts, now)) if found]
    latest = max(candidates, key=lambda verdict: verdict.goes_at or now)
    others = [found.sentence for found in candidates[1:] if found is not latest]
    return Verdict(latest.where, "; also ".join([latest.sentence, *others]), goes_at=latest.goes_at)


def _turn(facts: Facts, now: datetime) -> Verdict:
    entry = facts.entry
    if not entry.ahead:
        return Verdict(Where.DUE, "due now, first of its line, waiting for a free connection", goes_at=now)
    line = f"in the line of mailbox {facts.mailbox.address}, {_ahead(entry)}"
    return Verdict(Where.DUE, f"due now, waiting for its turn and a free connection: {line}", goes_at=now)


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
    if lane.blocked_until is None or lane.blocked_until <= now or lane.blocked_reason == DAILY_LIMIT:
        return None
    return Verdict(
        Where.BLOCKED,
        f"mailbox {facts.mailbox.address} is parked until {at_time(lane.blocked_until, now)}"
        f"{_because(lane.blocked_reason)}",
        goes_at=lane.blocked_until,
    )


def _limited(facts: Facts, now: datetime) -> Verdict | None:
    mailbox, entry = facts.mailbox, facts.entry
    limit = mailbox.daily_limit
    if facts.lane.lane_class is LaneClass.DSN or not limit:
        return None
    left_today = max(limit - mailbox.used, 0)
    if entry.ahead < left_today:
        return None
    turns = 1 + (entry.ahead - left_today) // limit
    goes_at = window_start(mailbox.time_zone, mailbox.window_ends_at, now, turns=turns)
    if turns == 1 and facts.lane.blocked_reason == DAILY_LIMIT and facts.lane.blocked_until is not None:
        # Releases are spread over the window's first minutes.
        goes_at = max(goes_at, facts.lane.blocked_until)
    turn_at = window_start(mailbox.time_zone, mailbox.window_ends_at, now, turns=1)
    leaves = f"so it leaves {'not before' if entry.ahead_is_capped else 'about'} {at_time(goes_at, now)}"
    return Verdict(
        Where.LIMITED,
        f"mailbox {mailbox.address} may send {limit:,} a day and has sent {mailbox.used:,}; the window turns at "
        f"midnight in {mailbox.time_zone}, {at_time(turn_at, now)}; {_ahead(entry)}, {leaves}",
        goes_at=goes_at,
    )


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


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _when(ended_at: datetime | None, now: datetime) -> str:
    return at_time(ended_at, now) if ended_at else "at an unknown time"
