from datetime import UTC, datetime, timedelta

import pytest

from relayd.rules.duration import from_now, parse_duration, span_in_words

NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2H", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1w", timedelta(days=7)),
        (" 1h 30m ", timedelta(minutes=90)),
    ],
)
def test_durations_are_read(text: str, span: timedelta) -> None:
    assert parse_duration(text) == span


@pytest.mark.parametrize("text", ["", "15", "m", "-1h", "1.5h", "1y", "9999999d", "1h30"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|hundred years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(seconds=59.4), "59 s"),
        (timedelta(seconds=60), "1 min"),
        (timedelta(minutes=200), "3 h 20 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(hours=52), "2 d 4 h"),
    ],
)
def test_spans_in_words(span: timedelta, words: str) -> None:
    assert span_in_words(span) == words


def test_relative_to_now() -> None:
    assert from_now(NOW, NOW) == "now"
    assert from_now(NOW + timedelta(minutes=5), NOW) == "in 5 min"
    assert from_now(NOW - timedelta(minutes=5), NOW) == "5 min ago"
