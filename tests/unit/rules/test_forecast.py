from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from relayd.rules.budget import Budget, Growth
from relayd.rules.budgets import BudgetKind
from relayd.rules.course import Line
from relayd.rules.forecast import PlannedDay, forecast, supposing
from relayd.rules.warm_up import Schedule
from tests.unit.rules.test_warm_up import schedules

NOW = datetime(2026, 11, 21, 20, tzinfo=UTC)
TODAY = date(2026, 11, 21)
DAY = timedelta(days=1)
DAILY = Budget(
    id=1,
    kind=BudgetKind.MAILBOX_DAY,
    owner="noreply@example.com",
    user=None,
    unit_limit=10,
    bulk_limit=10,
    used=4,
    is_rolling=False,
    span=DAY,
    time_zone="Europe/Berlin",
    turns_at=datetime(2026, 11, 21, 23, tzinfo=UTC),
)
DOMAIN = replace(DAILY, id=2, kind=BudgetKind.DOMAIN_DAY, owner="example.com", unit_limit=70, bulk_limit=70)


def test_day_by_day_with_what_is_scheduled_and_what_is_left_over() -> None:
    line = Line(50, (1,), arrivals=((NOW + DAY, 5), (NOW + 3 * DAY, 2)))
    growing = supposing(DAILY, Growth(Schedule.parse("10x2,75"), 0, None, 0))
    assert forecast([line], [()], {1: growing}, growing, now=NOW, days=4) == [
        PlannedDay(TODAY, 10, 6, 0, 6, 44, 1),
        PlannedDay(TODAY + DAY, 10, 10, 5, 16, 39, 1),
        PlannedDay(TODAY + 2 * DAY, 75, 39, 0, 55, 0, None),
        PlannedDay(TODAY + 3 * DAY, 75, 2, 2, 57, 0, None),
    ]


def test_other_limits_hold_too_and_are_named() -> None:
    growing = supposing(DAILY, Growth(Schedule.parse("100x2,500"), 0, None, 0))
    days = forecast([Line(200, (1, 2))], [()], {1: growing, 2: DOMAIN}, growing, now=NOW, days=3)
    assert [(day.limit, day.leaves, day.held_by) for day in days] == [(100, 66, 2), (100, 70, 2), (500, 64, None)]


def test_both_lanes_of_a_mailbox_together_keep_its_limit() -> None:
    lines = (Line(30, (1,), lane_id=1), Line(30, (1,), is_bulk=True, lane_id=2))
    odd = replace(DAILY, unit_limit=11, bulk_limit=11)
    days = forecast(lines, [lines[1:], lines[:1]], {1: odd}, odd, now=NOW, days=7)
    assert [day.leaves for day in days] == [7, *[11] * 4, 9, 0]


@given(schedules, st.integers(0, 60), st.integers(0, 5000), st.integers(0, 50))
def test_everything_leaves_and_never_more_than_a_days_limit(
    schedule: Schedule, stage: int, backlog: int, used: int
) -> None:
    budget = replace(supposing(DAILY, Growth(schedule, stage, None, 0)), used=used)
    days = forecast([Line(backlog, (1,))], [()], {1: budget}, budget, now=NOW, days=60)
    assert sum(day.leaves for day in days) + days[-1].waiting == backlog
    for number, day in enumerate(days):
        assert day.limit == schedule.limit(stage + number) >= day.leaves
        assert not day.waiting or day.leaves == max(day.limit - (0 if number else used), 0)
    assert days[0].leaves <= max(schedule.limit(stage) - used, 0)
