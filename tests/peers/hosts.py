"""Hosts with several addresses, without touching the system's resolver, and addresses that do not answer."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


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
