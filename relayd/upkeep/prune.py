"""Remove messages, log rows and clients' events that are older than the operator wants to keep them, and suppressions
that have expired."""

from datetime import timedelta

from relayd.store import client_events, retention, suppressions
from relayd.store.pool import Database

BATCH = 500


async def prune(database: Database, age: timedelta) -> None:
    """Remove what has had its time, in small transactions, until nothing is left to remove."""
    while True:
        async with database.transaction() as connection:
            removed = await retention.prune(connection, age, limit=BATCH)
            removed += await client_events.prune(connection, age, limit=BATCH)
            removed += await suppressions.prune(connection, limit=BATCH)
        if removed == 0:
            return
