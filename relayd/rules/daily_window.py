"""When a mailbox's daily window turns: midnight in its time zone, days of 23 and 25 hours included."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def window_start(time_zone: str, window_ends_at: datetime | None, now: datetime, *, turns: int) -> datetime:
    """When the `turns`-th window from now begins (1: the next), in UTC. `window_ends_at` None: none is open."""
    zone = _zone(time_zone)
    if zone is None:
        # Days of 24 hours are near enough for an estimate.
        return (window_ends_at or now + timedelta(days=1)) + timedelta(days=turns - 1)
    first = window_ends_at or _midnight_after(now, zone)
    return _midnight_after(first, zone, days=turns - 1) if turns > 1 else first.astimezone(UTC)


def local_date(time_zone: str, when: datetime) -> date:
    """The day that it then is in that zone."""
    return when.astimezone(_zone(time_zone) or UTC).date()


def _zone(time_zone: str) -> tzinfo | None:
    try:
        return ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None  # Postgres knows zones that Python does not


def _midnight_after(when: datetime, zone: tzinfo, *, days: int = 1) -> datetime:
    day = when.astimezone(zone).date() + timedelta(days=days)
    return datetime.combine(day, time(), zone).astimezone(UTC)
