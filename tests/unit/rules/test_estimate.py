from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from relayd.rules.budget import Budget, Growth, Release
from relayd.rules.budgets import BudgetKind
from relayd.rules.course import Line
from relayd.rules.estimate import ENDLESS, Departure, Estimate, Outlook
from relayd.rules.warm_up import Schedule

NOW = datetime(2026, 11, 21, 20, 0, 30, tzinfo=UTC)
MIDNIGHT_BERLIN = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)

MAILBOX = Budget(
    id=1,
    kind=BudgetKind.MAILBOX_DAY,
    owner="noreply@example.com",
    user=None,
    unit_limit=50,
    bulk_limit=40,
    used=10,
    is_rolling=False,
    span=DAY,
    time_zone="Europe/Berlin",
    turns_at=MIDNIGHT_BERLIN,
)
PACE = replace(
    MAILBOX,
    id=2,
    kind=BudgetKind.MAILBOX_HOUR,
    unit_limit=3,
    bulk_limit=3,
    used=1,
    span=HOUR,
    turns_at=datetime(2026, 11, 21, 21, 0, tzinfo=UTC),
)
DOMAIN = replace(
    MAILBOX, id=3, kind=BudgetKind.DOMAIN_DAY, owner="example.com", time_zone="UTC", turns_at=MIDNIGHT, unit_limit=30
)
FREED = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
QUOTA = replace(
    MAILBOX,
    id=4,
    kind=BudgetKind.PROVIDER_DAY,
    owner="gmail",
    is_rolling=True,
    unit_limit=20,
    bulk_limit=20,
    used=20,
    turns_at=FREED,
    releases=(Release(FREED, 5), Release(FREED + 2 * HOUR, 15)),
)


def outlook(*budgets: Budget, rivals: tuple[Line, ...] = (), **line: object) -> Outlook:
    by_id = {budget.id: budget for budget in budgets}
    own = Line(**{"waiting": ENDLESS, "budget_ids": tuple(by_id), **line})  # type: ignore[arg-type]
    return Outlook(own, by_id, rivals, now=NOW)


@pytest.mark.parametrize(
    ("place", "at"),
    [
        (0, NOW),
        (39, NOW),
        (40, MIDNIGHT_BERLIN),
        (89, MIDNIGHT_BERLIN),
        (90, MIDNIGHT_BERLIN + DAY),
        (40 + 50 * 9, MIDNIGHT_BERLIN + 9 * DAY),
    ],
)
def test_a_calendar_day_lets_its_limit_go_at_each_midnight(place: int, at: datetime) -> None:
    assert outlook(MAILBOX).leaves(place) == Estimate(at, None if at == NOW else MAILBOX.id)


@pytest.mark.parametrize(
    ("now", "turns_at", "next_turn"),
    [
        # 23 hours, then 25.
        ((2027, 3, 27, 12), (2027, 3, 27, 23), (2027, 3, 28, 22)),
        ((2027, 10, 30, 12), (2027, 10, 30, 22), (2027, 10, 31, 23)),
    ],
)
def test_days_of_daylight_saving_are_as_long_as_they_are(
    now: tuple[int, ...], turns_at: tuple[int, ...], next_turn: tuple[int, ...]
) -> None:
    budget = replace(MAILBOX, used=50, turns_at=datetime(*turns_at, tzinfo=UTC))  # type: ignore[arg-type,misc]
    own = Line(ENDLESS, (1,))
    found = Outlook(own, {1: budget}, now=datetime(*now, tzinfo=UTC))  # type: ignore[arg-type,misc]
    assert found.leaves(0).at == budget.turns_at
    assert found.leaves(50).at == datetime(*next_turn, tzinfo=UTC)  # type: ignore[arg-type,misc]


def test_the_slowest_of_several_budgets_binds_and_is_named() -> None:
    found = outlook(MAILBOX, PACE, DOMAIN)
    # Two more in this hour, three in each that follows; the domain has 20 left until midnight.
    assert found.leaves(1) == Estimate(NOW, None)
    assert found.leaves(2) == Estimate(datetime(2026, 11, 21, 21, tzinfo=UTC), PACE.id)
    assert found.leaves(10) == Estimate(datetime(2026, 11, 21, 23, tzinfo=UTC), PACE.id)
    domain_full = outlook(MAILBOX, PACE, replace(DOMAIN, used=30))
    assert domain_full.leaves(0) == Estimate(MIDNIGHT, DOMAIN.id)
    assert domain_full.leaves(3) == Estimate(MIDNIGHT + HOUR, PACE.id)


