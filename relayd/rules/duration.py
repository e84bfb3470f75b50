"""Spans of time as operators write and read them: `15m`, `2h`, `3d`; "in 3 h 20 min"."""

import re
from datetime import UTC, datetime, timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PART = re.compile(r"(\d{1,9})([smhdw])")
_WHOLE = re.compile(r"(?:\d{1,9}[smhdw])+\Z")
_LONGEST = timedelta(days=36525)


def parse_duration(text: str) -> timedelta:
    """`90s`, `15m`, `2h`, `3d`, `1w` or several together (`1h30m`). Raises ValueError fit for an operator."""
    compact = text.strip().lower().replace(" ", "")
    if not _WHOLE.match(compact):
        raise ValueError(f"{text!r} is not a duration; write it like 15m, 2h, 3d or 1h30m")
    span = timedelta(seconds=sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(compact)))
    if span > _LONGEST:
        raise ValueError(f"{text!r} is longer than a hundred years")
    return span


def span_in_words(span: timedelta) -> str:
    """The two largest units, rounded to the smaller: `45 s`, `3 h 20 min`, `2 d 4 h`."""
    seconds = round(abs(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return _two(minutes, 60, "h", "min")
    return _two(round(seconds / 3600), 24, "d", "h")


def from_now(when: datetime, now: datetime) -> str:
    """`now`, `in 3 h 20 min` or `2 d 4 h ago`."""
    span = when - now
    if abs(span) < timedelta(seconds=1):
        return "now"
    return f"in {span_in_words(span)}" if span > timedelta() else f"{span_in_words(span)} ago"


def at_time(when: datetime, now: datetime) -> str:
    """`2026-11-22T00:00:00Z (in 3 h 20 min)`: exact for the log, relative for the reader."""
    return f"{iso(when)} ({from_now(when, now)})"


def iso(when: datetime) -> str:
    """UTC to the second: `2026-11-22T00:00:00Z`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _two(count: int, base: int, large: str, small: str) -> str:
    whole, rest = divmod(count, base)
    return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"
