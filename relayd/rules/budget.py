"""One budget: what may leave, of whom, in which window, and how it goes on. A send fits all that its lane has."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from relayd.rules.budgets import BudgetKind
from relayd.rules.warm_up import Schedule

HOUR = timedelta(hours=1)

# mailbox_lanes.blocked_reason where a budget is what blocks; others are what the upstream said.
LIMIT_REASONS = frozenset(
    {
        "mailbox daily limit",
        "mailbox hourly pace",
        "domain daily limit",
        "client daily limit",
        "provider daily quota",
        "provider hourly quota",
    }
)


@dataclass(frozen=True, slots=True)
class Growth:
    """How a warming mailbox's limit goes on, as long as its mail is welcome: a stage further each day."""

    schedule: Schedule
    stage: int
    cap: int | None
    bulk_reserve_percent: int

    def limit(self, days: int, *, is_hourly: bool) -> int:
        """The limit so many days from today."""
        daily = self.schedule.limit(self.stage + days)
        if self.cap is not None:
            daily = min(daily, self.cap)
        return math.ceil(daily / 24) if is_hourly else daily

    def is_over(self, days: int) -> bool:
        """Whether nothing changes after so many days."""
        return self.schedule.is_complete(self.stage + days)

    def without_reserve(self, limit: int) -> int:
        """What bulk mail may use of a limit."""
        return limit - math.ceil(limit * self.bulk_reserve_percent / 100)


@dataclass(frozen=True, slots=True)
class Release:
    """Units of a rolling window that are freed together."""

    frees_at: datetime
    units: int


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget at one instant, in recipients. `unit_limit` None: counted and not limited.

    `turns_at`: when a calendar window begins anew, or when a rolling one next frees some (None: nothing is used).
    `owner` is the mailbox, domain, client or upstream that has the limit; `user` the mailbox that it allows so much.
    """

    id: int
    kind: BudgetKind
    owner: str
    user: str | None
    unit_limit: int | None
    bulk_limit: int | None  # what of it bulk mail may use
    used: int
    is_rolling: bool
    span: timedelta
    time_zone: str
    turns_at: datetime | None
    releases: tuple[Release, ...] = ()
    growth: Growth | None = None
    told: str | None = None  # the provider's own words, where it is spent because the provider says so
    told_at: datetime | None = None

    def limit(self, *, is_bulk: bool) -> int | None:
        """The limit for mail of that class."""
        return self.bulk_limit if is_bulk else self.unit_limit

    def is_never(self, *, is_bulk: bool) -> bool:
        """Whether mail of that class never leaves, however long it waits."""
        grows = self.growth is not None and self.growth.cap != 0
        return self.limit(is_bulk=is_bulk) == 0 and not grows

    @property
    def is_hourly(self) -> bool:
        """Whether its window is an hour, else a day."""
        return self.span == HOUR

    @property
    def name(self) -> str:
        """Whose it is: `mailbox noreply@example.com`, `upstream gmail for noreply@example.com`."""
        match self.kind:
            case BudgetKind.MAILBOX_DAY | BudgetKind.MAILBOX_HOUR:
                return f"mailbox {self.owner}"
            case BudgetKind.DOMAIN_DAY:
                return f"domain {self.owner}"
            case BudgetKind.CLIENT_DAY:
                return f"client {self.owner}"
            case BudgetKind.PROVIDER_DAY | BudgetKind.PROVIDER_HOUR:
                return f"upstream {self.owner}" + (f" for {self.user}" if self.user else "")
            case _:
                assert_never(self.kind)

    @property
    def is_of_provider(self) -> bool:
        """Whether the upstream set it, and not we ourselves."""
        return self.kind in (BudgetKind.PROVIDER_DAY, BudgetKind.PROVIDER_HOUR)

    @property
    def window(self) -> str:
        """`a day`, `an hour`, `in any 24 hours`, `in any hour`."""
        if self.is_rolling:
            return "in any hour" if self.is_hourly else "in any 24 hours"
        return "an hour" if self.is_hourly else "a day"

    def allows(self) -> str:
        """`mailbox noreply@example.com may send 50 a day`."""
        if self.unit_limit is None:
            return f"{self.name} has no limit"
        verb = "allows" if self.is_of_provider else "may send"
        return f"{self.name} {verb} {self.unit_limit:,} {self.window}"
