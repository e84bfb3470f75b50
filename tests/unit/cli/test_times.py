"""Times and ages as people type them."""

from datetime import UTC, datetime, timedelta

import pytest

from relayd.cli.times import parse_age, since_when
from relayd.errors import RelaydError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        (" 12h ", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_ages(text: str, age: timedelta) -> None:
    assert parse_age(text) == age
    assert since_when(text, NOW) == NOW - age


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "999999999w", "soon", "٣d"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(RelaydError):
        parse_age(text)
    with pytest.raises(RelaydError):
        since_when(text, NOW)


def test_times_have_a_zone() -> None:
    assert since_when("2026-11-21T08:00:00+02:00", NOW) == datetime(2026, 11, 21, 6, tzinfo=UTC)
    assert since_when("2026-11-21", NOW).tzinfo is not None
