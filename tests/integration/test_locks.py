"""Advisory locks: held while their connection lives, and in nobody's way once it is gone."""

import asyncio

import pytest

from relayd.store import locks
from relayd.store.pool import Database


async def test_a_cancellation_passes_though_the_connection_of_the_lock_is_gone(db: Database) -> None:
    """Swallowed, it left the chores running and the daemon waiting for their end."""
    has_lock = asyncio.Event()

    async def hold() -> None:
        async with db.connection() as connection, locks.held(connection, locks.UPKEEP) as ours:
            assert ours
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            async with db.connection() as other:
                await other.execute("SELECT pg_terminate_backend($1, 1000)", pid)
            has_lock.set()
            await asyncio.sleep(60)

    holding = asyncio.create_task(hold())
    await has_lock.wait()
    await asyncio.sleep(0.1)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
