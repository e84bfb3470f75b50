"""What a worker makes of its attempts' outcomes: who is left at once, who after a while, and who is used again."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from relayd.daemon.takeback import TakeBack
from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Claimer, Pace
from relayd.rules.breaker import BreakerState, BreakerTerms
from relayd.rules.outcome import Cause, Deferred, Failed, Postponed, Scope, Sent, Stage, Uncertain
from relayd.rules.relay_events import BreakerClosed, BreakerOpened, StoreLost
from relayd.seal import Seal, new_key, parse_key
from relayd.store import attempts, breakers, locks, nodes
from relayd.store.pool import Database
from tests.builders import Sender, make_sender, put, put_many
from tests.conftest import FreshDatabase
from tests.integration.test_give_up import SETTINGS

REFUSED = Deferred(Scope.UPSTREAM, Cause(Stage.CONNECT, "connection refused"))
DEAD_GRANT = Postponed(Scope.UPSTREAM, Cause(Stage.AUTH, "the grant is dead"), 3600)
NO_SUCH_USER = Failed(Scope.RECIPIENT, Cause(Stage.RCPT, "no such user", 550, "5.1.1"))
SENT = Sent(Cause(Stage.DOT, "ok", 250))


@dataclass
class Worker:
    db: Database
    sender: Sender
    events: list[Any] = field(default_factory=list)
    wakes: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breakers = Breakers(
            self.db,
            BreakerTerms(failures=3),
            name_of=lambda upstream_id: "capture",
            emit=self.events.append,
            wake=lambda: self.wakes.append(None),
        )

    @property
    def upstream_id(self) -> UUID:
        return self.sender.upstream_id

    async def judge(self, *outcomes: Any, claimant: str = "w/1/1") -> None:
        await self.breakers.judge(self.upstream_id, claimant, outcomes)

    async def state(self) -> BreakerState:
        await self.breakers.drain()
        async with self.db.connection() as c:
            return (await breakers.show(c, self.upstream_id)).state

    async def probe(self, claimant: str) -> None:
        async with self.db.connection() as c:
            await c.execute("UPDATE relayd_state SET clock_offset = clock_offset + interval '2 hours'")
            assert await breakers.begin_probe(c, self.upstream_id, claimant, 600)
        self.breakers.probing(claimant, self.upstream_id)


@pytest.fixture
async def worker(db: Database) -> Worker:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
    return Worker(db, sender)


async def test_failures_are_told_at_the_next_look_and_successes_alone_never(worker: Worker) -> None:
    for _ in range(50):
        await worker.judge(SENT)
    await worker.breakers.refresh()
    async with worker.db.connection() as c:
        assert await c.fetchval("SELECT count(*) FROM upstream_breakers") == 0
    for _ in range(8):
        await worker.judge(REFUSED)
    assert await worker.state() is BreakerState.CLOSED
    await worker.breakers.refresh()
    assert await worker.state() is BreakerState.OPEN
    (opened,) = worker.events
    assert isinstance(opened, BreakerOpened)
    assert (opened.upstream, opened.reason, opened.after_probe) == ("capture", "connect: connection refused", False)
    assert worker.wakes  # lanes that have moved may be able to go


async def test_failures_in_a_row_count_however_far_apart_and_a_success_ends_the_row(worker: Worker) -> None:
    async def later() -> None:
        await worker.breakers.refresh()
        async with worker.db.connection() as c:
            await c.execute("UPDATE relayd_state SET clock_offset = clock_offset + interval '3 hours'")

    for outcome in (REFUSED, REFUSED, SENT, REFUSED, REFUSED):
        await worker.judge(outcome)
        await later()
    async with worker.db.connection() as c:
        shown = await breakers.show(c, worker.upstream_id)
    assert (shown.state, shown.consecutive_failures) == (BreakerState.CLOSED, 2)
    assert shown.last_failure == "connect: connection refused" and shown.last_failed_at is not None
    await worker.judge(REFUSED)
    await later()
    assert await worker.state() is BreakerState.OPEN


async def test_what_another_worker_sends_ends_the_row(worker: Worker, db: Database) -> None:
    other = Breakers(db, BreakerTerms(failures=3), name_of=str, emit=worker.events.append, wake=lambda: None)
    for _ in range(2):
        await worker.judge(REFUSED)
        await worker.breakers.refresh()
    await other.refresh()
    await other.judge(worker.upstream_id, "w/2/1", [SENT])
    await other.refresh()
    async with db.connection() as c:
        shown = await breakers.show(c, worker.upstream_id)
        await c.execute("UPDATE relayd_state SET clock_offset = clock_offset + interval '2 minutes'")
    assert (shown.consecutive_failures, shown.last_failure) == (0, "connect: connection refused")
    await worker.judge(REFUSED)
    await worker.breakers.refresh()
    assert await worker.state() is BreakerState.CLOSED


async def test_what_another_worker_sent_before_the_failures_ends_no_row(worker: Worker, db: Database) -> None:
    other = Breakers(db, BreakerTerms(failures=3), name_of=str, emit=worker.events.append, wake=lambda: None)
    for _ in range(3):
        await other.judge(worker.upstream_id, "w/2/1", [SENT])
    await other.refresh()  # nothing fails: the database does not hear of it
    for _ in range(2):
        await worker.judge(REFUSED)
        await worker.breakers.refresh()
        await other.refresh()  # it does now
        await other.refresh()
    async with db.connection() as c:
        assert (await breakers.show(c, worker.upstream_id)).consecutive_failures == 2
        await c.execute("UPDATE relayd_state SET clock_offset = clock_offset + interval '2 minutes'")
    await worker.judge(REFUSED)
    await worker.breakers.refresh()
    assert await worker.state() is BreakerState.OPEN


async def test_refused_recipients_and_silence_after_the_dot_open_nothing(worker: Worker) -> None:
    for _ in range(50):
        await worker.judge(NO_SUCH_USER)
        await worker.judge(Uncertain(Cause(Stage.DOT, "timed out")))
    await worker.judge(REFUSED)
    await worker.breakers.refresh()
    assert await worker.state() is BreakerState.CLOSED


async def test_an_upstream_that_cannot_send_is_left_before_its_outcome_is_settled(worker: Worker) -> None:
    await worker.judge(DEAD_GRANT)
    assert await worker.state() is BreakerState.OPEN
    await worker.judge(DEAD_GRANT)
    assert [type(each) for each in worker.events] == [BreakerOpened]
    await worker.breakers.refresh()
    assert worker.breakers.due() == []


async def test_a_probe_decides_and_nobody_else(worker: Worker) -> None:
    await worker.judge(DEAD_GRANT)
    await worker.probe("w/1/7")
    await worker.judge(SENT, claimant="w/1/6")  # begun before the breaker opened
    assert await worker.state() is BreakerState.HALF_OPEN
    await worker.judge(REFUSED, claimant="w/1/7")
    assert await worker.state() is BreakerState.OPEN
    await worker.probe("w/1/8")
    await worker.judge(NO_SUCH_USER, claimant="w/1/8")
    assert await worker.state() is BreakerState.CLOSED
    assert [type(each) for each in worker.events] == [BreakerOpened, BreakerOpened, BreakerClosed]


async def test_a_probe_that_hears_nothing_has_failed(worker: Worker) -> None:
    await worker.judge(DEAD_GRANT)
    await worker.probe("w/1/7")
    await worker.judge(Uncertain(Cause(Stage.DOT, "timed out")), claimant="w/1/7")
    assert await worker.state() is BreakerState.OPEN


async def test_a_probe_that_did_not_begin_leaves_the_try_to_another(worker: Worker) -> None:
    await worker.judge(DEAD_GRANT)
    await worker.probe("w/1/7")
    await worker.breakers.give_back(["w/1/7", "w/1/6"])
    await worker.breakers.refresh()
    assert worker.breakers.due() == [worker.upstream_id]


@pytest.mark.parametrize("end", ["taken", "refused", "not begun"])
async def test_what_came_of_a_probe_is_told_though_the_database_was_away_then(
    database: FreshDatabase, worker: Worker, end: str
) -> None:
    await worker.judge(DEAD_GRANT)
    await worker.probe("w/1/7")
    late = await database.open()
    there = Breakers(late, BreakerTerms(), name_of=str, emit=worker.events.append, wake=lambda: None)
    there.probing("w/1/7", worker.upstream_id)
    lets_in = "UPDATE pg_database SET datallowconn = $1 WHERE datname = current_database()"
    async with worker.db.connection() as c:
        await c.execute(lets_in, False)
        if end == "not begun":
            await there.give_back(["w/1/7"])
        else:
            await there.judge(worker.upstream_id, "w/1/7", [SENT if end == "taken" else REFUSED])
        assert isinstance(worker.events[-1], StoreLost)
        assert (await breakers.show(c, worker.upstream_id)).state is BreakerState.HALF_OPEN
        await c.execute(lets_in, True)
    await there.refresh()
    await there.drain()
    assert await worker.state() is (BreakerState.CLOSED if end == "taken" else BreakerState.OPEN)
    assert bool(there.due()) == (end == "not begun")
    await late.close()


async def test_a_lane_that_may_not_send_keeps_no_other_from_the_probe(db: Database) -> None:
    async with db.connection() as c:
        spent = await make_sender(c, "spent@example.com", upstream="only", daily_limit=0)
        await put_many(c, spent, 2)
        ready = await make_sender(c, "ready@example.com", upstream="only")
        await put_many(c, ready, 2)
        waits = "UPDATE mailbox_lanes SET due_at = relayd_now() - $2::interval WHERE id = $1"
        await c.execute(waits, spent.mail_lane_id, timedelta(days=1))
        await c.execute(waits, ready.mail_lane_id, timedelta(0))
        await breakers.trip(c, ready.upstream_id, "connection refused", 0)
    watching = Breakers(db, BreakerTerms(), name_of=str, emit=lambda event: None, wake=lambda: None)
    claimer = Claimer(db, watching, claimant="n/1/1", pace=Pace())
    for _ in range(8):
        if entries := await claimer.probe(ready.upstream_id):
            break
    assert [each.mailbox_id for each in entries] == [ready.mailbox_id]
    assert await claimer.probe(ready.upstream_id) == [], "one at a time"


@pytest.mark.parametrize("begins", [False, True])
async def test_a_probe_whose_worker_is_gone_keeps_mail_back_no_longer_than_its_lease(
    db: Database, tmp_path: Path, begins: bool
) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
        await breakers.trip(c, sender.upstream_id, "connection refused", 0)
    watching = Breakers(db, BreakerTerms(), name_of=str, emit=lambda event: None, wake=lambda: None)
    claimed = await Claimer(db, watching, claimant="gone/1/1", pace=Pace()).probe(sender.upstream_id)
    wakes: list[None] = []
    take_back = TakeBack(db, Seal(parse_key(new_key().encode())), SETTINGS, tmp_path, wake=lambda: wakes.append(None))
    async with db.connection() as c:
        if begins:
            await attempts.start(c, [(each, "capture") for each in claimed], lease_seconds=960)
        for seconds, is_over in ((0, False), (61, not begins), (900, True)):
            await c.execute("UPDATE relayd_state SET clock_offset = clock_offset + make_interval(secs => $1)", seconds)
            await take_back.of_lapsed_leases()
            (breaker,) = await breakers.failing(c)
            assert breaker.due_in_seconds is not None
            assert (breaker.state is BreakerState.OPEN, breaker.due_in_seconds <= 0) == (is_over, is_over)
    assert wakes


async def test_a_probe_of_a_node_that_is_gone_is_released_at_once(db: Database, tmp_path: Path) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
        await breakers.trip(c, sender.upstream_id, "connection refused", 0)
    watching = Breakers(db, BreakerTerms(), name_of=str, emit=lambda event: None, wake=lambda: None)
    claimed = await Claimer(db, watching, claimant="a_node/1/1", pace=Pace()).probe(sender.upstream_id)
    take_back = TakeBack(db, Seal(parse_key(new_key().encode())), SETTINGS, tmp_path, wake=lambda: None)
    async with db.connection() as c:
        await attempts.start(c, [(each, "capture") for each in claimed], lease_seconds=960)
        async with db.connection() as living, locks.held(living, locks.node_lock("a_node")):
            for name in ("a_node", "a-node"):
                await nodes.tell(c, name, ["0" * 8])
            await take_back.of_lapsed_leases()
            assert [each.state for each in await breakers.failing(c)] == [BreakerState.HALF_OPEN]
        await take_back.of_lapsed_leases()
        (breaker,) = await breakers.failing(c)
        assert breaker.due_in_seconds is not None and breaker.due_in_seconds <= 0
