"""A TCP proxy on 127.0.0.1 that may fall silent: nothing is forwarded, nothing is closed, and all is still accepted."""

import asyncio
import threading

from tests.crash.loopback import loopback
from tests.peers.winding_up import wind_up


class Proxy:
    """Use as a context manager; forwards to a port of 127.0.0.1, in a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = 0

    def __enter__(self) -> "Proxy":
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(started)), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop.close()

    def fall_silent(self) -> None:
        """Forward nothing more, in either direction, on old connections and new ones."""
        self._loop.call_soon_threadsafe(self._forwarding.clear)

    def speak(self) -> None:
        """Forward again, what was held back first."""
        self._loop.call_soon_threadsafe(self._forwarding.set)

    async def _serve(self, started: threading.Event) -> None:
        self._stopping, self._forwarding = asyncio.Event(), asyncio.Event()
        self._forwarding.set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopping.wait()
        await wind_up(server)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._forwarding.wait()
            there, back = await asyncio.open_connection(loopback("127.0.0.1"), self._target_port)
            try:
                await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
            finally:
                back.transport.abort()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while octets := await reader.read(65536):
            await self._forwarding.wait()
            writer.write(octets)
            await writer.drain()
        # Both directions end together: half a connection is of no use to Postgres.
        raise EOFError
