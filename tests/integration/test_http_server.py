"""Nobody holds an HTTP server by connecting: idle and dripping connections make room for those who ask."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from relayd.control import parsing
from relayd.control.http_server import HttpServer
from tests.integration.conftest import Control

GET = b"GET / HTTP/1.1\r\nHost: relayd\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Site:
    """A server whose one page waits as long as `slow` is not set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.slow = asyncio.Event()
        self.slow.set()
        self._opened: list[asyncio.StreamWriter] = []

    async def page(self, _: web.Request) -> web.Response:
        await self.slow.wait()
        return web.Response(text="here")

    async def connect(self) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._opened.append(writer)
        return reader, writer

    async def ask(self, streams: Streams | None = None) -> bytes:
        """The first line of the answer; empty if the connection was closed."""
        reader, writer = streams or await self.connect()
        with suppress(OSError):
            writer.write(GET)
            async with asyncio.timeout(20):
                line = await reader.readline()
                while line and (await reader.readline()).strip():
                    pass
                await reader.read(len("here"))
                return line.strip()
        return b""

    async def close(self) -> None:
        self.slow.set()
        for writer in self._opened:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(*, max_connections: int = 10, idle_seconds: float = 30.0) -> AsyncIterator[Site]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
    site = Site(listening.getsockname()[1])
    application = web.Application()
    application.router.add_get("/", site.page)
    server = HttpServer(application, shutdown_seconds=1, max_connections=max_connections, idle_seconds=idle_seconds)
    await server.listen(listening)
    try:
        yield site
    finally:
        await site.close()
        await server.close()


async def is_closed(streams: Streams, seconds: float) -> bool:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            return await streams[0].read(1) == b""
        return False
    return streams[0].exception() is not None


@pytest.mark.parametrize("said", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", GET])
async def test_many_that_idle_keep_nobody_out(said: bytes) -> None:
    async with serving() as site:
        idle = [await site.connect() for _ in range(500)]
        for _, writer in idle:
            with suppress(OSError):
                writer.write(said)
        await asyncio.sleep(0.2)
        for _ in range(20):
            assert await site.ask() == b"HTTP/1.1 200 OK"
        closed = [reader.at_eof() or reader.exception() is not None for reader, _ in idle]
        assert closed.count(False) <= 10 or said == GET


async def test_a_header_that_drips_is_cut_off_in_time() -> None:
    async with serving(idle_seconds=1) as site:
        dripping = await site.connect()

        async def drip() -> None:
            with suppress(OSError):
                for octet in GET:
                    dripping[1].write(bytes([octet]))
                    await asyncio.sleep(0.2)

        drops = asyncio.create_task(drip())
        assert await site.ask() == b"HTTP/1.1 200 OK"
        assert await is_closed(dripping, 5)
        drops.cancel()


async def test_a_connection_is_kept_for_the_next_request_and_not_for_ever() -> None:
    async with serving(idle_seconds=1) as site:
        kept = await site.connect()
        for _ in range(3):
            assert await site.ask(kept) == b"HTTP/1.1 200 OK"
            await asyncio.sleep(0.5)
        assert await is_closed(kept, 5)


async def test_an_answer_that_takes_long_is_not_cut_off() -> None:
    async with serving(idle_seconds=0.5) as site:
        site.slow.clear()
        asking = asyncio.create_task(site.ask())
        await asyncio.sleep(1.5)
        site.slow.set()
        assert await asking == b"HTTP/1.1 200 OK"


async def test_where_all_are_busy_one_more_is_refused() -> None:
    async with serving(max_connections=5) as site:
        site.slow.clear()
        busy = [asyncio.create_task(site.ask()) for _ in range(5)]
        await asyncio.sleep(0.3)
        assert await site.ask() == b""
        site.slow.set()
        assert await asyncio.gather(*busy) == [b"HTTP/1.1 200 OK"] * 5
        assert await site.ask() == b"HTTP/1.1 200 OK"


async def test_a_body_that_never_comes_ends_the_request(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "BODY_SECONDS", 0.5)
    reader, writer = await asyncio.open_unix_connection(str(control.socket))
    writer.write(b"POST /v1/clients HTTP/1.1\r\nHost: relayd\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"within 0.5 s")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 422")
