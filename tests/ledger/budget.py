"""What one budget promises, counted by us: moments of replies and attempts under way, nothing of relayd's numbers.

The promise, by the readings of the database's clock:

- No attempt begins beyond the limit: what was answered in the window that holds this moment, and what is under way,
  this attempt included, is at most the limit in force at this moment. A lowered limit lets what is under way end.
- So no calendar day (hour) of the zone holds more counted replies than the largest limit under which one of them
  began; and no span of 24 hours (one hour) of a rolling window does.
- Bulk mail is claimed only as far as its part of the limit reaches, everything counted that is reserved.
- What is sent counts, and what may have been sent.

What is not promised:

- Replies from before there was the budget. One that becomes rolling looks back to the beginning of the calendar window
  that was open; one that becomes calendar to the beginning of the span.
- Windows before the one before the latest that the clock has been in, where it goes back that far, until it is past
  the latest moment again.
- Which side an attempt counts on during which the clock was set back: it has no reading that could be promised.
- A reply that comes after its attempt was taken back as in doubt: it counts at that moment. A lease is longer than an
  attempt may last, so only a clock that leaps ahead brings this about.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Terms:
    """A limit as its owner says it."""

    limit: int | None
    reserve_percent: int
    is_rolling: bool
    span: timedelta
    zone: str

    @property
    def bulk_limit(self) -> int | None:
        """What bulk mail may use of it."""
        return None if self.limit is None else self.limit - -(-self.limit * self.reserve_percent // 100)

    def day(self, moment: datetime) -> Any:
        """The calendar window that holds it: the zone's date, or the hour."""
        if self.span < timedelta(days=1):
            return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return moment.astimezone(ZoneInfo(self.zone)).date()


@dataclass(eq=False, slots=True)
class Budget:
    """One budget from its beginning to its end. `exact`: nothing has happened yet for which relayd counts too much."""

    kind: str
    owner: Any
    terms: Terms
    exact: bool
    floor: datetime = NEVER
    lost_until: datetime = NEVER  # the clock is further back than relayd looks
    claimed: set[Any] = field(default_factory=set)
    flying: set[Any] = field(default_factory=set)
    replies: list[tuple[datetime, int | None]] = field(default_factory=list)  # and the limit when the attempt began
    settled: list[datetime] = field(default_factory=list)

    def __repr__(self) -> str:
        window = "rolling" if self.terms.is_rolling else f"calendar {self.terms.zone}"
        return f"{self.kind} of {self.owner} ({window}, limit {self.terms.limit}, bulk {self.terms.bulk_limit})"

    def change(self, terms: Terms, now: datetime) -> None:
        """The owner says something else."""
        if terms.is_rolling and not self.terms.is_rolling:
            self.floor = max(self.floor, min((t for t, _ in self._in_day(now)), default=now))
            self.replies = [each for each in self.replies if each[0] <= now]
        elif self.terms.is_rolling and not terms.is_rolling:
            self.floor = max(self.floor, now - terms.span)
        if (terms.is_rolling, terms.zone) != (self.terms.is_rolling, self.terms.zone):
            self.exact = False
        self.terms = terms

    def set_back(self, latest: datetime, aim: datetime) -> None:
        """The clock goes back to there."""
        self.exact = False
        if not self.terms.is_rolling and self.terms.day(aim) < self.terms.day(latest) - self.terms.span:
            self.lost_until = self.floor = max(latest, self.floor)

    def is_promised(self, now: datetime) -> bool:
        """Whether a limit can be held to at this moment."""
        return now > self.lost_until

    def in_window(self, now: datetime) -> list[tuple[datetime, int | None]]:
        """The replies of the window that holds this moment. A rolling one holds what is ahead of it, too: the clock
        was there and went back."""
        if not self.terms.is_rolling:
            return self._in_day(now)
        return [each for each in self.replies if each[0] > now - self.terms.span and each[0] >= self.floor]

    def expected_use(self, now: datetime) -> int:
        """What relayd should say is used, as long as it is exact."""
        if self.terms.is_rolling:
            held = sum(t.replace(second=0, microsecond=0) + MINUTE + self.terms.span > now for t in self.settled)
        else:
            held = sum(self.terms.day(t) == self.terms.day(now) for t in self.settled)
        return held + len(self.claimed)

    def span_ending_at(self, moment: datetime) -> list[tuple[datetime, int | None]]:
        """The replies in the window that a reply at this moment makes full."""
        if not self.terms.is_rolling:
            return self._in_day(moment)
        return [each for each in self.replies if moment - self.terms.span < each[0] <= moment and each[0] >= self.floor]

    def _in_day(self, moment: datetime) -> list[tuple[datetime, int | None]]:
        day = self.terms.day(moment)
        return [each for each in self.replies if each[0] >= self.floor and self.terms.day(each[0]) == day]
