"""Mend lanes whose wake was lost with the process that should have given it, or whose budget has room after all."""

from collections.abc import Callable

from relayd.store import lanes
from relayd.store.pool import Database


async def wake_lanes(database: Database, wake: Callable[[], None]) -> None:
    """Look at every lane once; wake the workers if one had to be mended."""
    async with database.transaction() as connection:
        mended = await lanes.sweep(connection) > 0
    async with database.transaction() as connection:
        freed = await lanes.use_idle_units(connection)
    if mended or freed:
        wake()
