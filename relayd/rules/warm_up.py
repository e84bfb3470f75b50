"""Warm-up: how many recipients a day a new mailbox may reach, growing day by day, as long as its mail is welcome.

A *stage* is the number of days of the schedule that are behind a mailbox: stage 0 is the first day.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

LONGEST_DAYS = 365
LARGEST_LIMIT = 2_147_483_647

_STEP = re.compile(r"([0-9]{1,10})x([0-9]{1,3})")
_LAST = re.compile(r"[0-9]{1,10}")


class BadSchedule(ValueError):
    """The text is no schedule; says what one looks like."""


@dataclass(frozen=True, slots=True)
class Step:
    """So many days with the same limit."""

    limit: int
    days: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order, never down, and the limit for ever after."""

    steps: tuple[Step, ...]
    after: int

    def __post_init__(self) -> None:
        if not self.steps:
            raise BadSchedule("a schedule has at least one step of days before its last limit")
        if any(step.days < 1 for step in self.steps):
            raise BadSchedule("every step but the last takes at least one day")
        if not all(1 <= limit <= LARGEST_LIMIT for limit in self._limits()):
            raise BadSchedule(f"every limit is between 1 and {LARGEST_LIMIT}")
        down = next((pair for pair in pairwise(self._limits()) if pair[1] < pair[0]), None)
        if down:
            raise BadSchedule(f"limits never decrease: {down[1]} comes after {down[0]}")
        if self.days > LONGEST_DAYS:
            raise BadSchedule(f"a warm-up takes at most {LONGEST_DAYS} days, not {self.days}")

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read `10x5,20x5,75`: 10 a day for 5 days, 20 for 5 more, then 75. Raises BadSchedule."""
        *first, last = (part.strip() for part in text.split(","))
        matches = [_STEP.fullmatch(part) for part in first]
        wrong = next((part for part, match in zip(first, matches, strict=True) if match is None), None)
        if wrong is not None:
            raise BadSchedule(f"{wrong!r} is no step; write LIMITxDAYS: 10x5,20x5,75")
        if not _LAST.fullmatch(last):
            raise BadSchedule(f"{last!r} is not the limit after the warm-up; write it last: 10x5,20x5,75")
        return cls(tuple(Step(int(match[1]), int(match[2])) for match in matches if match), int(last))

    def __str__(self) -> str:
        return ",".join([*(f"{step.limit}x{step.days}" for step in self.steps), str(self.after)])

    @property
    def days(self) -> int:
        """How many days the warm-up takes at best."""
        return sum(step.days for step in self.steps)

    def limit(self, stage: int) -> int:
        """The limit on the day after so many days."""
        ends = accumulate(step.days for step in self.steps)
        return next((step.limit for step, end in zip(self.steps, ends, strict=True) if stage < end), self.after)

    def is_complete(self, stage: int) -> bool:
        """Whether nothing of the schedule is left."""
        return stage >= self.days

    def step_before(self, stage: int) -> int:
        """The first stage of the step before the one that this stage is in; 0 if it is in the first."""
        begins = [0, *accumulate(step.days for step in self.steps)]
        at = max(index for index, begin in enumerate(begins) if begin <= stage)
        return begins[max(at - 1, 0)]

    def _limits(self) -> list[int]:
        return [*(step.limit for step in self.steps), self.after]


DEFAULT_SCHEDULE = Schedule.parse("10x5,20x5,30x5,40x5,50x5,60x5,75")


@dataclass(frozen=True, slots=True)
class Health:
    """What became of a mailbox's mail of late. Rates are shares of `sent`, which counts recipients."""

    sent: int
    bounce_rate: float
    spam_rate: float


@dataclass(frozen=True, slots=True)
class Gate:
    """From which rates on a stage is held, and from which it goes back a step. Fewer than `least_sent` say nothing."""

    least_sent: int = 20
    bounces_hold: float = 0.05
    bounces_lower: float = 0.10
    spam_hold: float = 0.001
    spam_lower: float = 0.003


@dataclass(frozen=True, slots=True)
class Turn:
    """What a day's end made of a stage. `reason` says why it did not go on by the days that passed, None if it did."""

    stage: int
    reason: str | None = None


def turn(schedule: Schedule, stage: int, *, days: int, used: Sequence[bool] | None, health: Health, gate: Gate) -> Turn:
    """The stage after `days` ended days. `used`: for each whether anything was sent, where only such days count."""
    if health.sent >= gate.least_sent:
        rates = (
            ("bounce", health.bounce_rate, gate.bounces_hold, gate.bounces_lower),
            ("complaint", health.spam_rate, gate.spam_hold, gate.spam_lower),
        )
        for name, rate, _, lower in rates:
            if rate >= lower:
                return Turn(schedule.step_before(stage), f"lowered: {name} rate {rate:.1%} of {health.sent}")
        for name, rate, hold, _ in rates:
            if rate >= hold:
                return Turn(stage, f"held: {name} rate {rate:.1%} of {health.sent}")
    counted = days if used is None else sum(used)
    reason = "held: nothing was sent" if used is not None and not counted else None
    return Turn(min(stage + counted, schedule.days), reason)
