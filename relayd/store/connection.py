"""Open one connection to Postgres: the DSN's hosts one at a time, the one that may write, codecs set.

asyncpg could try several hosts itself, but stops at a first one that answers 53300 (too many connections), and takes a
primary that was overtaken for one that may write.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import Any, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.exceptions import TargetServerAttributeNotMatched
from asyncpg.pool import PoolConnectionProxy

from relayd.errors import RelaydError, StoreUnavailable
from relayd.store.dsn import Dsn
from relayd.store.server import END_BACKENDS, Overtaken, Server, ServerConnection, Timelines

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

# Classes 08, 53 and 57 (a statement that takes too long among them), a disk's error, and a server turned standby.
_UNAVAILABLE = (
    OSError,
    TimeoutError,
    TargetServerAttributeNotMatched,
    Overtaken,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresIOError,
    asyncpg.ReadOnlySQLTransactionError,
)


def is_unavailable(error: BaseException) -> bool:
    """Whether trying again later may work: the server is away, full, shutting down, or takes no writes."""
    return isinstance(error, _UNAVAILABLE)


def reason(error: BaseException) -> str:
    """A few words for the operator; nothing of a statement's values."""
    match error:
        case asyncpg.PostgresError(message=str(message)):
            return f"{message} ({error.sqlstate})"
        case TargetServerAttributeNotMatched():
            return "it takes no writes (a standby?)"
        case Overtaken():
            return "its standby was promoted, it is not the primary any more"
        case TimeoutError():
            return "no answer in time"
        case OSError(strerror=str(text)):
            return text
        case _:
            return str(error) or type(error).__name__


class TooManyConnections(StoreUnavailable):
    """No host gives one, and one of them because its max_connections are in use (53300)."""


class Connector:
    """Opens connections for one DSN. Starts at the host that last worked: a dead first one is felt only once."""

    def __init__(
        self,
        dsn: Dsn,
        *,
        connect_timeout_seconds: float = 3.0,
        command_timeout_seconds: float | None = None,
        ssl: SSLContext | str | None = None,
        server_settings: Mapping[str, str] | None = None,
    ) -> None:
        self._dsn = dsn
        self._servers = [Server(host) for host in dsn.hosts or (None,)]
        self._first = 0
        self._timelines = Timelines()
        self._timeout_seconds = connect_timeout_seconds
        self._ending: set[asyncio.Task[None]] = set()
        self._arguments: dict[str, Any] = {
            "user": dsn.user,
            "password": dsn.password,
            "database": dsn.database,
            "ssl": ssl,
            "timeout": connect_timeout_seconds,
            "command_timeout": command_timeout_seconds,
            "server_settings": dict(server_settings or {}),
            "target_session_attrs": SessionAttribute.read_write,
            "connection_class": ServerConnection,
        }

    async def connect(self, **pool_arguments: Any) -> ServerConnection:
        """A connection that may write. StoreUnavailable if no host gives one; asyncpg's other errors pass."""
        failures: list[str] = []
        is_full = False
        for _ in self._servers:
            index = self._first
            server = self._servers[index]
            try:
                return await self._connect_to(server, pool_arguments)
            except BaseException as error:
                # Even if we are cancelled, the next try must not start at the same silent host.
                self._first = (index + 1) % len(self._servers)
                if not is_unavailable(error):
                    raise
                is_full = is_full or isinstance(error, asyncpg.TooManyConnectionsError)
                failures.append(f"{server.host or 'the default host'}: {reason(error)}")
                last_error = error
        told = f"cannot connect to Postgres: {'; '.join(failures)}"
        if is_full:
            raise TooManyConnections(
                f"{told}; all its connections are in use: raise max_connections there, "
                "or lower processes or database.connections here"
            ) from last_error
        raise StoreUnavailable(told) from last_error

    def distrust(self, server: Server) -> None:
        """It hangs, or takes no writes any more: drop all connections to it, and look at the next host first.

        Once for all the uses that fail at the same time.
        """
        if server not in self._servers:
            return
        index = self._servers.index(server)
        self._servers[index] = Server(server.host)
        self._first = (index + 1) % len(self._servers)
        ending = asyncio.create_task(self._end_backends(server, server.cut_off()))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Let go of what is under way in the background."""
        for ending in self._ending:
            ending.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _end_backends(self, server: Server, pids: list[int]) -> None:
        # If it cannot be asked, it has nothing to do for us either.
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TargetServerAttributeNotMatched):
            connection = await self._open(server, {"target_session_attrs": SessionAttribute.any})
            try:
                await connection.execute(END_BACKENDS, pids, timeout=self._timeout_seconds)
            finally:
                connection.terminate()

    async def _connect_to(self, server: Server, pool_arguments: dict[str, Any]) -> ServerConnection:
        connection = await self._open(server, pool_arguments)
        try:
            await _set_codecs(connection)
            if len(self._servers) > 1:
                await self._timelines.check(connection, timeout_seconds=self._timeout_seconds)
        except BaseException:
            connection.terminate()
            raise
        server.adopt(connection)
        return connection

    async def _open(self, server: Server, arguments: dict[str, Any]) -> ServerConnection:
        host = server.host
        place: dict[str, Any] = {} if host is None else {"host": host.name, "port": host.port}
        try:
            connection: ServerConnection = await asyncpg.connect(
                self._dsn.options_only, **place, **{**self._arguments, **arguments}
            )
        except (asyncpg.exceptions.ClientConfigurationError, ValueError) as error:
            if isinstance(error, OSError):
                raise  # a certificate that is not believed is a ValueError too, but the other end's doing
            raise RelaydError(f"the database's settings cannot be used: {error}") from None
        return connection


async def _set_codecs(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # Binary, or COPY could not write the column. A jsonb's first byte is its format's version. No query is sent.
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=_encode_jsonb,
        decoder=lambda data: json.loads(data[1:]),
    )
    await connection.set_type_codec(
        "json",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: _encode_jsonb(value)[1:],
        decoder=json.loads,
    )


def _encode_jsonb(value: object) -> bytes:
    return b"\x01" + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
