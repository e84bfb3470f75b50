"""A sealed word in the database: whoever starts with another sealing key learns it at once, not at the first secret."""

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

ROW = "relayd_state/seal_check"

READ = "SELECT seal_check FROM relayd_state"
# Only where there is none: two nodes that start at once agree on the first.
WRITE = "UPDATE relayd_state SET seal_check = $1 WHERE seal_check IS NULL"

# By a rotation, before all other values: who starts without the new key is then told. Index: relayd_state_pkey.
REPLACE = "UPDATE relayd_state SET seal_check = $2 WHERE seal_check = $1"

# Where the former key is lost.
FORCE = "UPDATE relayd_state SET seal_check = $1"


async def read(connection: Connection) -> bytes | None:
    """What was sealed at the first start, None before it."""
    sealed: bytes | None = await connection.fetchval(READ)
    return sealed


async def write(connection: Connection, sealed: bytes) -> None:
    """Keep the first one."""
    await connection.execute(WRITE, sealed)


async def replace(connection: Connection, before: bytes, after: bytes) -> None:
    """Put another in its place; waits for nodes that tell their keys just now. Another's replacement stays."""
    await connection.execute(REPLACE, before, after)


async def force(connection: Connection, sealed: bytes) -> None:
    """Put this one in its place, whatever was there."""
    await connection.execute(FORCE, sealed)
