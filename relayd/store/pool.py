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

from relayd.errors import RelaydError, StoreUnavailable
from relayd.store import migrate
from relayd.store.connection import Connection, Connector, is_unavailable, reason
from relayd.store.dsn import parse_dsn

OLDEST_SERVER = 15
_CLOSE_SECONDS = 10.0
_DURABILITY_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")


class Database:
    """A pool that heals by itself: opening it never connects, and each use connects anew if it must."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        connector: Connector,
        safe_dsn: str,
        acquire_timeout_seconds: float,
    ) -> None:
        self._pool = pool
        self._connector = connector
        self._safe_dsn = safe_dsn
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
        statement_timeout_seconds: float = 30.0,
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
            # The server's own limit does not help when the network swallows its answer.
            command_timeout_seconds=statement_timeout_seconds + 5,
            ssl=ssl,
            server_settings={
                "application_name": application_name,
                "statement_timeout": str(round(statement_timeout_seconds * 1000)),
                "idle_in_transaction_session_timeout": str(round(statement_timeout_seconds * 1000)),
                **(server_settings or {}),
            },
        )

        async def connect(*_: Any, **arguments: Any) -> "asyncpg.Connection[asyncpg.Record]":
            return await connector.connect(**arguments)

        pool: asyncpg.Pool[asyncpg.Record] = await asyncpg.create_pool(
            min_size=0, max_size=max_size, connect=connect, reset=_keep_session
        )
        return cls(pool, connector, parsed.safe(), acquire_timeout_seconds)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises StoreUnavailable for what ails the server or the way to it."""
        connection = await self._acquire()
        try:
            with _unavailable_told(connection):
                yield connection
        except StoreUnavailable as error:
            if isinstance(error.__cause__, asyncpg.ReadOnlySQLTransactionError):
                # A failover: the other pooled connections lead to the old primary too.
                await self._pool.expire_connections()
            raise
        finally:
            await self._release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """As connection(), in a transaction. StoreUnavailable may mean that the commit took place all the same."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def check(self, migrations: Path | None = None) -> list[str]:
        """Connect once and say what is wrong: StoreUnavailable if it may pass, else RelaydError. Gives warnings."""
        try:
            connection = await self._connector.connect()
        except asyncpg.PostgresError as error:
            raise RelaydError(f"{_advice(error)} ({self._safe_dsn})") from error
        try:
            with _unavailable_told(connection):
                return await _examine(connection, migrations)
        finally:
            connection.terminate()

    def safe_dsn(self) -> str:
        """Where the database is, without any secret."""
        return self._safe_dsn

    async def close(self) -> None:
        """Wait a little for those who still use it, then cut them off."""
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool.terminate()

    async def _acquire(self) -> "PoolConnectionProxy[asyncpg.Record]":
        try:
            return await self._pool.acquire(timeout=self._acquire_timeout_seconds)
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
            await self._pool.release(connection)


async def _keep_session(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """In place of asyncpg's reset query; an open transaction it has rolled back before this."""


@contextmanager
def _unavailable_told(connection: Connection) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_unavailable(error) or (isinstance(error, asyncpg.InterfaceError) and _is_gone(connection)):
            raise StoreUnavailable(f"Postgres is unavailable: {reason(error)}") from error
        if isinstance(error, asyncpg.InternalClientError):
            # asyncpg lost its place: seen where the server went away between two messages. Nothing more can be asked.
            connection.terminate()
            raise StoreUnavailable("Postgres is unavailable: the connection broke") from error
        raise


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


async def _examine(connection: Connection, migrations: Path | None) -> list[str]:
    version = connection.get_server_version()
    if version.major < OLDEST_SERVER:
        raise RelaydError(f"the server is PostgreSQL {version.major}; relayd needs {OLDEST_SERVER} or newer")
    missing = await migrate.pending(connection, migrations)
    if missing:
        raise RelaydError(
            f"the database lacks {len(missing)} migration(s), first {missing[0].name}: "
            "run `relayd migrate up --config FILE`"
        )
    settings = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in _DURABILITY_SETTINGS}
    return [
        f"Postgres runs with {name} = off: accepted messages can be lost in a crash"
        for name, value in settings.items()
        if value == "off"
    ]
