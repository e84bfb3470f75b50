"""The delivery loops, with a real database and an upstream that waits for leave. Nothing here waits for a poll."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Pace
from relayd.delivery.scheduler import Scheduler
from relayd.delivery.settler import Composer, Settler
from relayd.delivery.upstreams import Fleet, Upstream, UpstreamTerms
from relayd.intake.return_paths import PURPOSE, ReturnPaths
from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.mail.return_path import subject_of
from relayd.rules.breaker import BreakerTerms
from relayd.rules.outcome import Cause, Outcome, Sent, Stage
from relayd.rules.relay_events import BatchCommitted, RelayEvent
from relayd.rules.retry import RetryPolicy
from relayd.seal import Seal, new_key, parse_key
from relayd.store.claim import Claim, claim
from relayd.store.clock import DatabaseClock
from relayd.store.pool import Database
from relayd.upstream.smarthost import Smarthost
from tests.builders import NoBounces, Sender, make_sender, put, put_many
from tests.peers.mail import PATIENT, settings
from tests.peers.smtp_server import Hang, ScriptedServer

NO_POLL = Pace(poll_seconds=3600.0)
LONGEST_SECONDS = 30.0


@dataclass
class Gate:
    """An upstream that takes a message once it may."""

    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    taken: list[str] = field(default_factory=list)
    reverse_paths: list[Address | None] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.changed.set()
        await self.is_open.wait()
        self.under_way -= 1
        self.reverse_paths.append(transmission.reverse_path)
        self.taken += [str(recipient) for recipient in transmission.recipients]
        self.changed.set()
        return tuple(Sent(Cause(Stage.DOT, "ok", 250, "2.0.0")) for _ in transmission.recipients)

    async def close(self) -> None:
        pass

    async def until_taken(self, count: int) -> None:
        await self._until(lambda: len(self.taken) >= count)

    async def until_under_way(self, count: int) -> None:
        await self._until(lambda: self.under_way >= count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONGEST_SECONDS):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Running:
    scheduler: Scheduler
    gate: Gate
    events: list[RelayEvent]

    def batches(self, step: str) -> list[int]:
        return [each.items for each in self.events if isinstance(each, BatchCommitted) and each.step == step]


@asynccontextmanager
async def running(
    db: Database,
    sender: Sender,
    *,
    at_once: int = 2,
    claimant: str = "n/1/1",
    pace: Pace = NO_POLL,
    return_paths: ReturnPaths | None = None,
    provider: str = "capture",
    upstream: Upstream | None = None,
    composer: Composer | None = None,
    is_known: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Running]:
    """A scheduler with one upstream, by default the gate, and a composer that tells nobody anything. At the end
    everything is drained, and nothing may have had to be cut off."""
    gate = Gate()
    events: list[RelayEvent] = []
    terms = UpstreamTerms(sender.upstream_id, "capture", provider, at_once, 100, "retry", "1")

    async def load() -> list[tuple[UpstreamTerms, Callable[[], Upstream]]]:
        return [(terms, lambda: upstream or gate)] if is_known() else []

    clock = DatabaseClock()
    fleet = Fleet(load)
    settler = Settler(
        db,
        composer or NoBounces(),
        RetryPolicy(),
        emit=events.append,
        wake=lambda: scheduler.wake(),
        now=clock.now,
    )
    breakers = Breakers(db, BreakerTerms(), name_of=fleet.name_of, emit=events.append, wake=lambda: scheduler.wake())
    scheduler = Scheduler(
        db, fleet, settler, breakers, clock, claimant=claimant, pace=pace, emit=events.append, return_paths=return_paths
    )
    loop = asyncio.create_task(scheduler.run())
    try:
        yield Running(scheduler, gate, events)
    finally:
        gate.is_open.set()
        assert await scheduler.drain(LONGEST_SECONDS)
        await loop
        await settler.drain()


async def statuses(db: Database) -> dict[str, int]:
    async with db.connection() as c:
        rows = await c.fetch("SELECT status, count(*) FROM email_queue GROUP BY 1")
    return {row["status"]: row["count"] for row in rows}


async def test_what_waits_for_room_goes_as_room_comes(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put_many(c, sender, 60)
    async with running(db, sender, at_once=2) as it:
        it.gate.is_open.set()
        await it.gate.until_taken(60)
        assert it.gate.most_under_way <= 2
    assert await statuses(db) == {"sent": 60}


async def test_more_lanes_than_room(db: Database) -> None:
    async with db.connection() as c:
        senders = [await make_sender(c, f"m{number}@example.com") for number in range(40)]
        for sender in senders:
            await put_many(c, sender, 2)
    async with running(db, senders[0], at_once=1) as it:
        it.gate.is_open.set()
        await it.gate.until_taken(80)
    assert await statuses(db) == {"sent": 80}


async def test_what_an_operator_changed_counts_before_what_is_due(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put_many(c, sender, 1)
    known = False
    async with running(db, sender, is_known=lambda: known) as it:
        it.gate.is_open.set()
        await asyncio.sleep(0.2)  # the loop has looked, and knows of no upstream
        known = True
        it.scheduler.wake(is_changed=True)
        await it.gate.until_taken(1)


async def test_a_wake_that_finds_no_room_is_kept(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put_many(c, sender, 2)
    async with running(db, sender, at_once=1) as it:
        await it.gate.until_under_way(1)
        async with db.connection() as c:
            await put_many(c, sender, 8)
        it.scheduler.wake()
        await asyncio.sleep(0.2)  # the loop has looked, and had no room for them all
        it.gate.is_open.set()
        await it.gate.until_taken(10)
    assert await statuses(db) == {"sent": 10}


async def test_one_more_starts_while_another_is_stuck(db: Database) -> None:
    """A start gathers others for a moment, not for ever."""
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
    async with running(db, sender, at_once=10) as it:
        await it.gate.until_under_way(1)
        async with db.connection() as c:
            await put(c, sender)
        it.scheduler.wake()
        await it.gate.until_under_way(2)


async def test_messages_that_come_while_a_claim_rests_are_claimed_together(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relayd.delivery.scheduler.CLAIM_SPACING_SECONDS", 1.0)
    async with db.connection() as c:
        sender = await make_sender(c)
    async with running(db, sender, at_once=50) as it:
        it.gate.is_open.set()
        for _ in range(20):
            async with db.connection() as c:
                await put(c, sender)
            it.scheduler.wake()
        await it.gate.until_taken(20)
        assert sum(it.batches("claim")) == 20
        assert len(it.batches("claim")) < 10


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries each claim took."""
    taken: list[int] = []

    async def noted(*arguments: Any, **named: Any) -> Claim:
        claimed = await claim(*arguments, **named)
        taken.append(len(claimed.entries))
        return claimed

    monkeypatch.setattr("relayd.delivery.claimer.claim", noted)
    return taken


