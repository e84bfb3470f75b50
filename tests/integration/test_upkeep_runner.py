"""The chores' loop against a real Postgres: it ends when told to, whatever has become of its connection."""

import asyncio

from relayd.store import locks
from relayd.store.pool import Database
from relayd.upkeep import runner
from relayd.upkeep.runner import Chore
from tests.conftest import FreshDatabase

HOLDERS = """
SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND objid = $1 AND granted AND datname = current_database()
"""


async def test_a_lost_connection_is_replaced_and_the_chores_go_on(db: Database, database: FreshDatabase) -> None:
    rounds: list[int] = []
    connection = await database.connect()

    async def work() -> None:
        rounds.append(len(rounds))

    running = asyncio.create_task(runner.run(db, [Chore("idle", 0.01, work)] * 3, retry_seconds=0.05))
    for _ in range(20):
        holders = await connection.fetch(HOLDERS, locks.UPKEEP)
        for row in holders:
            await connection.execute("SELECT pg_terminate_backend($1, 5000)", row["pid"])
        seen = len(rounds)
        async with asyncio.timeout(10):
            while len(rounds) < seen + 6:
                assert not running.done()
                await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert running.cancelled()
    await connection.close()


async def test_a_chore_that_hangs_delays_no_other_and_ends_with_the_lock(db: Database, database: FreshDatabase) -> None:
    hanging, ended = asyncio.Event(), asyncio.Event()
    rounds = {"here": 0, "there": 0}

    async def hang() -> None:
        hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def counting(node: str) -> Chore:
        async def work() -> None:
            rounds[node] += 1

        return Chore("count", 0.01, work)

    here = asyncio.create_task(runner.run(db, [Chore("hang", 0.01, hang), counting("here")], retry_seconds=30))
    async with asyncio.timeout(10):
        await hanging.wait()
        while rounds["here"] < 5:
            await asyncio.sleep(0.01)
    there = asyncio.create_task(runner.run(db, [counting("there")], retry_seconds=0.05))
    await asyncio.sleep(0.3)
    assert rounds["there"] == 0
    connection = await database.connect()
    (holder,) = [row["pid"] for row in await connection.fetch(HOLDERS, locks.UPKEEP)]
    await connection.execute("SELECT pg_terminate_backend($1, 5000)", holder)
    await connection.close()
    async with asyncio.timeout(10):
        await ended.wait()
        done_here = rounds["here"]
        while rounds["there"] < 5:
            await asyncio.sleep(0.01)
    assert rounds["here"] == done_here
    for task in (here, there):
        task.cancel()
    await asyncio.wait({here, there}, timeout=5)
    assert here.cancelled() and there.cancelled()


async def test_cancelled_after_its_connection_was_lost_it_ends(db: Database, database: FreshDatabase) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()

    running = asyncio.create_task(runner.run(db, [Chore("idle", 3600, work)]))
    await asyncio.wait_for(begun.wait(), 10)
    connection = await database.connect()
    (holder,) = [row["pid"] for row in await connection.fetch(HOLDERS, locks.UPKEEP)]
    await connection.execute("SELECT pg_terminate_backend($1, 5000)", holder)
    await connection.close()
    # The loss is seen by the loop before the cancellation is.
    await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert running.cancelled()
