"""Advisory locks: who does the cluster's chores, and that no two nodes share a name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from zlib import crc32

import asyncpg

from relayd.errors import StoreUnavailable
from relayd.store import durability

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

_SPACE = 0x72656C61  # "rela": keeps clear of others' locks in the same database
UPKEEP = 1
UNLOCK_SECONDS = 2.0

TRY = "SELECT pg_try_advisory_lock($1, $2)"
UNLOCK = "SELECT pg_advisory_unlock($1, $2)"
# Of this database, whoever holds them. No index: it is a view of the server's memory.
HELD = """
SELECT l.objid::bigint AS lock, a.application_name IS NOT DISTINCT FROM $2 AS is_named_so
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = $1::bigint::oid
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def node_lock(name: str) -> int:
    """The lock of a node's name."""
    return crc32(f"node {name}".encode()) >> 1 or 2


@asynccontextmanager
async def held(connection: Connection, lock: int) -> AsyncIterator[bool]:
    """Try the lock; True while it is ours. It is given back at the end, and by Postgres when the connection ends."""
    ours = await connection.fetchval(TRY, _SPACE, lock)
    try:
        yield ours
    finally:
        if ours:
            # Should the connection be gone, so is the lock. Nothing may be raised here in place of a cancellation.
            with suppress(
                OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
            ):
                await connection.execute(UNLOCK, _SPACE, lock, timeout=UNLOCK_SECONDS)


async def held_by_anybody(connection: Connection, *, application: str) -> dict[int, bool]:
    """The locks but UPKEEP that somebody holds: whether it is a connection that bears this application's name."""
    rows = await connection.fetch(HELD, _SPACE, application)
    return {row["lock"]: row["is_named_so"] for row in rows if row["lock"] != UPKEEP}


async def touch(connection: Connection) -> None:
    """Raise StoreUnavailable (some of it through the pool) if the lock is gone, or its server takes no writes."""
    try:
        is_worth_something = await durability.takes_writes(connection)
    except asyncpg.InterfaceError as error:
        raise StoreUnavailable("the connection that held the lock is gone") from error
    if not is_worth_something:
        # It keeps nobody off the server that does.
        raise StoreUnavailable("the server that held the lock takes no writes any more")
