"""Run the chores, once per cluster: whoever holds the advisory lock does them, and another node takes over."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from relayd.errors import StoreUnavailable
from relayd.store import locks
from relayd.store.pool import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every so often. `work` must be safe to repeat and to be cut off."""

    name: str
    every_seconds: float
    work: Callable[[], Awaitable[None]]


async def run(database: Database, chores: Sequence[Chore], *, retry_seconds: float = 5.0) -> None:
    """Do the chores for ever, whenever this node holds the lock. Survives a lost Postgres."""
    while True:
        try:
            async with database.connection() as connection, locks.held(connection, locks.UPKEEP) as ours:
                if ours:
                    await _work(chores, lambda: locks.touch(connection))
        except StoreUnavailable:
            pass  # the hot path says so loudly; chores just wait
        await asyncio.sleep(retry_seconds)


async def _work(chores: Sequence[Chore], still_ours: Callable[[], Awaitable[None]]) -> None:
    clock = asyncio.get_running_loop().time
    due = dict.fromkeys(range(len(chores)), 0.0)
    while True:
        # The lock lives as long as its connection: ask it before every chore.
        await still_ours()
        index = min(due, key=lambda each: due[each])
        await asyncio.sleep(max(0.0, due[index] - clock()))
        try:
            await chores[index].work()
        except StoreUnavailable:
            pass  # if Postgres is gone, the lock says so next; if one statement took too long, the others go on
        except Exception:
            log.exception("chore %s failed", chores[index].name)
        due[index] = clock() + chores[index].every_seconds
