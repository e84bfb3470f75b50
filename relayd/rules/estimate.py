"""When mail that waits will leave: budgets, who shares them and the clock in, moments out. Pure.

Lines that share a budget take of it in turn. Only limits count: how fast an upstream takes mail, whether it does, and
what is yet to be submitted do not.
"""

from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from relayd.rules.budgets import HOUR, Budget, Release
from relayd.rules.daily_window import window_start

HORIZON = timedelta(days=366)
MINUTE = timedelta(minutes=1)
# A warming mailbox's next stage begins so long after its midnight; until then yesterday's limit holds.
GROWS_AFTER = timedelta(minutes=2)
# A step for each line takes some ten microseconds; a line alone needs 366 for a year of days.
MOST_STEPS = 20_000
# More than may ever wait.
ENDLESS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """Units that wait in one lane, those that join it later, and the budgets that each of them has to fit."""

    waiting: int
    budget_ids: tuple[int, ...]
    is_bulk: bool = False
    not_before: datetime | None = None
    arrivals: tuple[tuple[datetime, int], ...] = ()  # in order: when so many become due
    spread: timedelta = timedelta()  # so long after a day has turned it begins
    lane_id: int = 0  # of less than there are lines, the first of them get one each


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


class _Meter:
    """One budget as time goes on."""

    def __init__(self, budget: Budget, now: datetime) -> None:
        self.budget = budget
        self.unit_limit, self.bulk_limit = budget.unit_limit, budget.bulk_limit
        self.used = budget.used
        self._turns_at = budget.turns_at
        self._releases = deque(budget.releases)
        if budget.is_rolling:
            # What is in flight is freed a window after its reply.
            in_flight = budget.used - sum(release.units for release in budget.releases)
            if in_flight > 0:
                self._release(now, in_flight)
        growth = budget.growth
        self._days = 0
        self._midnight = window_start(budget.time_zone, None, now, turns=1) if growth else None

    def room(self, *, is_bulk: bool) -> int | None:
        """What is left for a class; None: any number."""
        limit = self.bulk_limit if is_bulk else self.unit_limit
        return None if limit is None else max(limit - self.used, 0)

    def take(self, units: int, at: datetime) -> None:
        self.used += units
        if self.budget.is_rolling:
            self._release(at, units)

    def next_change(self) -> datetime | None:
        """When there may be more room than now."""
        changes = [self._grows_at()]
        if self.budget.is_rolling:
            changes.append(self._releases[0].frees_at if self._releases else None)
        else:
            changes.append(self._turns_at)
        return min((change for change in changes if change is not None), default=None)

    def advance(self, now: datetime) -> bool:
        """Come to that moment. Whether a calendar day has turned at it."""
        turned = False
        while self._releases and self._releases[0].frees_at <= now:
            self.used -= self._releases.popleft().units
        while not self.budget.is_rolling and self._turns_at is not None and self._turns_at <= now:
            turned = self._turns_at == now and not self.budget.is_hourly
            self.used = 0
            self._turns_at = (
                self._turns_at + HOUR
                if self.budget.is_hourly
                else window_start(self.budget.time_zone, self._turns_at, now, turns=2)
            )
        while (grows_at := self._grows_at()) is not None and grows_at <= now:
            self._grow()
        return turned

    def _release(self, at: datetime, units: int) -> None:
        # As budget_releases are kept: by the minute in which they are freed, never too early.
        frees_at = at.replace(second=0, microsecond=0) + MINUTE + self.budget.span
        if self._releases and self._releases[-1].frees_at >= frees_at:
            units += self._releases[-1].units
            frees_at = self._releases.pop().frees_at
        self._releases.append(Release(frees_at, units))

    def _grows_at(self) -> datetime | None:
        return None if self._midnight is None else self._midnight + GROWS_AFTER

    def _grow(self) -> None:
        growth = self.budget.growth
        assert growth is not None and self._midnight is not None, "it has a midnight because it grows"
        self._days += 1
        self.unit_limit = growth.limit(self._days, is_hourly=self.budget.is_hourly)
        self.bulk_limit = growth.without_reserve(self.unit_limit)
        is_over = growth.is_over(self._days)
        self._midnight = (
            None if is_over else window_start(self.budget.time_zone, self._midnight, self._midnight, turns=2)
        )


