"""A node's identity in the database: its name is its own while it lives."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from relayd.config.settings import TrustedNetwork
from relayd.errors import RelaydError, StoreUnavailable
from relayd.store import directory, locks
from relayd.store.pool import Database

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
RENEW_SECONDS = 5.0
RETRY_SECONDS = 0.2


async def networks_without_client(database: Database, networks: Sequence[TrustedNetwork]) -> list[str]:
    """Warnings about networks that let nobody in: their client is not there, or suspended."""
    async with database.connection() as connection:
        return [
            f"trusted_networks: {each.network} is refused while there is no active client {each.client}: "
            f"relayd client add {each.client}"
            for each in networks
            if (found := await directory.find_client(connection, each.client)) is None or found.is_suspended
        ]


@asynccontextmanager
async def sole_bearer(database: Database, name: str) -> AsyncIterator[None]:
    """Hold the node's name, and take it again whenever Postgres was away. Raises RelaydError when another bears it.

    A name decides whose claims a starting node takes back, so no two may live under one.
    """
    held = asyncio.Event()
    keeper = asyncio.create_task(_keep(database, name, held), name="node name")
    try:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await held.wait()
        except TimeoutError:
            raise RelaydError(
                f"another relayd named {name!r} runs on this database; "
                "give each node a name of its own with `node` in its configuration"
            ) from None
        yield
    finally:
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper


async def _keep(database: Database, name: str, held: asyncio.Event) -> None:
    while True:
        try:
            async with database.connection() as connection, locks.held(connection, locks.node_lock(name)) as ours:
                if ours:
                    held.set()
                    while True:
                        await asyncio.sleep(RENEW_SECONDS)
                        await locks.touch(connection)
                elif held.is_set():
                    log.error("another relayd took the name %s while Postgres was away; stop one of the two", name)
        except StoreUnavailable:
            pass  # the hot path says so loudly
        # A predecessor that was killed a moment ago: Postgres takes a moment to notice.
        await asyncio.sleep(RETRY_SECONDS)
