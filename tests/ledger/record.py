"""What happened, kept beside relayd: every entry, every attempt, and whether a limit was passed. Raises Violation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from relayd.rules.outcome import Outcome, Postponed, Sent, Uncertain
from relayd.rules.settlement import Settlement
from relayd.rules.states import Status
from tests.ledger.budget import Budget
from tests.ledger.house import House, Row

FINAL = (Status.SENT, Status.FAILED, Status.BOUNCED)


class Violation(AssertionError):
    """relayd broke a promise."""


@dataclass(eq=False, slots=True)
class Entry:
    """One recipient, and the state that it has to be in."""

    entry_id: UUID
    mailbox: Row
    lane_class: str
    due: datetime
    status: Status = Status.QUEUED
    attempt: "Attempt | None" = None  # of the newest claim


@dataclass(eq=False, slots=True)
class Attempt:
    """A claim of an entry, and what became of it."""

    entry: Entry
    claim: Any  # relayd's
    budgets: list[Budget]  # in force at the claim
    flies_in: dict[Budget, int | None] = field(default_factory=dict)  # in force at the start, and their limits
    started_at: datetime | None = None
    replied_at: datetime | None = None
    is_settled: bool = False
    is_excused: bool = False  # the clock was set back under it


class Record:
    """Everything that was told to relayd and what it answered."""

    def __init__(self, house: House, now: Callable[[], datetime]) -> None:
        self._house = house
        self._now = now
        self.entries: dict[UUID, Entry] = {}
        self.in_flight: set[Attempt] = set()
        self.replies = 0

    def submitted(self, entry_ids: Iterable[UUID], mailbox: Row, lane_class: str) -> None:
        """relayd took them."""
        for entry_id in entry_ids:
            self.entries[entry_id] = Entry(entry_id, mailbox, lane_class, self._now())

    def claimed(self, claims: Sequence[Any]) -> list[Attempt]:
        """One claim took these. None may be in flight, or wait, or pass a limit, or be bulk beyond its part."""
        now = self._now()
        attempts = []
        for claim in claims:
            entry = self.entries[claim.entry_id]
            if entry.status is not Status.QUEUED or entry.due > now:
                raise Violation(f"claimed what is {entry.status}, due at {entry.due}")
            if entry.mailbox.columns["status"] != "active":
                raise Violation(f"claimed from {entry.mailbox}, which is paused")
            budgets = self._house.budgets_of(entry.mailbox, claim.upstream_id, entry.lane_class)
            attempts.append(Attempt(entry, claim, budgets))
        for budget in {budget: None for attempt in attempts for budget in attempt.budgets}:
            taken = [attempt.entry.lane_class for attempt in attempts if budget in attempt.budgets]
            held = len(budget.in_window(now)) + len(budget.claimed)
            self._check(budget, budget.terms.limit, held + len(taken), f"claimed {len(taken)} beside {held}")
            bulk = taken.count("bulk")
            if bulk:
                self._check(budget, budget.terms.bulk_limit, held + bulk, f"claimed {bulk} of bulk beside {held}")
        for attempt in attempts:
            attempt.entry.status = Status.SENDING
            attempt.entry.attempt = attempt
            self.in_flight.add(attempt)
            for budget in attempt.budgets:
                budget.claimed.add(attempt)
        return attempts

    def started(self, attempts: Iterable[Attempt]) -> None:
        """relayd let these begin: no budget in force now may be passed by it."""
        now = self._now()
        begun = list(attempts)
        for attempt in begun:
            entry = attempt.entry
            if entry.attempt is not attempt or entry.status is not Status.SENDING or attempt.started_at:
                raise Violation(f"began {attempt.claim}, which is not the claim of {entry.status} any more")
            if entry.mailbox.columns["status"] != "active":
                raise Violation(f"began one of {entry.mailbox}, which is paused")
            attempt.started_at = now
            for budget in self._house.budgets_of(entry.mailbox, attempt.claim.upstream_id, entry.lane_class):
                attempt.flies_in[budget] = budget.terms.limit
                budget.flying.add(attempt)
        for budget in {budget: None for attempt in begun for budget in attempt.flies_in}:
            answered, flying = len(budget.in_window(now)), len(budget.flying)
            self._check(budget, budget.terms.limit, answered + flying, f"{answered} answered, {flying} under way")

    def replied(self, attempt: Attempt) -> None:
        """The upstream answered, or fell silent for good."""
        attempt.replied_at = self._now()

    def set_back(self, latest: datetime, aim: datetime) -> None:
        """The clock goes back to there; it has been as late as `latest`."""
        for attempt in self.in_flight:
            attempt.is_excused = True
        for budget in self._house.budgets.values():
            budget.set_back(latest, aim)

    def settles(self, attempt: Attempt, outcome: Outcome, settlement: Settlement) -> None:
        """What relayd must make of this result, now."""
        entry = attempt.entry
        newest = entry.attempt
        assert newest
        if newest is attempt and entry.status is Status.SENDING:
            self._end(attempt, is_counted=isinstance(outcome, Sent | Uncertain))
        elif settlement.status not in FINAL or entry.status in FINAL:
            return
        elif newest is not attempt:
            # A late one; it overtakes a newer claim of which nothing has begun.
            if newest.claim.fence != attempt.claim.fence + 1 or newest.started_at:
                return
            if entry.status is Status.SENDING:
                self._end(newest, is_counted=False)
        if isinstance(outcome, Postponed):
            self._taught(attempt, outcome.limit)
        entry.status = settlement.status
        entry.due = settlement.next_attempt_at or entry.due

    def _taught(self, attempt: Attempt, limit: str | None) -> None:
        # The provider counts what we do not know of: from here on relayd says more than we do.
        for budget in attempt.budgets:
            if budget.kind == f"provider_{limit}":
                budget.exact = False

    def _end(self, attempt: Attempt, *, is_counted: bool) -> None:
        now = self._now()
        attempt.is_settled = True
        self.in_flight.discard(attempt)
        for budget in attempt.budgets:
            budget.claimed.discard(attempt)
            if is_counted:
                budget.settled.append(now)
        at = min(attempt.replied_at or now, now)
        for budget, limit in attempt.flies_in.items():
            budget.flying.discard(attempt)
            if is_counted and not attempt.is_excused:
                budget.replies.append((at, limit))
                together = budget.span_ending_at(at)
                limits = [each for _, each in together]
                largest = None if None in limits else max((each for each in limits if each is not None), default=0)
                self._check(budget, largest, len(together), f"{len(together)} answered in the window of {at}")
        self.replies += is_counted

    def _check(self, budget: Budget, limit: int | None, count: int, what: str) -> None:
        if limit is not None and count > limit and budget.is_promised(self._now()):
            raise Violation(f"{budget!r}: {count} > {limit}: {what}")
