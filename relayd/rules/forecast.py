"""A mailbox's days to come: what its limits let go on each, and what still waits at its end. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from relayd.rules.budget import Budget, Growth
from relayd.rules.budgets import BudgetKind
from relayd.rules.course import Line
from relayd.rules.daily_window import local_date
from relayd.rules.estimate import Departure, Outlook


@dataclass(frozen=True, slots=True)
class PlannedDay:
    """A day of the mailbox's zone, in recipients. `limit` None: none. `total`: what has left by its end, from now on.

    `joins`: scheduled for this day; `waiting`: left over at its end; `held_by`: the budget that these then wait for.
    """

    day: date
    limit: int | None
    leaves: int
    joins: int
    total: int
    waiting: int
    held_by: int | None


def forecast(
    lines: Sequence[Line],
    rivals: Sequence[Sequence[Line]],
    budgets: Mapping[int, Budget],
    daily: Budget,
    *,
    now: datetime,
    days: int,
) -> list[PlannedDay]:
    """So many days from today on, if nothing new comes and health is good. `rivals`: those of each line.

    `daily` is the mailbox's own budget, whose zone says what a day is.
    """
    today = local_date(daily.time_zone, now)
    last = today + timedelta(days=days - 1)
    departures = sorted(
        (
            departure
            for line, others in zip(lines, rivals, strict=True)
            for departure in _until(Outlook(line, budgets, others, now=now), daily.time_zone, last)
        ),
        key=lambda departure: departure.at,
    )
    leaves, joins = Counter[date](), Counter[date]()
    for departure in departures:
        leaves[local_date(daily.time_zone, departure.at)] += departure.units
    for line in lines:
        for at, units in line.arrivals:
            joins[max(local_date(daily.time_zone, at), today)] += units
    waiting, total, planned = sum(line.waiting for line in lines), 0, []
    for number in range(days):
        day = today + timedelta(days=number)
        total += leaves[day]
        waiting += joins[day] - leaves[day]
        after = (each.held_by for each in departures if local_date(daily.time_zone, each.at) > day)
        held_by = next(after, None) if waiting else None
        planned.append(PlannedDay(day, _limit(daily, number), leaves[day], joins[day], total, waiting, held_by))
    return planned


def supposing(budget: Budget, growth: Growth) -> Budget:
    """The budget as it would be if its mailbox grew like that; budgets that are not a mailbox's stay."""
    if budget.kind not in (BudgetKind.MAILBOX_DAY, BudgetKind.MAILBOX_HOUR):
        return budget
    limit = growth.limit(0, is_hourly=budget.is_hourly)
    return replace(budget, unit_limit=limit, bulk_limit=growth.without_reserve(limit), growth=growth)


def _until(outlook: Outlook, time_zone: str, last: date) -> Iterator[Departure]:
    for departure in outlook.departures():
        yield departure
        # The first that is later tells what the last day's leftovers wait for.
        if local_date(time_zone, departure.at) > last:
            return


def _limit(daily: Budget, days: int) -> int | None:
    if daily.growth is None or not days:
        return daily.unit_limit
    return daily.growth.limit(days, is_hourly=False)
