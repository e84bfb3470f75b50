"""Plays events against relayd's store, as its workers and its upkeep would, one at a time, and tells the record."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from relayd.mail.address import Address
from relayd.rules.outcome import Cause, Outcome, Postponed, Scope, Stage, Uncertain
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted
from relayd.rules.settlement import settle as decide
from relayd.rules.states import Status
from relayd.store import attempts, lanes, leases, operations, queue, settlement
from relayd.store.claim import Claim, ClaimedEntry, claim
from relayd.store.connection import Connection
from tests.builders import Sender, new_message
from tests.ledger.clock import StillClock
from tests.ledger.house import House, Row
from tests.ledger.record import Attempt, Entry, Record, Violation

LEASE, ATTEMPT_LEASE = 300, 600
UNTRIED = Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, "not tried"), 0)
SILENCE = Uncertain(Cause(Stage.DOT, "no reply"))
POLICY = RetryPolicy(max_retries=6)
# A claim waits for nobody. One that does, waits for the one that we hold open: go on without it.
PATIENCE_SECONDS = 0.5


@dataclass(eq=False)
class Worker:
    """What one process holds."""

    name: str
    claimed: list[Attempt] = field(default_factory=list)
    started: list[Attempt] = field(default_factory=list)
    ended: list[tuple[Attempt, Outcome]] = field(default_factory=list)


class Player:
    """Each method is an event; it ends when relayd has answered."""

    def __init__(
        self,
        connections: Sequence[Connection],
        house: House,
        record: Record,
        clock: StillClock,
        dice: random.Random,
        spread_seconds: float,
    ) -> None:
        self._connections = connections
        self.house = house
        self.record = record
        self.clock = clock
        self._dice = dice
        self._spread_seconds = spread_seconds
        self._count = 0
        self.workers = [Worker(self._name(n)) for n in range(3)]
        self.dead: list[str] = []

    async def submit(self, mailbox: Row, lane_class: str, recipients: int, *, is_woken: bool = True) -> None:
        """A message with so many recipients."""
        lane_id = mailbox.lanes[lane_class]
        client, domain = mailbox.parents["client"], mailbox.parents["domain"]
        sender = Sender(
            client_id=client.id,
            upstream_id=mailbox.columns["upstream_id"],
            domain_id=domain.id,
            mailbox_id=mailbox.id,
            address=mailbox.name,
            mail_lane_id=lane_id,
            bulk_lane_id=mailbox.lanes["bulk"],
            dsn_lane_id=0,
        )
        message = new_message(sender, "x@example.net", max_retries=POLICY.max_retries)
        entries = tuple(queue.NewEntry(self._id(), Address.parse(f"u{n}@example.net")) for n in range(recipients))
        await queue.enqueue(self._any(), [replace(message, queue_id=self._id(), entries=entries)])
        if is_woken:
            await lanes.wake(self._any(), [lane_id])
        self.record.submitted([entry.entry_id for entry in entries], mailbox, lane_class)

    async def claim(self, worker: Worker, messages: int, *, read_limit: int = 50) -> int:
        """The worker claims; returns how many it got."""
        taken = self.record.claimed(await self._claim(self._any(), worker, messages, read_limit))
        worker.claimed += taken
        return len(taken)

    async def claim_twice(self, first: Worker, second: Worker, messages: int) -> None:
        """The second claims between the first one's claim and its commit."""
        one, other = self._dice.sample(self._connections, 2)
        transaction = one.transaction()
        await transaction.start()
        entries = (await self._claim_in(one, first, messages, 50)).entries
        meanwhile = asyncio.ensure_future(self._claim(other, second, messages, 50))
        await asyncio.wait([meanwhile], timeout=PATIENCE_SECONDS)
        await transaction.commit()
        others = await meanwhile
        first.claimed += self.record.claimed(entries)
        second.claimed += self.record.claimed(others)

    async def lose_claim(self, worker: Worker, messages: int) -> None:
        """Postgres dies before the claim is on its disk; the worker does not know."""
        connection = self._dice.choice(self._connections)
        transaction = connection.transaction()
        await transaction.start()
        entries = (await self._claim_in(connection, worker, messages, 50)).entries
        await transaction.rollback()
        found = await attempts.start(connection, [(each, "capture") for each in entries], lease_seconds=ATTEMPT_LEASE)
        if found.entries:
            raise Violation(f"a claim that was lost began: {found.entries}")

    async def start(self, worker: Worker, count: int) -> None:
        """It begins the oldest of what it has claimed; what may not begin goes back untried."""
        batch, worker.claimed = worker.claimed[:count], worker.claimed[count:]
        if not batch:
            return
        told = await attempts.start(
            self._any(), [(each.claim, "capture") for each in batch], lease_seconds=ATTEMPT_LEASE
        )
        begun = [each for each in batch if each.claim in told.entries]
        self.record.started(begun)
        worker.started += begun
        worker.ended += [(each, UNTRIED) for each in batch if each not in begun]

    def reply(self, worker: Worker, outcome: Outcome) -> None:
        """An answer to one of its attempts. What would outlast its lease has been cut off long before."""
        attempt = worker.started.pop(self._dice.randrange(len(worker.started)))
        self.record.replied(attempt)
        assert attempt.started_at
        if self.clock.now > attempt.started_at + timedelta(seconds=ATTEMPT_LEASE) and self._dice.random() < 0.5:
            outcome = SILENCE
        worker.ended.append((attempt, outcome))

    async def settle(self, worker: Worker) -> None:
        """It writes what it knows."""
        ended, worker.ended = worker.ended, []
        await self._settle(ended)

    def kill(self, worker: Worker) -> None:
        """It is gone, between any two steps. What was under way may have arrived just now."""
        for attempt in worker.started:
            if self._dice.random() < 0.7:
                self.record.replied(attempt)
        self.dead.append(worker.name)
        self.workers[self.workers.index(worker)] = Worker(self._name(self.workers.index(worker)))

    async def reclaim(self) -> None:
        """What the dead and the late held is taken back."""
        found = await leases.lapsed(self._any(), dead=[f"{name}/%" for name in self.dead])
        ended: list[tuple[Attempt, Outcome]] = []
        for each in found:
            attempt = self.record.entries[each.entry_id].attempt
            if attempt is None or attempt.claim.fence != each.fence:
                raise Violation(f"taken back what nobody has: {each}")
            ended.append((attempt, UNTRIED if each.started_at is None else SILENCE))
        await self._settle(ended, is_holder=False)

    async def release(self) -> None:
        """The operator lets go what is in doubt."""
        held = [each for each in self.record.entries.values() if each.status is Status.PENDING]
        connection = self._any()
        async with connection.transaction():
            await operations.operate(connection, operations.Operation.RELEASE, [each.entry_id for each in held])
        for entry in held:
            entry.status, entry.due = Status.QUEUED, self.clock.now

    async def upkeep(self) -> None:
        """The chores that mend lanes."""
        await lanes.sweep(self._any())
        connection = self._any()
        async with connection.transaction():
            await lanes.use_idle_units(connection)

    async def _settle(self, ended: Sequence[tuple[Attempt, Outcome]], *, is_holder: bool = True) -> None:
        if not ended:
            return
        results = []
        for attempt, outcome in ended:
            claimed = attempt.claim
            decided = decide(
                outcome,
                Attempted(claimed.retry_count, claimed.max_retries, claimed.first_attempt_at or self.clock.now),
                POLICY,
                on_uncertain="hold" if self.house.upstreams.index(claimed.upstream_id) else "retry",
                now=self.clock.now,
                dice=0.5,
            )
            only_if_unstarted = not is_holder and attempt.started_at is None
            results.append(
                settlement.Result(
                    claimed.entry_id, claimed.fence, claimed.claimed_by, "capture", decided, only_if_unstarted
                )
            )
            self.record.settles(attempt, outcome, decided)
        connection = self._any()
        if all(each.settlement.status is Status.SENT for each in results):
            results = await settlement.settle_sent(connection, results)
        if results:
            async with connection.transaction():
                await settlement.settle(connection, results)
        await self.compare([attempt.entry for attempt, _ in ended])

    async def compare(self, entries: Sequence[Entry]) -> None:
        """Each entry is in the state that it has to be in, and there."""
        ids = {each.entry_id for each in entries}
        rows = await self._any().fetch("SELECT id, status FROM email_queue WHERE id = ANY($1::uuid[])", list(ids))
        found = {row["id"]: row["status"] for row in rows}
        for each in entries:
            if found.get(each.entry_id) != each.status:
                raise Violation(f"an entry of {each.mailbox} is {found.get(each.entry_id)} and should be {each.status}")

    async def audit(self) -> None:
        """relayd's count of every budget of which we know exactly what it should be."""
        rows = await self._any().fetch("SELECT owner_id, kind, used FROM budget_usage")
        used = {(row["kind"], row["owner_id"]): row["used"] for row in rows}
        budgets = self.house.budgets
        if used.keys() != budgets.keys():
            raise Violation(f"the ledger has not the budgets that are in force: {used.keys() ^ budgets.keys()}")
        for key, budget in budgets.items():
            expected = budget.expected_use(self.clock.now)
            if budget.exact and used[key] != expected:
                raise Violation(f"{budget!r}: {used[key]} used, and {expected} should be")

    async def _claim(
        self, connection: Connection, worker: Worker, messages: int, read_limit: int
    ) -> list[ClaimedEntry]:
        async with connection.transaction():
            return (await self._claim_in(connection, worker, messages, read_limit)).entries

    async def _claim_in(self, connection: Connection, worker: Worker, messages: int, read_limit: int) -> Claim:
        self._count += 1
        return await claim(
            connection,
            dict.fromkeys(self.house.upstreams, messages),
            read_limit=read_limit,
            claimant=f"{worker.name}/{self._count}",
            lease_seconds=LEASE,
            spread_seconds=self._spread_seconds,
        )

    def _any(self) -> Connection:
        return self._dice.choice(self._connections)

    def _name(self, place: int) -> str:
        self._count += 1
        return f"node/{place}/{self._count}"

    def _id(self) -> UUID:
        # In the order of time, as relayd's own.
        self._count += 1
        return UUID(int=(self._count << 80) | (0x7 << 76) | (0b10 << 62))
