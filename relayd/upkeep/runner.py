"""Run the chores, once per cluster: whoever holds the advisory lock does them, and another node takes over."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from relayd.errors import StoreUnavailable
from relayd.store import locks
from relayd.store.connection import Connection
from relayd.store.pool import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every so often. `work` must be safe to repeat and to be cut off."""

    name: str
    every_seconds: float
    work: Callable[[], Awaitable[None]]


async def run(database: Database, chores: Sequence[Chore], *, retry_seconds: float = 5.0) -> None:
    """Do the chores for ever, whenever this node holds the lock. Survives a lost Postgres.

    Each chore is a task of its own: a slow one (DNS, a provider's API) delays no other.
    """
    while True:
        try:
            async with database.connection() as connection, locks.held(connection, locks.UPKEEP) as ours:
                if ours:
                    await _do(chores, connection)
        except StoreUnavailable:
            pass  # the hot path says so loudly; chores just wait
        except Exception:
            log.exception("chores ended and start again")
        await asyncio.sleep(retry_seconds)


async def _do(chores: Sequence[Chore], connection: Connection) -> None:
    turn = asyncio.Lock()  # one connection answers one question at a time
    try:
        async with asyncio.TaskGroup() as group:
            for chore in chores:
                group.create_task(_repeat(chore, connection, turn), name=chore.name)
    except ExceptionGroup as errors:
        # The connection's loss. Alone, the database can tell what it means.
        raise errors.exceptions[0] from None


async def _repeat(chore: Chore, connection: Connection, turn: asyncio.Lock) -> None:
    while True:
        # The lock lives as long as its connection: ask before every round.
        async with turn:
            await locks.touch(connection)
        try:
            await chore.work()
        except StoreUnavailable:
            pass  # if Postgres is gone, the lock says so next; if one statement took too long, the next round goes on
        except Exception:
            log.exception("chore %s failed", chore.name)
        await asyncio.sleep(chore.every_seconds)
