"""Hosts with several addresses, without the system's resolver; addresses that do not answer, or answer late."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from tests.peers.smtp_server import ScriptedServer


class Hosts:
    """Names that getaddrinfo knows besides its own, each with its addresses in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: dict[str, list[tuple[str, int]]] = {}
        others = asyncio.BaseEventLoop.getaddrinfo

        async def getaddrinfo(loop: Any, host: str, port: int | None, **options: Any) -> Any:
            if host not in self.known:
                return await others(loop, host, port, **options)
            return [
                (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, at))
                for address, at in self.known[host]
            ]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)

    def publish(self, name: str, *addresses: tuple[str, int]) -> None:
        """A real name has one port; here each address may have its own."""
        self.known[name] = list(addresses)


@contextmanager
def silent_address(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """An address that answers no SYN: it listens, and its queue is full."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(0)
        place: tuple[str, int] = listening.getsockname()
        held = []
        try:
            for _ in range(2):
                filling = socket.socket()
                held.append(filling)
                filling.setblocking(False)
                filling.connect_ex(place)
            yield place
        finally:
            for each in held:
                each.close()


def closed_address(host: str = "127.0.0.1") -> tuple[str, int]:
    """An address that refuses."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        place: tuple[str, int] = probe.getsockname()
        return place


def place(server: ScriptedServer, host: str = "127.0.0.1") -> tuple[str, int]:
    """Where it listens, for `publish`."""
    return host, server.port


@asynccontextmanager
async def late_server(*pauses: float) -> AsyncIterator[tuple[str, int]]:
    """Says nothing for so long to its first connection, its second, …; takes whatever comes then."""
    left = list(pauses)
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await asyncio.sleep(left.pop(0))
            writer.write(b"220 late\r\n")
            while line := await reader.readline():
                writer.write(b"354 go\r\n" if line == b"DATA\r\n" else b"250 ok\r\n")
                if line == b"DATA\r\n":
                    await reader.readuntil(b"\r\n.\r\n")
                    writer.write(b"250 ok\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "127.0.0.1", server.sockets[0].getsockname()[1]
        assert left == []
    finally:
        server.close()
        for each in serving:
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)