class _Waiting:
    """One line as time goes on."""

    def __init__(self, line: Line, meters: Sequence[_Meter]) -> None:
        self.line = line
        self.meters = meters
        self.waiting = line.waiting
        self._arrivals = deque(line.arrivals)

    def is_ready(self, now: datetime) -> bool:
        """Whether one of it could go."""
        return (
            self.waiting > 0
            and (self.line.not_before is None or self.line.not_before <= now)
            and all(meter.room(is_bulk=self.line.is_bulk) != 0 for meter in self.meters)
        )

    def advance(self, now: datetime) -> None:
        while self._arrivals and self._arrivals[0][0] <= now:
            self.waiting += self._arrivals.popleft()[1]

    def share(self, users: Mapping[_Meter, int]) -> int:
        """As many as it may take if all others who could go take as many."""
        rooms = [
            room // users[meter] for meter in self.meters if (room := meter.room(is_bulk=self.line.is_bulk)) is not None
        ]
        return min([self.waiting, *rooms])

    def take(self, units: int, now: datetime) -> None:
        self.waiting -= units
        for meter in self.meters:
            meter.take(units, now)

    def held_by(self) -> _Meter | None:
        """The budget with no room that changes last."""
        full = [meter for meter in self.meters if meter.room(is_bulk=self.line.is_bulk) == 0]
        return max(full, key=lambda meter: meter.next_change() or datetime.max.replace(tzinfo=UTC), default=None)

    def next_changes(self, now: datetime) -> Iterator[datetime | None]:
        """Whatever may let more of it go, as far as it waits."""
        if self._arrivals:
            yield self._arrivals[0][0]
        if self.waiting and self.line.not_before is not None and self.line.not_before > now:
            yield self.line.not_before
        elif self.waiting:
            yield from (meter.next_change() for meter in self.meters if meter.room(is_bulk=self.line.is_bulk) == 0)


class _Course:
    """The lines and their budgets, from one moment at which something changes to the next."""

    def __init__(self, line: Line, budgets: Mapping[int, Budget], rivals: Sequence[Line], now: datetime) -> None:
        self._now = now
        self._meters = {id: _Meter(budget, now) for id, budget in budgets.items()}
        # Those that can never go would only make it longer.
        able = [rival for rival in rivals if not any(_is_never(budgets[id], rival) for id in rival.budget_ids)]
        lines = [_Waiting(each, [self._meters[id] for id in each.budget_ids]) for each in (line, *able)]
        self._ours = lines[0]
        self._lines = sorted(lines, key=lambda each: each.line.lane_id)

    def departures(self, most_steps: int) -> Generator[Departure, None, Estimate]:
        """Those of the first line. Returns (as a generator does) what is known of the units after the last one."""
        ours, spread = self._ours, self._ours.line.spread
        now = latest = self._now
        held_by: _Meter | None = None
        for _ in range(0, most_steps, len(self._lines)):
            day_turned = any([meter.advance(now) for meter in self._meters.values()])
            for each in self._lines:
                each.advance(now)
            before = ours.waiting
            self._share_out(now)
            if ours.waiting < before:
                latest = max(latest, now + spread if day_turned and held_by else now)
                yield Departure(latest, before - ours.waiting, held_by.budget.id if held_by else None)
            if ours.waiting < before or ours.held_by() is not None:
                held_by = ours.held_by()
            changes = [change for each in self._lines for change in each.next_changes(now) if change is not None]
            if not changes or not any(change is not None for change in ours.next_changes(now)):
                return Estimate(None, held_by.budget.id if held_by else None)
            now = min(changes)
            if now > self._now + HORIZON:
                break
        return Estimate(max(latest, now), held_by.budget.id if held_by else None, is_known=False)

    def _share_out(self, now: datetime) -> None:
        """All that may go now: as many of each line that can, until none can."""
        while ready := [each for each in self._lines if each.is_ready(now)]:
            users = Counter(meter for each in ready for meter in each.meters)
            shares = [(each, each.share(users)) for each in ready]
            for each, share in shares:
                # At least one, where less is left than there are lines; the share again, as bulk mail shares less.
                if each.is_ready(now):
                    each.take(min(max(share, 1), each.share(Counter(each.meters))), now)


def _is_never(budget: Budget, line: Line) -> bool:
    return budget.is_never(is_bulk=line.is_bulk)
