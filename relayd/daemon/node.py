"""A node's identity in the database: its name is its own while it lives, and the key it seals with is the cluster's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from relayd.errors import RelaydError
from relayd.seal import Seal, SealError
from relayd.store import locks, sealcheck
from relayd.store.pool import Database

PATIENCE_SECONDS = 10.0


async def check_seal(database: Database, seal: Seal) -> None:
    """Raises RelaydError when this is not the key that the database's secrets are sealed with."""
    async with database.connection() as connection:
        sealed = await sealcheck.read(connection)
        if sealed is None:
            await sealcheck.write(connection, seal.seal(b"relayd", row=sealcheck.ROW))
            sealed = await sealcheck.read(connection)
    assert sealed is not None
    try:
        seal.open(sealed, row=sealcheck.ROW)
    except SealError as error:
        raise RelaydError(
            f"the sealing key is not the one that this database's secrets are sealed with: {error}"
        ) from error


@asynccontextmanager
async def sole_bearer(database: Database, name: str) -> AsyncIterator[None]:
    """Hold the node's name. Raises RelaydError when another relayd bears it.

    A name decides whose claims a starting node takes back, so no two may live under one.
    """
    async with AsyncExitStack() as stack:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not await _try(database, name, stack):
            # A predecessor that was killed a moment ago: Postgres takes a moment to notice.
            if asyncio.get_running_loop().time() > deadline:
                raise RelaydError(
                    f"another relayd named {name!r} runs on this database; "
                    "give each node a name of its own with `node` in its configuration"
                )
            await asyncio.sleep(0.2)
        yield


async def _try(database: Database, name: str, stack: AsyncExitStack) -> bool:
    attempt = AsyncExitStack()
    connection = await attempt.enter_async_context(database.connection())
    if await attempt.enter_async_context(locks.held(connection, locks.node_lock(name))):
        await stack.enter_async_context(attempt)
        return True
    await attempt.aclose()
    return False
