"""The pool's bookkeeping where sockets would make the order of events a matter of luck."""

import asyncio
from collections.abc import Hashable

import pytest

from relayd.rules.outcome import Outcome
from relayd.upstream.connection import Connection
from relayd.upstream.pool import Pool
from tests.peers.mail import settings


async def test_a_turn_given_to_a_cancelled_waiter_goes_to_the_next() -> None:
    async def open_connection(identity: Hashable) -> Connection | Outcome:
        return Connection(settings(25))

    pool = Pool(open_connection, max_connections=1, max_messages_per_connection=9, idle_seconds=9, clock=lambda: 0.0)
    held = await pool.acquire()
    assert isinstance(held, Connection)
    second, third = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    pool.discard(held)  # wakes the second ...
    second.cancel()  # ... which is cancelled before it runs
    with pytest.raises(asyncio.CancelledError):
        await second
    assert isinstance(await asyncio.wait_for(third, 20), Connection)
