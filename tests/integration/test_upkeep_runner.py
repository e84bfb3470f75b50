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
