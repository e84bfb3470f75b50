"""An aiohttp application on sockets that nobody can hold: so many connections at once, so long without a request."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

MAX_CONNECTIONS = 100
# Until a request's header has come whole: of a new connection, and after each answer.
IDLE_SECONDS = 30.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpServer:
    """Serves from the first `listen` to `close`. Where there is no room, the one that idles longest makes some."""

    def __init__(
        self,
        application: web.Application,
        *,
        shutdown_seconds: float,
        max_connections: int = MAX_CONNECTIONS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._max_connections = max_connections
        self._idle_seconds = idle_seconds
        # In the order in which they began to idle.
        self._idle: dict[asyncio.Transport, float] = {}
        self._busy: set[asyncio.Transport] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._servers: list[asyncio.Server] = []
        application.middlewares.insert(0, self._count_as_busy)
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, shutdown_timeout=shutdown_seconds
        )

    async def listen(self, listening: socket.socket) -> None:
        """Serve on this socket too, and own it."""
        if self._runner.server is None:
            await self._runner.setup()
        server = await asyncio.get_running_loop().create_server(self._new_protocol, sock=listening)
        self._servers.append(server)

    async def close(self) -> None:
        """Close the sockets and let requests under way end. Harmless when nothing was served."""
        for server in self._servers:
            server.close()
        if self._sweep is not None:
            self._sweep.cancel()
        await self._runner.cleanup()

    def opened(self, transport: asyncio.Transport) -> None:
        """A connection is there."""
        if len(self._idle) + len(self._busy) >= self._max_connections:
            crowded_out = next(iter(self._idle), transport)
            crowded_out.abort()
            if crowded_out is transport:
                return
            del self._idle[crowded_out]
        self._begin_to_idle(transport)

    def closed(self, transport: asyncio.Transport) -> None:
        """A connection is gone."""
        self._idle.pop(transport, None)
        self._busy.discard(transport)

    def _new_protocol(self) -> asyncio.Protocol:
        assert self._runner.server
        return _Watched(cast(asyncio.Protocol, self._runner.server()), self)

    @web.middleware
    async def _count_as_busy(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if transport not in self._idle:
            return await handler(request)  # crowded out, or gone, a moment ago
        del self._idle[transport]
        self._busy.add(transport)
        try:
            return await handler(request)
        finally:
            if transport in self._busy:
                self._busy.discard(transport)
                self._begin_to_idle(transport)

    def _begin_to_idle(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        self._idle[transport] = loop.time()
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_seconds, self._close_idle)

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = None
        while self._idle:
            transport, since = next(iter(self._idle.items()))
            if loop.time() < since + self._idle_seconds:
                self._sweep = loop.call_at(since + self._idle_seconds, self._close_idle)
                return
            del self._idle[transport]
            transport.abort()


class _Watched(asyncio.Protocol):
    """Passes everything on, and tells the server of the connection's beginning and end."""

    def __init__(self, inner: asyncio.Protocol, server: HttpServer) -> None:
        self._server = server
        self._inner = inner
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(transport)
        self._server.opened(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        assert self._transport
        self._server.closed(self._transport)
        self._inner.connection_lost(error)
