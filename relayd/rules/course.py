"""How lines of waiting mail and the budgets that they share go on, from one change to the next. Pure.

As the claim does it: clients take turns, and the lanes of each; a lane that finds a budget spent is looked at again
when that budget's window turns, a little later, each mailbox at its own moment.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from relayd.rules.budget import HOUR, Budget, Release
from relayd.rules.daily_window import window_start

MINUTE = timedelta(minutes=1)
# A warming mailbox's next stage begins so long after its midnight; until then yesterday's limit holds.
GROWS_AFTER = timedelta(minutes=2)
# Of what releases are spread over after a day has turned, so much after an hour.
HOURLY_SPREAD = 0.1
# Of a client's turns, bulk mail has one to four of other mail.
BULK_WEIGHT = 0.25


@dataclass(frozen=True, slots=True)
class Line:
    """Units that wait in one lane, those that join it later, and the budgets that each of them has to fit."""

    waiting: int
    budget_ids: tuple[int, ...]
    is_bulk: bool = False
    not_before: datetime | None = None
    arrivals: tuple[tuple[datetime, int], ...] = ()  # in order: when so many become due
    spread: timedelta = timedelta()  # so long after a day has turned it is looked at
    client: str = ""  # clients take turns
    lane_id: int = 0  # of less than there are lines, the first of them get one each


class Meter:
    """One budget as time goes on."""

    def __init__(self, budget: Budget, now: datetime) -> None:
        self.budget = budget
        self._unit_limit, self._bulk_limit = budget.unit_limit, budget.bulk_limit
        self._used = budget.used
        self._turns_at = budget.turns_at
        self._releases = deque(budget.releases)
        if budget.is_rolling:
            # What is in flight is freed a window after its reply.
            in_flight = budget.used - sum(release.units for release in budget.releases)
            if in_flight > 0:
                self._release(now, in_flight)
        self._days = 0
        self._midnight = window_start(budget.time_zone, None, now, turns=1) if budget.growth else None

    def room(self, *, is_bulk: bool) -> int | None:
        """What is left for a class; None: any number."""
        limit = self._bulk_limit if is_bulk else self._unit_limit
        return None if limit is None else max(limit - self._used, 0)

    def take(self, units: int, at: datetime) -> None:
        """So many leave."""
        self._used += units
        if self.budget.is_rolling:
            self._release(at, units)

    @property
    def turns_at(self) -> datetime | None:
        """When some of it is free again."""
        if self.budget.is_rolling:
            return self._releases[0].frees_at if self._releases else None
        return self._turns_at

    @property
    def grows_at(self) -> datetime | None:
        """When its limit is raised."""
        return None if self._midnight is None else self._midnight + GROWS_AFTER

    def advance(self, now: datetime) -> bool:
        """Come to that moment. Whether the limit was raised, which lets its lanes be looked at."""
        while self._releases and self._releases[0].frees_at <= now:
            self._used -= self._releases.popleft().units
        while not self.budget.is_rolling and self._turns_at is not None and self._turns_at <= now:
            self._used = 0
            self._turns_at = (
                self._turns_at + HOUR
                if self.budget.is_hourly
                else window_start(self.budget.time_zone, self._turns_at, now, turns=2)
            )
        has_grown = False
        while self.grows_at is not None and self.grows_at <= now:
            self._grow()
            has_grown = True
        return has_grown

    def _release(self, at: datetime, units: int) -> None:
        # As budget_releases are kept: by the minute in which they are freed, never too early.
        frees_at = at.replace(second=0, microsecond=0) + MINUTE + self.budget.span
        if self._releases and self._releases[-1].frees_at >= frees_at:
            units += self._releases[-1].units
            frees_at = self._releases.pop().frees_at
        self._releases.append(Release(frees_at, units))

    def _grow(self) -> None:
        growth = self.budget.growth
        assert growth is not None and self._midnight is not None, "it has a midnight because it grows"
        self._days += 1
        self._unit_limit = growth.limit(self._days, is_hourly=self.budget.is_hourly)
        self._bulk_limit = growth.without_reserve(self._unit_limit)
        is_over = growth.is_over(self._days)
        self._midnight = (
            None if is_over else window_start(self.budget.time_zone, self._midnight, self._midnight, turns=2)
        )


class Waiting:
    """One line as time goes on. `held_by`: the budget that kept back what has not left yet."""

    def __init__(self, line: Line, meters: Sequence[Meter]) -> None:
        self.line = line
        self.waiting = line.waiting
        self.meters = meters
        self.held_by: Meter | None = None
        self._blocked_until = line.not_before
        self._arrivals = deque(line.arrivals)

    def is_ready(self, now: datetime) -> bool:
        """Whether one of it could go."""
        return self.waiting > 0 and not self._is_blocked(now) and not self._full()

    def share(self, part: Mapping[Meter, float]) -> int:
        """What it may take of each budget if it has that part of it, at most."""
        rooms = (
            int(room * part[meter] + 1e-6)
            for meter in self.meters
            if (room := meter.room(is_bulk=self.line.is_bulk)) is not None
        )
        return min([self.waiting, *rooms])

    def take(self, units: int, now: datetime) -> None:
        """So many leave."""
        self.waiting -= units
        for meter in self.meters:
            meter.take(units, now)

    def advance(self, now: datetime, grown: Sequence[Meter]) -> None:
        """Come to that moment, at which these budgets have grown."""
        while self._arrivals and self._arrivals[0][0] <= now:
            self.waiting += self._arrivals.popleft()[1]
        if any(meter in grown for meter in self.meters):
            self._blocked_until = None

    def block(self, now: datetime) -> None:
        """Wait for the budget that is free last, if any is spent."""
        full = self._full()
        if self._is_blocked(now):
            # It was so from the beginning; what is spent is why.
            self.held_by = self.held_by or (_latest(full) if full else None)
        elif self.waiting and full:
            self.held_by = _latest(full)
            turns_at = self.held_by.turns_at
            spread = self.line.spread
            if self.held_by.budget.is_rolling:
                spread = timedelta()
            elif self.held_by.budget.is_hourly:
                spread *= HOURLY_SPREAD
            self._blocked_until = turns_at + spread if turns_at else None

    def next_changes(self, now: datetime) -> Iterator[datetime]:
        """Whatever may let more of it go, as far as it waits."""
        if self._arrivals:
            yield self._arrivals[0][0]
        if self.waiting and self._blocked_until is not None and self._blocked_until > now:
            yield self._blocked_until
        if self.waiting:
            yield from (grows_at for meter in self.meters if (grows_at := meter.grows_at) is not None)

    def _is_blocked(self, now: datetime) -> bool:
        return self._blocked_until is not None and self._blocked_until > now

    def _full(self) -> list[Meter]:
        return [meter for meter in self.meters if meter.room(is_bulk=self.line.is_bulk) == 0]


def share_out(lines: Sequence[Waiting], now: datetime) -> None:
    """All that may go now: clients take turns, their lanes too, until none can."""
    while ready := [each for each in lines if each.is_ready(now)]:
        of_client: dict[str, float] = {}
        for each in ready:
            of_client[each.line.client] = of_client.get(each.line.client, 0) + _weight(each.line)
        weights = {each: _weight(each.line) / of_client[each.line.client] for each in ready}
        users: dict[Meter, float] = {}
        for each in ready:
            for meter in each.meters:
                users[meter] = users.get(meter, 0) + weights[each]
        shares = [(each, each.share({meter: weights[each] / users[meter] for meter in each.meters})) for each in ready]
        for each, share in shares:
            # At least one, where less is left than there are lines; never more than is left, as bulk mail has less.
            if each.is_ready(now):
                each.take(min(max(share, 1), each.share(dict.fromkeys(each.meters, 1))), now)


def _weight(line: Line) -> float:
    return BULK_WEIGHT if line.is_bulk else 1.0


def _latest(full: Sequence[Meter]) -> Meter:
    return max(full, key=lambda meter: meter.turns_at or datetime.max.replace(tzinfo=UTC))
