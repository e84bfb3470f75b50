"""One random history, from a seed: what may happen in it, how often, and the end, when everything has to leave."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest.mock import patch
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from relayd.rules.outcome import Cause, Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from tests.conftest import FreshDatabase
from tests.ledger.clock import StillClock
from tests.ledger.house import ZONES, House, Row
from tests.ledger.player import Player
from tests.ledger.record import FINAL, Entry, Record, Violation

# Shortly before a day of 23, 24½ or 25 hours, before one that begins at one o'clock, before one that begins twice.
BEGINNINGS = (
    datetime(2026, 3, 28, 20, tzinfo=UTC),
    datetime(2026, 10, 24, 18, tzinfo=UTC),
    datetime(2026, 3, 7, 20, tzinfo=UTC),
    datetime(2026, 10, 31, 22, tzinfo=UTC),
    datetime(2026, 4, 4, 6, tzinfo=UTC),
    datetime(2026, 10, 3, 6, tzinfo=UTC),
    datetime(2018, 11, 3, 20, tzinfo=UTC),
    datetime(2018, 2, 17, 16, tzinfo=UTC),
    datetime(2026, 7, 1, 12, tzinfo=UTC),
)
OK = Sent(Cause(Stage.DOT, "ok", 250, "2.0.0"))
OUTCOMES: tuple[tuple[int, Outcome], ...] = (
    (60, OK),
    (8, Deferred(Scope.RECIPIENT, Cause(Stage.RCPT, "later", 451, "4.0.0"))),
    (5, Failed(Scope.RECIPIENT, Cause(Stage.RCPT, "no such user", 550, "5.1.1"))),
    (3, Failed(Scope.MESSAGE, Cause(Stage.DATA, "too big", 552, "5.3.4"))),
    (12, Uncertain(Cause(Stage.DOT, "connection lost"))),
    (4, Postponed(Scope.MAILBOX, Cause(Stage.MAIL, "slow down", 421, "4.7.0"), 600)),
    (2, Postponed(Scope.MAILBOX, Cause(Stage.DATA, "the day's limit", 550, "5.4.5"), 3600, "day")),
    (1, Postponed(Scope.UPSTREAM, Cause(Stage.DATA, "the hour's limit", 452, "4.5.3"), 600, "hour")),
)
# How often each kind of event comes, where a history has it at all.
ALWAYS = {
    "submit": 14,
    "burst": 9,
    "claim": 12,
    "start": 12,
    "reply": 20,
    "settle": 12,
    "tick": 4,
    "leap": 8,
    "audit": 3,
}
SOMETIMES = {
    "kill": 1.5,
    "reclaim": 3,
    "claim_twice": 3,
    "lose_claim": 1,
    "change": 4,
    "pause": 1,
    "release": 1,
    "upkeep": 2,
    "set_back": 3,
}
# More than this would only wait.
MOST_WAITING = 120


@dataclass(frozen=True)
class Told:
    """What a history came to: `fault` is None if every promise held."""

    seed: str
    events: int
    submitted: int
    replies: int
    days: int
    fault: str | None


class History:
    """Plays random events. Everything follows from the seed; the first `events` of a longer run are the same."""

    def __init__(self, seed: str, player: Player, dice: random.Random, kinds: dict[str, float]) -> None:
        self.seed = seed
        self._player = player
        self._dice = dice
        self._kinds = list(kinds)
        self._weights = list(kinds.values())
        self.played: list[str] = []

    async def play(self, events: int) -> None:
        """So many of them. Raises Violation."""
        for _ in range(events):
            kind = self._dice.choices(self._kinds, self._weights)[0]
            self.played.append(f"{self._player.clock.now:%m-%d %H:%M:%S} {kind}")
            await getattr(self, f"_{kind}")()
            await self._player.clock.step(timedelta(seconds=self._dice.choice((0, 0, 0, 0.01, 1, 3))))

    async def drain(self) -> int:
        """Let everything leave, day by day; returns after how many days. What no limit ever lets go may stay."""
        player = self._player
        for row in player.house.of("mailbox"):
            if row.columns["status"] != "active":
                await player.house.change(row, "status", "active", player.clock.now)
        for worker in list(player.workers):
            player.kill(worker)
        most = 6 + sum(self._can_leave(each.mailbox, each.lane_class) for each in self._waiting())
        for day in range(most + 1):
            await player.reclaim()
            await player.release()
            await player.upkeep()
            worker = player.workers[0]
            while await player.claim(worker, 100, read_limit=200) or await player.claim(worker, 100, read_limit=200):
                await player.start(worker, 1000)
                while worker.started:
                    player.reply(worker, OK)
                await player.settle(worker)
            if not any(self._can_leave(each.mailbox, each.lane_class) for each in self._waiting()):
                await player.audit()
                await player.compare(list(player.record.entries.values()))
                return day
            await player.clock.step(timedelta(hours=25, minutes=2))
        raise Violation(f"after {most} days there still wait {len(self._waiting())}")

    def _waiting(self) -> list[Entry]:
        return [each for each in self._player.record.entries.values() if each.status not in FINAL]

    def _can_leave(self, mailbox: Row, lane_class: str) -> bool:
        budgets = self._player.house.budgets_of(mailbox, mailbox.columns["upstream_id"], lane_class)
        limits = [each.terms.bulk_limit if lane_class == "bulk" else each.terms.limit for each in budgets]
        return all(limit is None or limit > 0 for limit in limits)

    async def _submit(self) -> None:
        if len(self._waiting()) < MOST_WAITING:
            mailbox = self._dice.choice(self._player.house.of("mailbox"))
            lane_class = self._dice.choices(("mail", "bulk", "dsn"), (6, 4, 1))[0]
            is_woken = self._dice.random() < 0.97
            await self._player.submit(mailbox, lane_class, self._dice.randint(1, 5), is_woken=is_woken)

    async def _claim(self) -> None:
        worker = self._dice.choice(self._player.workers)
        read_limit = self._dice.choice((2, 5, 50, 50))
        await self._player.claim(worker, self._dice.randint(1, 6), read_limit=read_limit)

    async def _claim_twice(self) -> None:
        first, second = self._dice.sample(self._player.workers, 2)
        await self._player.claim_twice(first, second, self._dice.randint(1, 4))

    async def _lose_claim(self) -> None:
        await self._player.lose_claim(self._dice.choice(self._player.workers), 2)

    async def _start(self) -> None:
        worker = self._dice.choice(self._player.workers)
        await self._player.start(worker, self._dice.choice((1, 3, 20)))

    async def _burst(self) -> None:
        """As much as there is leaves at once."""
        worker = self._dice.choice(self._player.workers)
        await self._player.claim(worker, 20)
        await self._player.start(worker, 100)
        while worker.started:
            self._player.reply(worker, OK)
        await self._player.settle(worker)

    async def _reply(self) -> None:
        busy = [worker for worker in self._player.workers if worker.started]
        if busy:
            weights = [weight for weight, _ in OUTCOMES]
            outcome = self._dice.choices([each for _, each in OUTCOMES], weights)[0]
            self._player.reply(self._dice.choice(busy), outcome)

    async def _settle(self) -> None:
        await self._player.settle(self._dice.choice(self._player.workers))

    async def _kill(self) -> None:
        self._player.kill(self._dice.choice(self._player.workers))

    async def _reclaim(self) -> None:
        await self._player.reclaim()

    async def _release(self) -> None:
        await self._player.release()

    async def _upkeep(self) -> None:
        await self._player.upkeep()

    async def _audit(self) -> None:
        await self._player.audit()

    async def _change(self) -> None:
        row, column, value = self._player.house.random_change()
        self.played[-1] += f" {row} {column}={value}"
        await self._player.house.change(row, column, value, self._player.clock.now)

    async def _pause(self) -> None:
        row = self._dice.choice(self._player.house.of("mailbox"))
        status = "paused" if row.columns["status"] == "active" and self._dice.random() < 0.4 else "active"
        await self._player.house.change(row, "status", status, self._player.clock.now)

    async def _tick(self) -> None:
        await self._player.clock.step(timedelta(seconds=self._dice.choice((10, 60, 200, 700, 3600))))

    async def _leap(self) -> None:
        """To a moment at which something turns, or right beside it; or anywhere within the day."""
        now = self._player.clock.now
        match self._dice.choice(("midnight", "hour", "free", "far")):
            case "midnight":
                aim = self._midnight(days=1)
            case "hour":
                aim = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
            case "free":
                budgets = [each for each in self._player.house.budgets.values() if each.replies]
                if not budgets:
                    return
                budget = self._dice.choice(budgets)
                aim = self._dice.choice(budget.replies[-20:])[0] + budget.terms.span
            case _:
                aim = now + timedelta(minutes=self._dice.randint(1, 1440))
        aim += self._beside()
        if now < aim < now + timedelta(days=2):
            await self._player.clock.set(aim)

    async def _set_back(self) -> None:
        now = self._player.clock.now
        match self._dice.choice(("midnight", "hour", "far")):
            case "midnight":
                aim = self._midnight(days=0)
            case "hour":
                aim = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=self._dice.choice((0, 0, 1, 2)))
            case _:
                aim = now - timedelta(minutes=self._dice.choice((1, 10, 60, 300, 1440)))
        aim += self._beside()
        # What a rolling window has freed is remembered for three days.
        if self._player.clock.latest - timedelta(days=2) < aim < now:
            self._player.record.set_back(self._player.clock.latest, aim)
            await self._player.clock.set(aim)

    def _midnight(self, *, days: int) -> datetime:
        zone = ZoneInfo(self._dice.choice(self._player.house.zones))
        date = self._player.clock.now.astimezone(zone).date() + timedelta(days=days)
        # Of a midnight that comes twice, one or the other.
        fold = self._dice.choice((0, 1))
        return datetime(date.year, date.month, date.day, fold=fold, tzinfo=zone).astimezone(UTC)

    def _beside(self) -> timedelta:
        return timedelta(seconds=self._dice.choice((-61, -30, -5, 0, 1, 5, 20, 45, 61, 300)))


async def run(database: FreshDatabase, seed: str, events: int) -> Told:
    """One history on a fresh database."""
    dice = random.Random(seed)
    connections = [await database.connect() for _ in range(3)]
    try:
        with patch("relayd.store.claim.uuid4", lambda: UUID(int=dice.getrandbits(128))):
            return await _run(connections, dice, seed, events)
    finally:
        for connection in connections:
            connection.terminate()


async def _run(connections: list[asyncpg.Connection], dice: random.Random, seed: str, events: int) -> Told:
    clock = StillClock(connections[0], dice.choice(BEGINNINGS))
    await clock.stop()
    house = House(connections[0], dice, tuple(dice.sample(ZONES, dice.randint(1, 3))))
    await house.build(clock.now)
    record = Record(house, lambda: clock.now)
    player = Player(connections, house, record, clock, dice, spread_seconds=dice.choice((0, 60)))
    # Not everything in every history: what is rare where all is mixed comes to light where little is.
    kinds = {**ALWAYS, **{kind: weight for kind, weight in SOMETIMES.items() if dice.random() < 0.6}}
    history = History(seed, player, dice, kinds)
    fault, days = None, 0
    try:
        await history.play(events)
        days = await history.drain()
    except (Violation, asyncpg.PostgresError) as error:
        last = "; ".join(history.played[-12:])
        fault = f"event {len(history.played)}: {type(error).__name__}: {error}\n    the last: {last}"
    return Told(seed, len(history.played), len(record.entries), record.replies, days, fault)
