"""One host of the DSN, the connections that lead to it, and whether it is the primary or one that was overtaken.

A primary that hung, or was cut off, while its standby was promoted still believes that it is the primary: it accepts
connections and takes no part in what is acknowledged since. Its timeline tells: each promotion begins a higher one.
"""

from dataclasses import dataclass, field
from typing import cast
from weakref import WeakSet

import asyncpg

from relayd.errors import RelaydError
from relayd.store.dsn import Host

# The cluster's name for itself, and the timeline that it writes. Only a primary can say the second.
IDENTIFY = """
SELECT system_identifier::text AS cluster, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline
  FROM pg_control_system()
"""

# A commit that waits for a standby does not notice that its client is gone: each would hold a connection, and locks,
# until the standby is back. They are ours by name. $1: their processes.
END_BACKENDS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE pid = ANY($1::int[]) AND application_name = current_setting('application_name')
"""


class Overtaken(RelaydError):
    """This server's standby was promoted: another server is the primary now."""


class ServerConnection(asyncpg.Connection):
    """A connection that knows its server."""

    server: "Server"


@dataclass(eq=False, slots=True)
class Server:
    """A host, from when it was last distrusted (or never) until it is distrusted again."""

    host: Host | None
    connections: "WeakSet[ServerConnection]" = field(default_factory=WeakSet)

    def adopt(self, connection: ServerConnection) -> None:
        """This connection leads here."""
        connection.server = self
        self.connections.add(connection)

    def cut_off(self) -> list[int]:
        """End every connection, also those in use: what waits there would wait for its time limit, one by one.

        Returns the processes of the server that may not have noticed.
        """
        living = [connection for connection in self.connections if not connection.is_closed()]
        pids = [connection.get_server_pid() for connection in living]
        for connection in living:
            connection.terminate()
        return pids


def server_of(connection: object) -> Server:
    """Whither a connection leads; a pool's proxy for one will do, since it passes on what it does not know."""
    return cast(ServerConnection, connection).server


class Timelines:
    """The newest timeline seen of each cluster; a server on an older one was overtaken."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}

    async def check(self, connection: ServerConnection, *, timeout_seconds: float) -> None:
        """Raises Overtaken. A server that cannot say its timeline (some that only speak like Postgres) passes."""
        try:
            row = await connection.fetchrow(IDENTIFY, timeout=timeout_seconds)
        except asyncpg.ObjectNotInPrerequisiteStateError:
            raise Overtaken from None  # in recovery: it became a standby while we connected
        except (asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFunctionError, asyncpg.InsufficientPrivilegeError):
            return
        assert row is not None
        cluster, timeline = row["cluster"], int(row["timeline"], 16)
        if timeline < self._newest.get(cluster, 0):
            raise Overtaken
        self._newest[cluster] = timeline
