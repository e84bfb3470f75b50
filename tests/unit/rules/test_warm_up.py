from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.rules.warm_up import (
    DEFAULT_SCHEDULE,
    BadSchedule,
    Gate,
    Health,
    Schedule,
    Step,
    Turn,
    turn,
)

WELL = Health(sent=100, bounce_rate=0.0, spam_rate=0.0)
GATE = Gate()
steps = st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 40)), min_size=1, max_size=8).map(
    lambda pairs: tuple(
        Step(limit, days) for limit, (_, days) in zip(accumulate(limit for limit, _ in pairs), pairs, strict=True)
    )
)
schedules = steps.map(lambda each: Schedule(each, each[-1].limit + 10))


def test_the_schedule_that_comes_with_relayd() -> None:
    limits = [DEFAULT_SCHEDULE.limit(stage) for stage in range(32)]
    assert limits == [10] * 5 + [20] * 5 + [30] * 5 + [40] * 5 + [50] * 5 + [60] * 5 + [75] * 2
    assert [list(accumulate(limits))[day - 1] for day in (5, 10, 15, 20, 25, 30)] == [50, 150, 300, 500, 750, 1050]
    assert (DEFAULT_SCHEDULE.days, DEFAULT_SCHEDULE.is_complete(29), DEFAULT_SCHEDULE.is_complete(30)) == (
        30,
        False,
        True,
    )


@given(schedules)
def test_a_schedule_is_read_as_it_is_written_and_never_decreases(schedule: Schedule) -> None:
    assert Schedule.parse(str(schedule)) == schedule
    limits = [schedule.limit(stage) for stage in range(schedule.days + 2)]
    assert limits == sorted(limits)
    assert limits[-1] == limits[-2] == schedule.after


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("20x5,10x5,75", "limits never decrease: 10 comes after 20"),
        ("10x5,20x5,15", "limits never decrease: 15 comes after 20"),
        ("10x5,20x0,75", "at least one day"),
        ("0x5,75", "every limit is between 1"),
        ("10x5,99999999999", "is not the limit"),
        ("10x5,2147483648", "every limit is between 1"),
        ("75", "at least one step"),
        ("10x5,20x5", "write it last"),
        ("10x5,,75", "is no step"),
        ("-10x5,75", "is no step"),
        ("10x300,20x66,75", "at most 365 days, not 366"),
        ("", "write it last"),
        ("٣x5,75", "is no step"),
    ],
)
def test_what_is_no_schedule_says_why(text: str, says: str) -> None:
    with pytest.raises(BadSchedule, match=says):
        Schedule.parse(text)


def test_a_day_goes_on_and_several_go_on_by_as_many() -> None:
    assert turn(DEFAULT_SCHEDULE, 4, days=1, used=None, health=WELL, gate=GATE) == Turn(5)
    assert turn(DEFAULT_SCHEDULE, 4, days=3, used=None, health=WELL, gate=GATE) == Turn(7)
    assert turn(DEFAULT_SCHEDULE, 29, days=9, used=None, health=WELL, gate=GATE) == Turn(30)


def test_where_only_used_days_count_the_others_do_not() -> None:
    assert turn(DEFAULT_SCHEDULE, 4, days=3, used=[True, False, True], health=WELL, gate=GATE) == Turn(6)
    held = turn(DEFAULT_SCHEDULE, 4, days=1, used=[False], health=WELL, gate=GATE)
    assert held == Turn(4, "held: nothing was sent")


@pytest.mark.parametrize(
    ("health", "stage", "reason"),
    [
        (Health(100, 0.049, 0.0), 12, None),
        (Health(100, 0.05, 0.0), 11, "held: bounce rate 5.0% of 100"),
        (Health(100, 0.10, 0.0), 5, "lowered: bounce rate 10.0% of 100"),
        (Health(1000, 0.0, 0.001), 11, "held: complaint rate 0.1% of 1000"),
        (Health(1000, 0.0, 0.003), 5, "lowered: complaint rate 0.3% of 1000"),
        (Health(1000, 0.06, 0.003), 5, "lowered: complaint rate 0.3% of 1000"),
        (Health(19, 1.0, 1.0), 12, None),
        (Health(20, 1.0, 0.0), 5, "lowered: bounce rate 100.0% of 20"),
    ],
)
def test_bad_health_holds_a_stage_and_worse_health_lowers_it(health: Health, stage: int, reason: str | None) -> None:
    assert turn(DEFAULT_SCHEDULE, 11, days=1, used=None, health=health, gate=GATE) == Turn(stage, reason)


@given(schedules, st.integers(0, 400), st.floats(0, 1), st.floats(0, 1), st.integers(0, 500), st.integers(0, 30))
def test_no_turn_leaves_the_schedule_or_hurries(
    schedule: Schedule, stage: int, bounces: float, spam: float, sent: int, days: int
) -> None:
    stage = min(stage, schedule.days)
    after = turn(schedule, stage, days=days, used=None, health=Health(sent, bounces, spam), gate=GATE)
    assert 0 <= after.stage <= min(stage + days, schedule.days)
    assert (after.stage == min(stage + days, schedule.days)) or after.reason
