"""What the harness asks of this machine: which processes live, which ports are free, and to wait for something."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.e2e.house import is_alive


def alive_among(pids: Iterable[int]) -> set[int]:
    """Those of them that still run."""
    return {pid for pid in pids if is_alive(pid)}


def steady_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that no connection gets by itself: one that knocks while nobody listens would take its own
    door for its own end, and the door would be gone."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(lowest // 2, lowest)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


class Loop:
    """An event loop that runs only while something is done: so that plain code may keep connections."""

    def __enter__(self) -> Self:
        # Not asyncio.run's: that would take away the loop that pytest-asyncio has set.
        self._loop = asyncio.new_event_loop()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()

    def do(self, work: Awaitable[Any]) -> Any:
        """Its result."""
        return self._loop.run_until_complete(work)

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Begun, and going on whenever something else is done."""
        return self._loop.create_task(work)
