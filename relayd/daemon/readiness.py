"""Whether mail can be taken now: the workers say whether they could queue it, Postgres whether it takes writes.

Nothing is written to answer that: commits at every question would fill an idle server's archive. Only when a worker
could not queue, one commit is tried here as well: a server that hangs is then left by the supervisor, too.
"""

import asyncio
from contextlib import suppress

from relayd.daemon.http import Readiness
from relayd.errors import StoreUnavailable
from relayd.store import durability
from relayd.store.pool import Database

# Who asks, a load balancer say, waits no longer itself.
ANSWER_SECONDS = 3.0
COMMIT_SECONDS = 5.0


class ReadinessCheck:
    """The supervisor's own look at the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looking: asyncio.Task[None] | None = None

    async def ask(self, *, workers: int, is_refusing: bool, key_fits: bool) -> Readiness:
        """Answers within a few seconds. `is_refusing`: a worker could not queue a message a moment ago."""
        if workers == 0:
            return Readiness(False, "no worker is ready")
        if is_refusing:
            return Readiness(False, "messages cannot be queued")
        if not key_fits:
            return Readiness(False, "the sealing key is not that of the database")
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._database.connection() as connection:
                if await durability.takes_writes(connection):
                    return Readiness(True, "ready")
            return Readiness(False, "the database takes no writes")
        except (StoreUnavailable, TimeoutError):
            return Readiness(False, "the database does not answer")

    def suspect(self) -> None:
        """A worker could not queue a message: see whether we could commit."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="look at the database")

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        with suppress(StoreUnavailable):
            async with self._database.connection() as connection:
                # Within, so that the pool learns of it.
                async with asyncio.timeout(COMMIT_SECONDS):
                    await durability.probe(connection)