async def test_an_idle_queue_is_not_claimed_from(db: Database, claims: list[int]) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put_many(c, sender, 5)
    async with running(db, sender, at_once=10) as it:
        it.gate.is_open.set()
        await it.gate.until_taken(5)
        await asyncio.sleep(0.5)
        assert sum(claims) == 5
        # The one that took them, and what the first wakes are worth.
        assert len(claims) <= 3


async def test_a_lane_that_another_claim_holds_is_looked_at_again(
    db: Database, claims: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relayd.delivery.scheduler.CLAIM_SPACING_SECONDS", 1.0)
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
    async with db.connection() as other:
        held = other.transaction()
        await held.start()
        await other.execute("SELECT FROM mailbox_lanes WHERE id = $1 FOR UPDATE", sender.mail_lane_id)
        async with running(db, sender, at_once=10) as it:
            it.gate.is_open.set()
            async with asyncio.timeout(LONGEST_SECONDS):
                while not claims:
                    await asyncio.sleep(0.01)
            assert claims == [0]
            await held.rollback()
            await it.gate.until_taken(1)


async def test_a_stop_while_a_server_has_not_greeted_leaves_no_doubt(db: Database) -> None:
    async with db.transaction() as connection:
        sender = await make_sender(connection)
        await put(connection, sender)
    async with ScriptedServer({Stage.CONNECT: Hang()}) as server:
        timeouts = replace(PATIENT, greeting=300.0)
        slow = Smarthost(settings(server.port, timeouts=timeouts))
        async with running(db, sender, upstream=slow) as house:
            await server.until(lambda: len(server.sessions) == 1)
            assert await house.scheduler.drain(0.1)
    assert await statuses(db) == {"queued": 1}
    async with db.connection() as connection:
        row = await connection.fetchrow("SELECT retry_count, status FROM email_queue")
        events = await connection.fetch("SELECT event, error_message FROM email_delivery_logs ORDER BY id")
    assert row is not None and row["retry_count"] == 0
    assert [event["event"] for event in events][-2:] == ["sending", "postponed"]
    assert "had not greeted yet" in events[-1]["error_message"]


async def test_mail_leaves_with_a_return_path_of_its_own(db: Database) -> None:
    seal = Seal(parse_key(new_key().encode()))
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute("UPDATE email_domains SET bounce_domain = 'bounces.example.com'")
        one = await put(c, sender, "one@example.net")
        many = await put(c, sender, "two@example.net", "three@example.net")
        await put(c, sender, "app@example.net", reverse_path=None)
    async with running(db, sender, return_paths=ReturnPaths(db, seal)) as it:
        it.gate.is_open.set()
        await it.gate.until_taken(4)
    made = [each for each in it.gate.reverse_paths if each is not None]
    assert {each.domain for each in made} == {"bounces.example.com"} and len(made) == 2
    subjects = {subject_of(each.local_part, seal.derived(PURPOSE)) for each in made}
    assert subjects == {one.entries[0].entry_id, many.queue_id}
    assert max(len(each.local_part) for each in made) <= 64


@pytest.mark.parametrize(
    ("bounce_domain", "provider"), [(None, "capture"), ("bounces.example.com", "google_workspace")]
)
async def test_mail_keeps_its_reverse_path_where_no_other_is_wanted(
    db: Database, bounce_domain: str | None, provider: str
) -> None:
    seal = Seal(parse_key(new_key().encode()))
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute("UPDATE email_domains SET bounce_domain = $1", bounce_domain)
        await put(c, sender)
    async with running(db, sender, return_paths=ReturnPaths(db, seal), provider=provider) as it:
        it.gate.is_open.set()
        await it.gate.until_taken(1)
    assert it.gate.reverse_paths == [Address("bounces", "example.com")]
