"""Whether what Postgres says is committed is so: on disk, and on the standby where it is told to wait for one.

Two things lie without an error. Settings that trade commits for speed; and a commit that waited for its standby and was
cancelled (pg_cancel_backend): it "succeeds", with a warning that it may not have been replicated.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg

from relayd.errors import StoreUnavailable
from relayd.store.connection import Connection

# As this session sees them: server, database and role settings and the DSN's options together.
SETTINGS = """
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('synchronous_standby_names') AS standbys
"""

TAKES_WRITES = "SELECT NOT current_setting('transaction_read_only')::bool"

# A commit of something, to the disk and to the standby, that leaves nothing behind but in the log.
PROBE = "SELECT pg_logical_emit_message(true, 'relayd', '')"

# The function of Postgres that says it. Its text is translated, this is not.
_WAIT = "SyncRepWaitForLSN"


async def warnings(connection: Connection, *, has_several_hosts: bool = False) -> list[str]:
    """What the operator should know before mail is lost, and what to do about it; empty if all is well."""
    row = await connection.fetchrow(SETTINGS)
    assert row is not None
    found = []
    for name in ("fsync", "full_page_writes"):
        if row[name] == "off":
            found.append(
                f"Postgres runs with {name} = off: accepted messages can be lost, and the database with them, when its "
                f"machine crashes; set {name} = on in postgresql.conf and reload it"
            )
    if row["synchronous_commit"] == "off":
        found.append(
            "Postgres runs with synchronous_commit = off: accepted messages can be lost when it crashes; set it to on, "
            "in postgresql.conf or wherever it is set for relayd alone (ALTER ROLE, ALTER DATABASE, the DSN)"
        )
    elif row["standbys"] and row["synchronous_commit"] == "local":
        found.append(
            "Postgres runs with synchronous_commit = local and does not wait for its standby: accepted messages can be "
            "lost when the standby takes over; set it to on"
        )
    if has_several_hosts and not row["standbys"]:
        found.append(
            "the DSN names several hosts, but Postgres waits for no standby (synchronous_standby_names is empty): "
            "accepted messages can be lost when the standby takes over"
        )
    return found


async def takes_writes(connection: Connection) -> bool:
    """False once this server has become a standby, or its owner has closed it for writes. Says nothing of its disk."""
    answer: bool = await connection.fetchval(TAKES_WRITES)
    return answer


async def probe(connection: Connection) -> None:
    """Commit nothing, durably. Raises what an enqueue would raise, except where the disk is full for tables alone."""
    # A server whose owner has taken the function from the public cannot be asked.
    with suppress(asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedFunctionError):
        await connection.execute(PROBE)


@contextmanager
def witnessed(connection: Connection) -> Iterator[None]:
    """Raises StoreUnavailable at the end if a commit on this connection was not waited for."""
    unreplicated = []

    def hear(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if getattr(message, "server_source_function", None) == _WAIT:
            unreplicated.append(message)

    connection.add_log_listener(hear)
    try:
        yield
    finally:
        # Should the connection be gone, so is the listener.
        with suppress(asyncpg.InterfaceError):
            connection.remove_log_listener(hear)
    if unreplicated:
        raise StoreUnavailable("Postgres committed, but its standby may not have it: the wait for it was cancelled")
