"""Let scheduled entries go when their time has come."""

from collections.abc import Callable

from relayd.store import scheduled
from relayd.store.pool import Database

BATCH = 1000


async def release_scheduled(database: Database, wake: Callable[[], None]) -> None:
    """Queue what is due, a batch a transaction, and wake the workers for each."""
    released = BATCH
    while released == BATCH:
        async with database.transaction() as connection:
            released = await scheduled.release_due(connection, most=BATCH)
        if released:
            wake()
