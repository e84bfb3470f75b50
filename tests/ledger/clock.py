"""The database's clock in our hand: it stands still until it is set, so that a history is the same each time."""

from datetime import UTC, datetime, timedelta

from relayd.store.connection import Connection

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

# Everything that relayd knows of the time comes from here. clock_offset is what tests set anyway.
STILL = """
CREATE OR REPLACE FUNCTION relayd_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT timestamptz '2000-01-01 00:00+00' + clock_offset FROM relayd_state
$$
"""
SET = "UPDATE relayd_state SET clock_offset = $1"


class StillClock:
    """`now` is what relayd_now() answers on that database."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._connection = connection
        self.now = now
        self.latest = now

    async def stop(self) -> None:
        """From now on it moves only when it is set."""
        await self._connection.execute(STILL)
        await self.set(self.now)

    async def set(self, moment: datetime) -> None:
        """Forwards or backwards."""
        await self._connection.execute(SET, moment - EPOCH)
        self.now = moment
        self.latest = max(self.latest, moment)

    async def step(self, by: timedelta) -> None:
        """As set, from where it stands."""
        await self.set(self.now + by)
