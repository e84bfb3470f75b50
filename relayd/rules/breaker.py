"""What an attempt tells of its upstream, and when that is enough to stop using it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from relayd.rules.outcome import Cause, Deferred, Outcome, Postponed, Scope, Stage, Uncertain


class BreakerState(StrEnum):
    """upstream_breakers.state."""

    CLOSED = "closed"  # it is used
    OPEN = "open"  # it is not
    HALF_OPEN = "half_open"  # one message tries it


@dataclass(frozen=True, slots=True)
class BreakerTerms:
    """Opens at `failures` failed attempts in a row, however far apart, or at as many that are `rate` of the latest.

    The latest are those of `window_seconds`, and not more than a few times `failures`: a busy upstream would else be
    left only when it has failed for as long as it has worked before. A failed probe doubles the wait.
    """

    failures: int = 5
    rate: float = 0.5
    window_seconds: float = 60.0
    open_seconds: float = 30.0
    open_longest_seconds: float = 600.0

    @property
    def remembered(self) -> int:
        """How many attempts count at most."""
        return 4 * self.failures


@dataclass(frozen=True, slots=True)
class Alive:
    """It answered for itself: a refusal of a recipient is one of its answers."""


@dataclass(frozen=True, slots=True)
class Failing:
    """It failed, and not for anything that it was given."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Unfit:
    """It cannot send until somebody mends it, or for so long."""

    cause: Cause
    hold_seconds: float


Sign = Alive | Failing | Unfit


def sign_of(outcomes: Sequence[Outcome]) -> Sign | None:
    """What the outcomes of one attempt tell of its upstream; None: nothing, as it was not asked, or fell silent after a
    message that it may well have taken.
    """
    for outcome in outcomes:
        if isinstance(outcome, Postponed) and outcome.scope is Scope.UPSTREAM:
            return Unfit(outcome.cause, outcome.hold_seconds)
    for outcome in outcomes:
        if isinstance(outcome, Deferred) and outcome.scope is Scope.UPSTREAM:
            return Failing(outcome.cause)
        if isinstance(outcome, Uncertain) and outcome.upstream_failed:
            return Failing(outcome.cause)
    heard = any(not isinstance(each, Uncertain) and each.cause.stage is not Stage.LOCAL for each in outcomes)
    return Alive() if heard else None
