"""Decide what a look into a doubt means: the message was seen, it was not sent, or when to look again. Pure.

An upstream that can be asked afterwards leaves no doubt for long; on_uncertain decides only where asking tells nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never


class Way(StrEnum):
    """How an upstream is asked what became of an attempt: under the reference that was kept, or by Message-ID."""

    REFERENCE = "reference"
    MESSAGE_ID = "message_id"


@dataclass(frozen=True, slots=True)
class Trace:
    """How an attempt can be looked for afterwards, kept with its start: the upstream's mode may be another by then.

    `mark`: a name of its own, where another attempt of its message could be taken for it.
    """

    way: Way
    mark: str | None = None


class Sight(StrEnum):
    """What a look has shown."""

    SENT = "sent"  # it is there
    NOT_SENT = "not_sent"  # it was not sent, and this attempt cannot send it any more
    ABSENT = "absent"  # it is not there, or not there yet
    UNREACHABLE = "unreachable"  # nobody could be asked
    UNKNOWABLE = "unknowable"  # asking again will tell nothing either


@dataclass(frozen=True, slots=True)
class Seen:
    """A look's result and its text for the log."""

    sight: Sight
    text: str
    provider_message_id: str | None = None


@dataclass(frozen=True, slots=True)
class LookPolicy:
    """When to look: so long after the attempt, then after twice as long, so many times until absent means not sent.

    Where nobody can be asked, on_uncertain decides `give_up_after_seconds` after the attempt.
    """

    first_seconds: float = 60.0
    looks: int = 5
    longest_seconds: float = 1800.0
    give_up_after_seconds: float = 86400.0


class Conclusion(StrEnum):
    """What becomes of the entry."""

    SENT = "sent"
    RETRY = "retry"
    LOOK_AGAIN = "look_again"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`look_at` is set where it is looked again; `counts`: that look has told something."""

    conclusion: Conclusion
    look_at: datetime | None = None
    counts: bool = True


def way_of(provider: str, mode: str | None) -> Way | None:
    """How an attempt that goes by this kind of upstream can be looked for; None: not at all."""
    match provider, mode:
        case "google_workspace", "gmail_api":
            return Way.REFERENCE
        case "google_workspace", "xoauth2":
            return Way.MESSAGE_ID
        case _:
            return None


def conclude(seen: Seen, *, looks: int, attempted_at: datetime, now: datetime, policy: LookPolicy) -> Verdict:
    """What one more look means. `looks`: those before it that told nothing."""
    match seen.sight:
        case Sight.SENT:
            return Verdict(Conclusion.SENT)
        case Sight.NOT_SENT:
            return Verdict(Conclusion.RETRY)
        case Sight.ABSENT:
            if looks + 1 >= policy.looks:
                return Verdict(Conclusion.RETRY)
            return Verdict(Conclusion.LOOK_AGAIN, now + _delay(policy, looks + 1))
        case Sight.UNREACHABLE:
            if now >= attempted_at + timedelta(seconds=policy.give_up_after_seconds):
                return Verdict(Conclusion.UNDECIDED)
            # As long again as it has been, so that an upstream that is away is not asked all the time.
            waited = max((now - attempted_at).total_seconds(), policy.first_seconds)
            delay = timedelta(seconds=min(waited, policy.longest_seconds))
            return Verdict(Conclusion.LOOK_AGAIN, now + delay, counts=False)
        case Sight.UNKNOWABLE:
            return Verdict(Conclusion.UNDECIDED)
        case _:
            assert_never(seen.sight)


def _delay(policy: LookPolicy, looks: int) -> timedelta:
    return timedelta(seconds=min(policy.first_seconds * 2.0 ** min(looks, 32), policy.longest_seconds))
