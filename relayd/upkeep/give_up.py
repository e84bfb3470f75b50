"""Give up what has been tried for long enough while its upstream's breaker is open.

Otherwise an attempt gives up; but none is made there, so the sender would never learn of it.
"""

from relayd.rules.outcome import Cause, Deferred, Scope, Stage
from relayd.store.overdue import overdue
from relayd.store.pool import Database
from relayd.upkeep.reclaim import Settle

BATCH = 500


async def give_up(database: Database, settle: Settle, *, give_up_seconds: float) -> None:
    """Settle all of them, each with its bounce. Safe to repeat."""
    while True:
        async with database.connection() as connection:
            found = await overdue(connection, give_up_seconds=give_up_seconds, limit=BATCH)
        if found:
            await settle(
                [(each.claim, Deferred(Scope.UPSTREAM, Cause(Stage.LOCAL, each.reason))) for each in found],
            )
        if len(found) < BATCH:
            return
