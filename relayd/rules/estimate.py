"""When mail that waits will leave: budgets, who shares them and the clock in, moments out. Pure.

Only limits count: how fast an upstream takes mail, whether it does, and what is yet to be submitted do not.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relayd.rules.budget import Budget
from relayd.rules.course import Line, Meter, Waiting, share_out

HORIZON = timedelta(days=366)
# A step for each line takes some ten microseconds; a line alone needs 366 for a year of days.
MOST_STEPS = 20_000
# More than may ever wait.
ENDLESS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Departure:
    """So many units of the line leave then. `held_by`: the budget that kept them back until then."""

    at: datetime
    units: int
    held_by: int | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a unit leaves. `at` None: never, as things are. `is_known` False: not before then, further was not looked.

    `held_by`: the budget that it has to wait for, None if it has to wait for none.
    """

    at: datetime | None
    held_by: int | None
    is_known: bool = True


class Outlook:
    """When each unit of a line leaves. Worked out as far as somebody asks, and kept."""

    def __init__(
        self,
        line: Line,
        budgets: Mapping[int, Budget],
        rivals: Sequence[Line] = (),
        *,
        now: datetime,
        most_steps: int = MOST_STEPS,
    ) -> None:
        self._never = next((id for id in line.budget_ids if _is_never(budgets[id], line)), None)
        self._coming = _Course(line, budgets, rivals, now).departures(most_steps)
        self._past: list[Departure] = []
        self._gone = 0
        self._end: Estimate | None = None

    def leaves(self, place: int) -> Estimate:
        """When the unit with so many of its own line before it leaves."""
        if self._never is not None:
            return Estimate(None, self._never)
        while self._gone <= place and self._advance():
            pass
        gone = self._gone
        for departure in reversed(self._past):
            gone -= departure.units
            if gone <= place < self._gone:
                return Estimate(departure.at, departure.held_by)
        return self._end or Estimate(None, None)

    def departures(self) -> Iterator[Departure]:
        """All of them in order, up to the horizon."""
        if self._never is not None:
            return
        seen = 0
        while seen < len(self._past) or self._advance():
            yield self._past[seen]
            seen += 1

    def _advance(self) -> bool:
        try:
            departure = next(self._coming)
        except StopIteration as stop:
            if self._end is None:
                self._end = stop.value
            return False
        self._past.append(departure)
        self._gone += departure.units
        return True


class _Course:
    """The lines and their budgets, from one moment at which something changes to the next."""

    def __init__(self, line: Line, budgets: Mapping[int, Budget], rivals: Sequence[Line], now: datetime) -> None:
        self._now = now
        self._meters = {id: Meter(budget, now) for id, budget in budgets.items()}
        # Those that can never go would only make it longer.
        able = [rival for rival in rivals if not any(_is_never(budgets[id], rival) for id in rival.budget_ids)]
        lines = [Waiting(each, [self._meters[id] for id in each.budget_ids]) for each in (line, *able)]
        self._ours = lines[0]
        self._lines = sorted(lines, key=lambda each: each.line.lane_id)

    def departures(self, most_steps: int) -> Generator[Departure, None, Estimate]:
        """Those of the first line. Returns (as a generator does) what is known of the units after the last one."""
        ours, now = self._ours, self._now
        for _ in range(0, most_steps, len(self._lines)):
            grown = [meter for meter in self._meters.values() if meter.advance(now)]
            for each in self._lines:
                each.advance(now, grown)
            before, held_by = ours.waiting, ours.held_by
            share_out(self._lines, now)
            if ours.waiting < before:
                yield Departure(now, before - ours.waiting, _id(held_by))
                ours.held_by = None
            for each in self._lines:
                each.block(now)
            if next(ours.next_changes(now), None) is None:
                return Estimate(None, _id(ours.held_by))
            now = min(change for each in self._lines for change in each.next_changes(now))
            if now > self._now + HORIZON:
                break
        return Estimate(now, _id(ours.held_by), is_known=False)


def _id(meter: Meter | None) -> int | None:
    return meter.budget.id if meter else None


def _is_never(budget: Budget, line: Line) -> bool:
    return budget.is_never(is_bulk=line.is_bulk)
