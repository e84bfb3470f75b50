"""Forget what came back, once it has been read for so long."""

from datetime import timedelta

from relayd.store import inbound_reports
from relayd.store.pool import Database

BATCH = 200


async def prune_reports(database: Database, age: timedelta) -> None:
    """Remove what was read longer than `age` ago, in small transactions."""
    while True:
        async with database.transaction() as connection:
            if await inbound_reports.prune(connection, age, limit=BATCH) < BATCH:
                return
