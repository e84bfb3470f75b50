"""An attempt that is cut off, by its time or by a stop, says how far it came: only what may have gone is uncertain."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Pace
from relayd.delivery.scheduler import Scheduler
from relayd.delivery.settler import Settler
from relayd.delivery.upstreams import Fleet, Upstream, UpstreamTerms
from relayd.rules.breaker import BreakerTerms
from relayd.rules.outcome import Stage
from relayd.rules.retry import RetryPolicy
from relayd.store.clock import DatabaseClock
from relayd.store.pool import Database
from relayd.upstream.smarthost import Smarthost
from tests.builders import NoBounces, Sender, make_sender, put
from tests.peers.mail import settings
from tests.peers.smtp_server import Action, Drip, HalfBody, Hang, ScriptedServer, StopReading

LARGE = b"From: app@example.com\r\nSubject: large\r\n\r\n" + b"0123456789abcde\r\n" * 1_000_000
SMALL = b"From: app@example.com\r\nSubject: small\r\n\r\nhello\r\n"


@pytest.fixture
async def sender(db: Database) -> Sender:
    async with db.connection() as connection:
        return await make_sender(connection)


@asynccontextmanager
async def delivering(
    db: Database, sender: Sender, build: Callable[[], Upstream], *, attempt_seconds: float
) -> AsyncIterator[Scheduler]:
    clock = DatabaseClock()
    settler = Settler(db, NoBounces(), RetryPolicy(), emit=lambda event: None, wake=lambda: None, now=clock.now)
    terms = UpstreamTerms(sender.upstream_id, "capture", "smtp_relay", 2, 100, "retry", "1")

    async def load() -> list[tuple[UpstreamTerms, Callable[[], Upstream]]]:
        return [(terms, build)]

    fleet = Fleet(load)
    breakers = Breakers(db, BreakerTerms(), name_of=fleet.name_of, emit=lambda event: None, wake=lambda: None)
    scheduler = Scheduler(
        db,
        fleet,
        settler,
        breakers,
        clock,
        claimant="n/1/1",
        pace=Pace(poll_seconds=0.05, release_spread_seconds=0, attempt_seconds=attempt_seconds),
        emit=lambda event: None,
    )
    running = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        await scheduler.drain(0)
        await settler.drain()
        await running
        await breakers.drain()
        await fleet.close()


async def outcome(db: Database) -> asyncpg.Record:
    """Of the attempt's end, once it has one."""
    async with asyncio.timeout(30), db.connection() as connection:
        while True:
            row = await connection.fetchrow(
                "SELECT l.event, l.stage, q.status, q.retry_count FROM email_delivery_logs l"
                " JOIN email_queue q ON q.id = l.entry_id"
                " WHERE l.event IN ('deferred', 'postponed', 'uncertain', 'failed', 'bounced', 'sent')"
                " ORDER BY l.id LIMIT 1"
            )
            if row is not None:
                return row
            await asyncio.sleep(0.05)


CASES: list[tuple[Stage, Action | list[Action], bytes, str]] = [
    (Stage.CONNECT, Hang(), SMALL, "connect"),
    (Stage.EHLO, Hang(), SMALL, "connect"),
    (Stage.MAIL, Hang(), SMALL, "mail"),
    (Stage.MAIL, Drip(), SMALL, "mail"),
    (Stage.RCPT, Hang(), SMALL, "rcpt"),
    (Stage.RCPT, ["250 ok", Drip()], SMALL, "rcpt"),
    (Stage.DATA, Hang(), SMALL, "data"),
    (Stage.DATA, StopReading(), LARGE, "data"),
    (Stage.DOT, Hang(), SMALL, "dot"),
    (Stage.DATA, HalfBody(1000, Hang()), LARGE, "dot"),  # it reads on, swallows the dot, and says nothing
]


@pytest.mark.parametrize("is_stopped", [False, True], ids=["time", "stop"])
@pytest.mark.parametrize("is_pipelining", [False, True])
@pytest.mark.parametrize(("stage", "action", "content", "reached"), CASES, ids=lambda value: str(value)[:20])
async def test_only_what_may_have_gone_is_uncertain(
    db: Database,
    sender: Sender,
    stage: Stage,
    action: Any,
    content: bytes,
    reached: str,
    is_pipelining: bool,
    is_stopped: bool,
) -> None:
    async with ScriptedServer({stage: action}) as server:
        if is_pipelining:
            server.extensions.append("PIPELINING")
        async with delivering(
            db, sender, lambda: Smarthost(settings(server.port)), attempt_seconds=600 if is_stopped else 1.5
        ):
            async with db.connection() as connection:
                await put(connection, sender, "one@example.net", "two@example.net", content=content)
            if is_stopped:
                await server.until(lambda: bool(server.sessions))
                await asyncio.sleep(1)
            else:
                row = await outcome(db)
        if is_stopped and reached == "dot":
            async with db.connection() as connection:
                assert await connection.fetchval("SELECT status FROM email_queue LIMIT 1") == "sending"
            return  # whoever takes back its claims says that it is uncertain
        row = await outcome(db)
    if is_stopped and reached == "connect":
        reached = "local"  # the pool of connections has given it back untried
    assert row["event"] == ("uncertain" if reached == "dot" else "postponed" if is_stopped else "deferred")
    assert (row["stage"], row["status"]) == (reached, "queued")
    assert row["retry_count"] == (0 if is_stopped else 1)