def test_a_rolling_window_frees_units_a_day_after_each_was_sent() -> None:
    found = outlook(QUOTA)
    assert found.leaves(0) == Estimate(FREED, QUOTA.id)
    assert found.leaves(4).at == FREED
    assert found.leaves(5).at == FREED + 2 * HOUR
    assert found.leaves(19).at == FREED + 2 * HOUR
    # What left at three is freed a minute after three the next day, never too early.
    assert found.leaves(20).at == FREED + DAY + MINUTE
    assert found.leaves(25).at == FREED + DAY + 2 * HOUR + MINUTE


def test_what_is_in_flight_in_a_rolling_window_is_freed_too() -> None:
    found = outlook(replace(QUOTA, releases=(), turns_at=None))
    assert found.leaves(0).at == datetime(2026, 11, 22, 20, 1, tzinfo=UTC)


def test_a_rolling_hour() -> None:
    found = outlook(replace(QUOTA, span=HOUR, kind=BudgetKind.PROVIDER_HOUR, releases=(), used=0, turns_at=None))
    assert found.leaves(19).at == NOW
    assert found.leaves(20).at == datetime(2026, 11, 21, 21, 1, tzinfo=UTC)
    assert found.leaves(40).at == datetime(2026, 11, 21, 22, 2, tzinfo=UTC)


def test_bulk_mail_has_its_own_part() -> None:
    assert outlook(MAILBOX, is_bulk=True).leaves(29).at == NOW
    assert outlook(MAILBOX, is_bulk=True).leaves(30) == Estimate(MIDNIGHT_BERLIN, MAILBOX.id)
    reserved = outlook(replace(MAILBOX, used=45), is_bulk=True)
    assert reserved.leaves(0).at == MIDNIGHT_BERLIN and reserved.leaves(40).at == MIDNIGHT_BERLIN + DAY


def test_zero_is_never_and_no_limit_is_now() -> None:
    assert outlook(MAILBOX, replace(DOMAIN, unit_limit=0)).leaves(0) == Estimate(None, DOMAIN.id)
    assert outlook(replace(MAILBOX, bulk_limit=0), is_bulk=True).leaves(0) == Estimate(None, MAILBOX.id)
    assert outlook(replace(MAILBOX, unit_limit=None)).leaves(1_000_000) == Estimate(NOW, None)
    assert outlook().leaves(7) == Estimate(NOW, None)


def test_beyond_a_year_it_only_says_not_before() -> None:
    found = outlook(replace(MAILBOX, unit_limit=1, used=1)).leaves(1_000)
    assert not found.is_known and found.at is not None and found.at - NOW > 365 * DAY


def test_lines_that_share_a_budget_take_turns() -> None:
    alone = Line(1_000, (DOMAIN.id,))
    found = outlook(DOMAIN, rivals=(alone, alone))
    # 20 are left for three lines, then 30 a day.
    assert found.leaves(6).at == NOW
    assert found.leaves(7) == Estimate(MIDNIGHT, DOMAIN.id)
    assert found.leaves(16).at == MIDNIGHT
    assert found.leaves(17).at == MIDNIGHT + DAY


def test_what_a_rival_may_not_use_is_left_to_others() -> None:
    slow = replace(MAILBOX, id=9, owner="slow@example.com", unit_limit=5, used=5, time_zone="UTC", turns_at=MIDNIGHT)
    found = Outlook(Line(ENDLESS, (3,)), {3: DOMAIN, 9: slow}, [Line(1_000, (3, 9))], now=NOW)
    assert found.leaves(19).at == NOW
    assert found.leaves(20 + 24).at == MIDNIGHT
    assert found.leaves(20 + 25).at == MIDNIGHT + DAY


def test_a_rival_with_little_left_stands_in_the_way_that_long() -> None:
    found = outlook(DOMAIN, rivals=(Line(4, (DOMAIN.id,)),))
    assert found.leaves(15).at == NOW and found.leaves(16).at == MIDNIGHT


