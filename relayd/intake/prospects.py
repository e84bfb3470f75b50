"""When what comes in now will leave: an estimate for the 250, and for those who would rather be refused than wait.

Asked for every message of a limited lane, so the database is asked once in two seconds a lane; in between, what this
worker has taken since is counted on top.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from relayd.mail.reply import Reply
from relayd.rules.budget import Budget
from relayd.rules.duration import span_in_words
from relayd.rules.estimate import Outlook
from relayd.store import outlook
from relayd.store.outlook import Reach, Terms
from relayd.store.pool import Database
from relayd.store.timed_cache import TimedCache

log = logging.getLogger(__name__)

CACHE_SECONDS = 2.0
# Counting, and working out, further than this costs more than a time so far ahead is worth.
REACH = Reach(entries=10_000, rivals=20, rival_entries=500)
MOST_STEPS = 1_000
WORTH_SAYING = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Prospect:
    """When the last recipient of a message leaves. `at` None: never, as its limits are. `is_earliest`: or later."""

    now: datetime
    at: datetime | None
    is_earliest: bool
    budget: Budget | None  # the limit that it has to wait for

    @property
    def text(self) -> str | None:
        """What the 250 adds; None where it leaves about at once."""
        if self.at is None:
            return "waits for a limit to be raised"
        if self.at - self.now <= WORTH_SAYING:
            return None
        return f"leaves {self._about()}"

    def refusal(self, refuse_after_seconds: int) -> Reply | None:
        """For a login that will not wait longer than that; None if it need not."""
        if self.at is not None and self.at - self.now <= timedelta(seconds=refuse_after_seconds):
            return None
        when = f"leave {self._about()}" if self.at else "never leave"
        limit = f": {self.budget.allows()}" if self.budget else ""
        longest = span_in_words(timedelta(seconds=refuse_after_seconds))
        text = f"Would {when}, this login waits {longest} at most{limit}; try again later"
        # 452 is among the replies that RFC 5321 4.3.2 has for the end of DATA, and the one for what there is no room
        # for now. The detail is policy, X.7.1: the limit is the sender's own. X.2.2 (RFC 3463 3.3) would say that the
        # addressee's mailbox is full.
        return Reply(452, "4.7.1", text)

    def _about(self) -> str:
        assert self.at is not None, "what never leaves has no time"
        up = (self.at + timedelta(seconds=59)).astimezone(UTC)
        return f"{'not before' if self.is_earliest else 'about'} {up:%Y-%m-%d %H:%M} UTC"


class _Lane:
    """A lane as it was read, and what has joined it since."""

    def __init__(self, found: outlook.LaneOutlook) -> None:
        self._found = found
        self._outlook: Outlook = found.outlook(most_steps=MOST_STEPS)
        self._joined = 0

    def join(self, recipients: int) -> Prospect | None:
        self._joined += recipients
        if self._found.is_held:
            return None
        estimate = self._outlook.leaves(self._found.line.waiting + self._joined - 1)
        budget = self._found.budgets[estimate.held_by] if estimate.held_by is not None else None
        is_earliest = self._found.is_capped or not estimate.is_known
        return Prospect(self._found.now, estimate.at, is_earliest, budget)

    def leave(self, recipients: int) -> None:
        # It may have been read anew in between.
        self._joined = max(self._joined - recipients, 0)


class Prospects:
    """Estimates by lane, from what the database said within the last two seconds."""

    def __init__(self, database: Database, terms: Terms) -> None:
        self._database = database
        self._terms = terms
        self._lanes: TimedCache[int, _Lane | None] = TimedCache(self._load, seconds=CACHE_SECONDS)

    async def join(self, lane_id: int, recipients: int) -> Prospect | None:
        """So many join that lane now; None if nobody can tell when they leave. Raises StoreUnavailable."""
        lane = await self._lanes.get(lane_id)
        return lane.join(recipients) if lane else None

    async def leave(self, lane_id: int, recipients: int) -> None:
        """Those that joined are not taken after all."""
        lane = await self._lanes.get(lane_id)
        if lane:
            lane.leave(recipients)

    async def _load(self, lane_id: int) -> _Lane | None:
        try:
            async with self._database.connection() as connection:
                return _Lane(await outlook.find(connection, lane_id, self._terms, REACH))
        except asyncpg.PostgresError as error:
            # A message is worth more than a word on when it leaves.
            log.warning("cannot tell when mail of lane %s leaves: %s", lane_id, type(error).__name__)
            return None
