"""Mail without end for a relayd that may be killed at any moment: who was told what is in the journal.

Nothing is sent twice: where the reply was lost a new message follows, so that a duplicate is always somebody else's.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.crash.journal import Handed, Journal
from tests.crash.loopback import loopback
from tests.crash.message import compose

PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 0.05
_QUEUED_AS = re.compile(r"^250 2\.0\.0 queued as ([^\s,]+)(?:, .*)?$")


class Load:
    """Use as a context manager; it sends in a thread of its own until `stop`, or until `most` were handed in.

    `rate` is messages a second over all connections. `recipient` makes an address of a number; `first` is the first
    number. Connections are used for `per_connection` messages each. It waits out whatever refuses it.
    """

    def __init__(
        self,
        port: int,
        journal: Path,
        *,
        host: str = "127.0.0.1",
        connections: int = 8,
        rate: float | None = None,
        sender: str = "app@example.com",
        recipient: Callable[[int], str] = lambda number: f"m{number}@example.net",
        first: int = 1,
        most: int = 1_000_000,
        per_connection: int = 10,
        octets: int = 600,
    ) -> None:
        self._address = (loopback(host), port)
        self._path = journal
        self._connections = connections
        self._rate = rate
        self._sender = sender
        self._recipient = recipient
        self._numbers = iter(range(first, first + most))
        self._per_connection = per_connection
        self._octets = octets
        self._stopping = threading.Event()
        self.acknowledged = 0
        """Answered 250, and in the journal."""
        self.unanswered = 0
        self.refused = 0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let what is under way be answered, and end."""
        self._stopping.set()
        self._thread.join()

    def wait(self) -> None:
        """Until the last of `most` was handed in."""
        self._thread.join()

    async def _run(self) -> None:
        self._journal = Journal(self._path)
        self._due_at = asyncio.get_running_loop().time()
        self._is_exhausted = False
        try:
            await asyncio.gather(*(self._keep_sending() for _ in range(self._connections)))
        finally:
            self._journal.close()

    async def _keep_sending(self) -> None:
        while not self._stopping.is_set() and not self._is_exhausted:
            try:
                reader, writer = await asyncio.open_connection(*self._address)
            except OSError:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            with contextlib.suppress(OSError, EOFError, TimeoutError, _Refused):
                await self._use(_Client(reader, writer))
            writer.transport.abort()

    async def _use(self, client: "_Client") -> None:
        await client.expect(220)
        await client.ask("EHLO app.example.com", 250)
        for _ in range(self._per_connection):
            await self._turn()
            number = None if self._stopping.is_set() else next(self._numbers, None)
            if number is None:
                self._is_exhausted = True
                return
            if not await self._send(client, number):
                # Whatever it was, it takes a moment to pass.
                await asyncio.sleep(PAUSE_SECONDS)
                return

    async def _turn(self) -> None:
        """Wait until the rate allows one more."""
        if self._rate:
            now = asyncio.get_running_loop().time()
            # What an outage kept back is not made up for: it would come as a flood.
            self._due_at = max(self._due_at + 1 / self._rate, now)
            await asyncio.sleep(self._due_at - now)

    async def _send(self, client: "_Client", number: int) -> bool:
        recipient = self._recipient(number)
        code, queue_id, was_ended = 0, None, False
        try:
            await client.ask(f"MAIL FROM:<{self._sender}>", 250)
            await client.ask(f"RCPT TO:<{recipient}>", 250)
            await client.ask("DATA", 354)
            was_ended = True
            client.write(compose(number, self._sender, recipient, self._octets).replace(b"\r\n.", b"\r\n..") + b".\r\n")
            queued = _QUEUED_AS.match(await client.expect(250))
            code, queue_id = 250, queued[1] if queued else None
        except _Refused as refused:
            code = refused.code
        except (OSError, EOFError, TimeoutError):
            pass
        await self._journal.write(Handed(number, self._sender, recipient, code, queue_id, was_ended))
        self.acknowledged += code == 250
        self.refused += code not in (0, 250)
        self.unanswered += code == 0
        return code == 250


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class _Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def write(self, octets: bytes) -> None:
        self._writer.write(octets)

    async def ask(self, command: str, code: int) -> str:
        self.write(command.encode() + b"\r\n")
        return await self.expect(code)

    async def expect(self, code: int) -> str:
        """The last line of the reply. Raises _Refused for any other, EOFError at the end of the connection."""
        line = b"-" * 4
        while line[3:4] == b"-":
            line = await asyncio.wait_for(self._reader.readuntil(b"\r\n"), PATIENCE_SECONDS)
        if int(line[:3]) != code:
            raise _Refused(int(line[:3]))
        return line.decode().rstrip()
