from datetime import UTC, datetime, timedelta

import pytest

from relayd.rules.daily_window import window_start


@pytest.mark.parametrize(
    ("window_ends_at", "turns", "expected"),
    [
        (datetime(2026, 10, 23, 22, tzinfo=UTC), 1, datetime(2026, 10, 23, 22, tzinfo=UTC)),
        # The night of 25 October has 25 hours in Berlin.
        (datetime(2026, 10, 23, 22, tzinfo=UTC), 2, datetime(2026, 10, 24, 22, tzinfo=UTC)),
        (datetime(2026, 10, 23, 22, tzinfo=UTC), 3, datetime(2026, 10, 25, 23, tzinfo=UTC)),
        (None, 1, datetime(2026, 10, 23, 22, tzinfo=UTC)),
        (None, 3, datetime(2026, 10, 25, 23, tzinfo=UTC)),
    ],
)
def test_windows_begin_at_local_midnight(window_ends_at: datetime | None, turns: int, expected: datetime) -> None:
    now = datetime(2026, 10, 23, 12, tzinfo=UTC)
    assert window_start("Europe/Berlin", window_ends_at, now, turns=turns) == expected


def test_a_zone_that_python_does_not_know_has_days_of_24_hours() -> None:
    now = datetime(2026, 10, 23, 12, tzinfo=UTC)
    assert window_start("<+03>-3", now, now, turns=3) == now + timedelta(days=2)
