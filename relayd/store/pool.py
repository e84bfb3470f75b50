"""The database as the rest of relayd sees it: connections, transactions, and one error when it cannot be reached.

A connection goes back to the pool without asyncpg's reset: one round trip less, and no failure between a commit and
its 250. So leave nothing behind in a session: SET LOCAL, transaction locks; a session's lock is given back by hand.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any, Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from relayd.errors import RelaydError, StoreFull, StoreUnavailable
from relayd.store import durability, migrate
from relayd.store.connection import Connection, Connector, TooManyConnections, is_unavailable, reason
from relayd.store.dsn import Dsn, parse_dsn
from relayd.store.server import Server, ServerConnection, server_of

OLDEST_SERVER = 15
_CLOSE_SECONDS = 10.0
_RELEASE_SECONDS = 1.0
# How long a server that was cancelled at its own limit may take to say so.
_ANSWER_SECONDS = 2.0
_CROWDED_SECONDS = 0.2

# Of the TCP connection, as the server sees it: the locks of a node that lost its power are free after half a minute.
# It also keeps a connection alive in a firewall's table. Without TCP these do nothing.
_KEEPALIVE = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


class Database:
    """A pool that heals by itself: opening it never connects, and each use connects anew if it must."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        connector: Connector,
        dsn: Dsn,
        acquire_timeout_seconds: float,
    ) -> None:
        self._pool = pool
        self._connector = connector
        self._dsn = dsn
        self._acquire_timeout_seconds = acquire_timeout_seconds

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        password: str | None = None,
        max_size: int = 10,
        connect_timeout_seconds: float = 3.0,
        acquire_timeout_seconds: float = 5.0,
        statement_timeout_seconds: float = 10.0,
        ssl: SSLContext | str | None = None,
        application_name: str = "relayd",
        server_settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Does not connect; see check(). Raises RelaydError for a DSN that cannot be read."""
        parsed = parse_dsn(dsn, password)
        connector = Connector(
            parsed,
            # All hosts get their turn before acquiring gives up.
            connect_timeout_seconds=min(
                connect_timeout_seconds, 0.9 * acquire_timeout_seconds / max(len(parsed.hosts), 1)
            ),
            # The server's own limit does not help when the network swallows its answer, nor does it end a commit that
            # waits for a standby.
            command_timeout_seconds=statement_timeout_seconds + _ANSWER_SECONDS,
            ssl=ssl,
            server_settings={
                "application_name": application_name,
                "statement_timeout": str(round(statement_timeout_seconds * 1000)),
                "idle_in_transaction_session_timeout": str(round(statement_timeout_seconds * 1000)),
                # A commit that was not replicated says so by a warning alone.
                "client_min_messages": "warning",
                **_KEEPALIVE,
                **(server_settings or {}),
            },
        )

        async def connect(*_: Any, **arguments: Any) -> ServerConnection:
            return await connector.connect(**arguments)

        pool: asyncpg.Pool[asyncpg.Record] = await asyncpg.create_pool(
            min_size=0, max_size=max_size, connect=connect, reset=_keep_session, connection_class=ServerConnection
        )
        return cls(pool, connector, parsed, acquire_timeout_seconds)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises StoreUnavailable for what ails the server or the way to it.

        What was committed on it without an error is durable, on the standby too where Postgres is told to wait for it.
        """
        connection = await self._acquire()
        server = server_of(connection)
        try:
            with self._unavailable_told(connection, server), durability.witnessed(connection):
                yield connection
        finally:
            await self._release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """As connection(), in a transaction. StoreUnavailable may mean that the commit took place all the same."""
        async with self.connection() as connection:
            server = server_of(connection)
            async with connection.transaction():
                # Here as well: a rollback on a connection that hangs would wait as long again.
                with self._unavailable_told(connection, server):
                    yield connection

    async def check(self, migrations: Path | None = None) -> list[str]:
        """Connect once and say what is wrong: StoreUnavailable if it may pass, else RelaydError. Gives warnings."""
        try:
            connection = await self._connector.connect()
        except asyncpg.PostgresError as error:
            raise RelaydError(f"{_advice(error)} ({self._dsn.safe()})") from error
        try:
            with self._unavailable_told(connection, connection.server):
                await _examine(connection, migrations)
                return await self.warnings(connection)
        finally:
            connection.terminate()

    async def warnings(self, connection: Connection) -> list[str]:
        """What the operator should know of this server before mail is lost; empty if all is well."""
        return await durability.warnings(connection, has_several_hosts=len(self._dsn.hosts) > 1)

    def safe_dsn(self) -> str:
        """Where the database is, without any secret."""
        return self._dsn.safe()

    async def close(self) -> None:
        """Wait a little for those who still use it, then cut them off."""
        await self._connector.close()
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    async def _acquire(self) -> "PoolConnectionProxy[asyncpg.Record]":
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._acquire_timeout_seconds
        while True:
            try:
                return await self._pool.acquire(timeout=give_up_at - clock())
            except TooManyConnections:
                # One of those that we hold may be free by then.
                if self._pool.get_size() == 0 or clock() + _CROWDED_SECONDS > give_up_at:
                    raise
                await asyncio.sleep(_CROWDED_SECONDS)
            except TimeoutError as error:
                used = self._pool.get_size() - self._pool.get_idle_size()
                raise StoreUnavailable(
                    f"no connection to Postgres within {self._acquire_timeout_seconds:g} s"
                    f" ({used} of {self._pool.get_max_size()} in use)"
                ) from error
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                # A password or database that was right at the start counts too: it may be put right again.
                raise StoreUnavailable(f"cannot connect to Postgres: {reason(error)}") from error

    async def _release(self, connection: "PoolConnectionProxy[asyncpg.Record]") -> None:
        # What was to be done is done or has failed already, and asyncpg drops a broken connection by itself.
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._pool.release(connection, timeout=_RELEASE_SECONDS)

    @contextmanager
    def _unavailable_told(self, connection: Connection, server: Server) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if isinstance(error.__context__, StoreUnavailable) and isinstance(error, asyncpg.InterfaceError):
                raise error.__context__ from None  # told already; then its transaction could not be rolled back
            if isinstance(error, TimeoutError | asyncpg.ReadOnlySQLTransactionError):
                # It hangs, or was a primary: its other connections would find out one by one, each as late.
                self._connector.distrust(server)
            if isinstance(error, asyncpg.DiskFullError):
                raise StoreFull(f"Postgres has no room: {reason(error)}") from error
            if is_unavailable(error) or (isinstance(error, asyncpg.InterfaceError) and _is_gone(connection)):
                raise StoreUnavailable(f"Postgres is unavailable: {reason(error)}") from error
            if isinstance(error, asyncpg.InternalClientError):
                # asyncpg lost its place: seen where the server went away between two messages. No more can be asked.
                connection.terminate()
                raise StoreUnavailable("Postgres is unavailable: the connection broke") from error
            raise


async def _keep_session(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """In place of asyncpg's reset query; an open transaction it has rolled back before this."""


def _is_gone(connection: Connection) -> bool:
    # On a living connection an InterfaceError is a bug of ours and must not pass for an outage.
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def _advice(error: asyncpg.PostgresError) -> str:
    match error:
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"Postgres refuses the user or the password: {reason(error)}"
        case asyncpg.InvalidCatalogNameError():
            return f"the database does not exist, create it first: {reason(error)}"
        case _:
            return f"Postgres refuses the connection: {reason(error)}"


async def _examine(connection: Connection, migrations: Path | None) -> None:
    version = connection.get_server_version()
    if version.major < OLDEST_SERVER:
        raise RelaydError(f"the server is PostgreSQL {version.major}; relayd needs {OLDEST_SERVER} or newer")
    missing = await migrate.pending(connection, migrations)
    if missing:
        raise RelaydError(
            f"the database lacks {len(missing)} migration(s), first {missing[0].name}: "
            "run `relayd migrate up --config FILE`"
        )
