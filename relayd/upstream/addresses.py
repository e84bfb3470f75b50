"""The addresses of a server, and a TCP connection to the first of them that answers (RFC 5321 5.1, RFC 8305)."""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Any

from relayd.upstream.settings import bare_host, is_socket_path
from relayd.upstream.verdict import Unfit

# RFC 8305 5: how long one address may be silent before the next is tried beside it.
NEXT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class HostAddress:
    """What connect() takes. Its text is the address, or the path of a Unix socket."""

    family: int
    sockaddr: Any

    def __str__(self) -> str:
        return self.sockaddr if isinstance(self.sockaddr, str) else str(self.sockaddr[0])

    @property
    def with_port(self) -> str:
        """For people."""
        return str(self) if isinstance(self.sockaddr, str) else f"{self} port {self.sockaddr[1]}"


async def find(
    host: str, port: int | None, *, source_address: str | None = None, seconds: float | None = None
) -> list[HostAddress]:
    """The addresses of a host in the order in which to try them: the system's, IPv6 and IPv4 by turns (RFC 8305 4).

    With a source address only those of its family. Raises OSError, which gaierror is, and Unfit.
    """
    if is_socket_path(host):
        return [HostAddress(socket.AF_UNIX, host)]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(bare_host(host), port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise Unfit(f"host name cannot be resolved: no answer within {seconds:g} s") from None
    except UnicodeError:
        raise Unfit(f"host name cannot be resolved: {host} is no name that DNS can have") from None
    addresses = list(dict.fromkeys(HostAddress(family, sockaddr) for family, _, _, _, sockaddr in found))
    if source_address is not None:
        version = ip_address(bare_host(source_address)).version
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        addresses = [each for each in addresses if each.family == family]
        if not addresses:
            raise Unfit(f"the source address is IPv{version}, and {host} has no IPv{version} address")
    return _by_turns(addresses)


async def connect_first(
    addresses: Iterable[HostAddress],
    *,
    source_address: str | None,
    seconds: float,
    failed: Callable[[HostAddress, Exception], None],
) -> tuple[HostAddress, socket.socket] | None:
    """A connection to the first address that answers, None if none does. `failed` is told of each that fails.

    The next address is tried as soon as one fails, and beside one that is silent. Each has so many seconds.
    """
    waiting, trying = deque(addresses), dict[asyncio.Task[socket.socket], HostAddress]()
    try:
        while waiting or trying:
            if waiting:
                address = waiting.popleft()
                trying[asyncio.create_task(connect(address, source_address=source_address, seconds=seconds))] = address
            patience = NEXT_SECONDS if waiting else None
            done, _ = await asyncio.wait(trying, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=list(trying).index):
                error = task.exception()
                if error is None:
                    return trying.pop(task), task.result()
                address = trying.pop(task)
                if not isinstance(error, OSError):
                    raise error
                failed(address, error)
        return None
    finally:
        for task in trying:
            task.cancel()
            task.add_done_callback(_close)


async def connect(address: HostAddress, *, source_address: str | None, seconds: float) -> socket.socket:
    """A connection to this address. Raises OSError, which says what the system said."""
    connected = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        if source_address is not None and address.family != socket.AF_UNIX:
            connected.bind((bare_host(source_address), 0))
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(connected, address.sockaddr)
    except BaseException as error:
        connected.close()
        if isinstance(error, OSError) and error.errno is not None:
            # asyncio's own text would name the address again.
            raise type(error)(error.errno, os.strerror(error.errno)) from None
        raise
    return connected


def _by_turns(addresses: list[HostAddress]) -> list[HostAddress]:
    """Beginning with the family that the system puts first."""
    if not addresses:
        return []
    first = [each for each in addresses if each.family == addresses[0].family]
    others = [each for each in addresses if each.family != addresses[0].family]
    return [each for each in chain.from_iterable(zip_longest(first, others)) if each is not None]


def _close(task: asyncio.Task[socket.socket]) -> None:
    """One that connected as it was given up."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
