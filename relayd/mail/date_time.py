"""Read a date-time (RFC 5322 3.3), strictly: what two programs could read as two moments is refused."""

import re
from datetime import UTC, datetime, timedelta, timezone

MAX_OCTETS = 128

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Obsolete names of zones (4.3) but for UTC's own: what EST means has changed, and was read in more than one way.
_DATE_TIME = re.compile(
    r"(?:(?P<weekday>[a-z]{3}),[ \t]*)?(?P<day>\d{1,2})[ \t]+(?P<month>[a-z]{3})[ \t]+(?P<year>\d{4})[ \t]+"
    r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d))?[ \t]+"
    r"(?:(?P<sign>[+-])(?P<zone_hours>\d\d)(?P<zone_minutes>[0-5]\d)|gmt|ut|utc)(?:[ \t]*\([^()\\]*\))?",
    re.ASCII,
)


def parse_date_time(value: bytes) -> datetime:
    """The moment, aware. Raises ValueError with a reason fit for a reply, which does not quote the value."""
    found = _DATE_TIME.fullmatch(value.decode("ascii", "replace").lower()) if len(value) <= MAX_OCTETS else None
    if found is None or found["month"] not in _MONTHS:
        raise ValueError("is not a date such as Tue, 01 Jul 2025 10:52:37 +0200")
    try:
        when = datetime(
            int(found["year"]),
            _MONTHS.index(found["month"]) + 1,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            _second(found),
            tzinfo=_zone(found),
        )
        when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("names a day or an hour that does not exist") from None
    if found["weekday"] and found["weekday"] != _DAYS[when.weekday()]:
        raise ValueError(f"names a day of the week that this date is not: it is a {_DAYS[when.weekday()].title()}")
    return when


def _zone(found: re.Match[str]) -> timezone:
    if not found["sign"]:
        return UTC
    offset = timedelta(hours=int(found["zone_hours"]), minutes=int(found["zone_minutes"]))
    return timezone(-offset if found["sign"] == "-" else offset)


def _second(found: re.Match[str]) -> int:
    # A leap second is the second before it: no clock here has one.
    return 59 if found["second"] == "60" else int(found["second"] or 0)
