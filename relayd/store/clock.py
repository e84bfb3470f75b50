"""The database's clock, as seen from this process: decisions made in Python use the same time as those in SQL."""

from datetime import UTC, datetime, timedelta

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

NOW = "SELECT relayd_now()"


class DatabaseClock:
    """`now` is this machine's clock, set right by `sync`. A worker syncs every second or so."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        return datetime.now(UTC) + self._ahead

    async def sync(self, connection: Connection) -> None:
        """Learn how far the database's clock is from ours."""
        before = datetime.now(UTC)
        there = await connection.fetchval(NOW)
        after = datetime.now(UTC)
        self._ahead = there - (before + (after - before) / 2)
