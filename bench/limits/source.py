"""Messages through real SMTP at a steady rate, from many mailboxes of several clients; each one's 250 is noted.

One connection a client, kept: the rate is modest, and what is measured begins with the 250.
"""

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.errors import BenchError
from bench.loopback import loopback
from bench.message import make_message


@dataclass(frozen=True, slots=True)
class Sent:
    """By recipient, each of its own: when it was due, and when its 250 was read, on the monotonic clock."""

    due_at: dict[str, float] = field(default_factory=dict)
    replied_at: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Line:
    """A client's connection. Talks of one message at a time."""

    address: str
    port: int
    login: str
    secret: str
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, sender: str, recipient: str, content: bytes) -> float:
        """When the 250 was read. Raises BenchError for a refusal."""
        async with self._lock:
            if self._streams is None:
                await self._connect()
            await self._say(f"MAIL FROM:<{sender}>".encode(), b"250")
            await self._say(f"RCPT TO:<{recipient}>".encode(), b"250")
            await self._say(b"DATA", b"354")
            await self._say(content + b"\r\n.", b"250")
            return time.monotonic()

    def close(self) -> None:
        """Drop the connection."""
        if self._streams:
            self._streams[1].close()
            self._streams = None

    async def _connect(self) -> None:
        self._streams = await asyncio.open_connection(loopback(self.address), self.port)
        await self._hear(b"220")
        await self._say(b"EHLO app.example.com", b"250")
        identity = base64.b64encode(f"\0{self.login}\0{self.secret}".encode())
        await self._say(b"AUTH PLAIN " + identity, b"235")

    async def _say(self, line: bytes, code: bytes) -> None:
        assert self._streams
        self._streams[1].write(line + b"\r\n")
        await self._hear(code)

    async def _hear(self, code: bytes) -> None:
        assert self._streams
        while (line := await self._streams[0].readline())[3:4] == b"-":
            pass
        if not line.startswith(code):
            raise BenchError(f"wanted {code.decode()}, got {line.decode(errors='replace').strip() or 'nothing'}")


async def send_steadily(
    lines: Mapping[str, Line],
    senders: Sequence[tuple[str, str]],
    *,
    rate: float,
    seconds: float,
    octets: int,
    name: str,
) -> Sent:
    """`rate` messages a second, over the senders (address, client) in turn. Raises BenchError at the first refusal.

    Recipients are `name` and a number, so that runs can be told apart.
    """
    sent = Sent()
    contents = {address: _content(address, octets) for address, _ in senders}
    began = time.monotonic()

    async def send(number: int) -> None:
        address, client = senders[number % len(senders)]
        recipient = f"{name}-{number}@example.net"
        sent.due_at[recipient] = began + number / rate
        sent.replied_at[recipient] = await lines[client].send(address, recipient, contents[address])

    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(send(number))
    return sent


def _content(sender: str, octets: int) -> bytes:
    return make_message(sender, octets).rstrip(b"\n").replace(b"\n", b"\r\n")
