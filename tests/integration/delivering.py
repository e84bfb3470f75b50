"""A scheduler on a real database that delivers through an upstream of the test's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Pace
from relayd.delivery.scheduler import Scheduler
from relayd.delivery.settler import Settler
from relayd.delivery.upstreams import Fleet, Upstream, UpstreamTerms
from relayd.rules.breaker import BreakerTerms
from relayd.rules.relay_events import RelayEvent
from relayd.rules.retry import RetryPolicy
from relayd.store.clock import DatabaseClock
from relayd.store.pool import Database
from tests.builders import NoBounces, Sender


@asynccontextmanager
async def delivering(
    db: Database,
    sender: Sender,
    build: Callable[[], Upstream],
    *,
    attempt_seconds: float = 600,
    emit: Callable[[RelayEvent], None] = lambda event: None,
) -> AsyncIterator[Scheduler]:
    """A scheduler that runs, with one upstream."""
    clock = DatabaseClock()
    settler = Settler(db, NoBounces(), RetryPolicy(), emit=emit, wake=lambda: None, now=clock.now)
    terms = UpstreamTerms(sender.upstream_id, "capture", "smtp_relay", 2, 100, "retry", "1")

    async def load() -> list[tuple[UpstreamTerms, Callable[[], Upstream]]]:
        return [(terms, build)]

    fleet = Fleet(load)
    breakers = Breakers(db, BreakerTerms(), name_of=fleet.name_of, emit=emit, wake=lambda: None)
    scheduler = Scheduler(
        db,
        fleet,
        settler,
        breakers,
        clock,
        claimant="n/1/1",
        pace=Pace(poll_seconds=0.05, release_spread_seconds=0, attempt_seconds=attempt_seconds),
        emit=emit,
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