def test_a_warming_mailbox_lets_more_go_each_day_two_minutes_after_midnight() -> None:
    growth = Growth(Schedule.parse("10x2,20x2,75"), stage=1, cap=None, bulk_reserve_percent=50)
    budget = replace(MAILBOX, unit_limit=10, bulk_limit=5, used=10, growth=growth)
    found = outlook(budget)
    late = timedelta(minutes=2)
    assert [found.leaves(place).at for place in (0, 9, 10, 19)] == [
        *[MIDNIGHT_BERLIN] * 2,
        *[MIDNIGHT_BERLIN + late] * 2,
    ]
    assert found.leaves(20 + 19).at == MIDNIGHT_BERLIN + DAY
    assert found.leaves(20 + 20).at == MIDNIGHT_BERLIN + 2 * DAY
    assert found.leaves(20 + 20 + 74).at == MIDNIGHT_BERLIN + 2 * DAY + late
    assert found.leaves(20 + 20 + 75).at == MIDNIGHT_BERLIN + 3 * DAY
    assert outlook(replace(budget, growth=replace(growth, cap=15))).leaves(15).at == MIDNIGHT_BERLIN + DAY
    assert outlook(budget, is_bulk=True).leaves(9).at == MIDNIGHT_BERLIN + late


def test_clients_take_turns_and_so_do_the_lanes_of_each() -> None:
    shared = replace(DOMAIN, used=0, unit_limit=60, bulk_limit=60)
    many = tuple(Line(1_000, (DOMAIN.id,), client="many", lane_id=number) for number in range(1, 11))
    assert outlook(shared, rivals=many, client="one").leaves(29).at == NOW
    assert outlook(shared, rivals=many, client="one").leaves(30).at == MIDNIGHT
    bulk = Line(1_000, (DOMAIN.id,), is_bulk=True, lane_id=1)
    assert outlook(shared, rivals=(bulk,)).leaves(47).at == NOW
    assert outlook(shared, rivals=(bulk,)).leaves(48).at == MIDNIGHT


def test_who_is_looked_at_first_after_a_turn_takes_first() -> None:
    spent = replace(DOMAIN, used=30)
    rival = Line(1_000, (DOMAIN.id,), spread=MINUTE)
    assert outlook(spent, rivals=(rival,)).leaves(29).at == MIDNIGHT
    late = outlook(spent, rivals=(replace(rival, waiting=40),), spread=2 * MINUTE)
    assert late.leaves(0) == Estimate(MIDNIGHT + DAY + 2 * MINUTE, DOMAIN.id)


def test_releases_are_spread_after_a_day_has_turned_and_less_after_an_hour() -> None:
    spread = timedelta(minutes=4)
    assert outlook(replace(MAILBOX, used=50), spread=spread).leaves(0).at == MIDNIGHT_BERLIN + spread
    assert outlook(PACE, spread=spread).leaves(2).at == datetime(2026, 11, 21, 21, 0, 24, tzinfo=UTC)
    assert outlook(MAILBOX, spread=spread).leaves(0).at == NOW


def test_a_parked_line_lets_others_go_first() -> None:
    until = NOW + HOUR
    rival = Line(15, (DOMAIN.id,))
    found = outlook(DOMAIN, rivals=(rival,), not_before=until)
    assert found.leaves(4) == Estimate(until, None)
    assert found.leaves(5) == Estimate(MIDNIGHT, DOMAIN.id)
    blocked = outlook(replace(MAILBOX, used=50), not_before=MIDNIGHT_BERLIN + MINUTE, spread=MINUTE)
    assert blocked.leaves(0) == Estimate(MIDNIGHT_BERLIN + MINUTE, MAILBOX.id)


def test_departures_end_with_what_waits_and_count_what_comes() -> None:
    found = outlook(replace(MAILBOX, used=50), waiting=60, arrivals=((MIDNIGHT_BERLIN + 30 * HOUR, 7),))
    assert list(found.departures()) == [
        Departure(MIDNIGHT_BERLIN, 50, MAILBOX.id),
        Departure(MIDNIGHT_BERLIN + DAY, 10, MAILBOX.id),
        Departure(MIDNIGHT_BERLIN + 30 * HOUR, 7, None),
    ]
