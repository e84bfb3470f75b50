"""Times and ages as people type them."""

import re
from datetime import datetime, timedelta

from relayd.errors import RelaydError

_AGE = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_age(text: str) -> timedelta:
    """`90s`, `15m`, `12h`, `7d`, `2w`. Raises RelaydError."""
    match = _AGE.fullmatch(text.strip())
    try:
        if match:
            return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        pass
    raise RelaydError(f"{text} is no age; write it as 90s, 15m, 12h, 7d or 2w")


def since_when(text: str, now: datetime) -> datetime:
    """An age back from `now`, or a time in ISO 8601; without a zone it is this machine's. Raises RelaydError."""
    if _AGE.fullmatch(text.strip()):
        try:
            return now - parse_age(text)
        except OverflowError:
            raise RelaydError(f"{text} is too long ago") from None
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise RelaydError(f"{text} is no time; write 2026-11-21T08:00, or how long ago: 15m, 12h, 7d") from None
