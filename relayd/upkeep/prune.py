"""Remove messages and log rows that ended longer ago than the operator wants to keep them."""

from datetime import timedelta

from relayd.store import retention
from relayd.store.pool import Database

BATCH = 500


async def prune(database: Database, age: timedelta) -> None:
    """Remove what is older than `age`, in small transactions, until nothing is left to remove."""
    while True:
        async with database.transaction() as connection:
            if await retention.prune(connection, age, limit=BATCH) == 0:
                return
