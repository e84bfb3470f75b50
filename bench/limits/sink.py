"""A sink that notes when each recipient's message was there: `python -m bench.limits.sink ADDRESS PORT SECONDS FILE`.

It takes SECONDS to answer a message's final dot, as a slow upstream does. Lines of FILE: monotonic time, recipient.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from bench.loopback import loopback

_FLUSH_SECONDS = 0.2
_REPLIES = {
    b"EHLO": b"250-sink.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 52428800\r\n",
    b"DATA": b"354 Go on\r\n",
    b"QUIT": b"221 Bye\r\n",
}


class _Session(asyncio.Protocol):
    """Takes what it is given; the dot's line is noted as it arrives, not as it is answered."""

    def __init__(self, notes: TextIO, delay_seconds: float) -> None:
        self._notes = notes
        self._delay_seconds = delay_seconds
        self._buffer = b""
        self._recipients: list[str] = []
        self._is_in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 sink.example.net ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._data() if self._is_in_data else self._command():
            pass

    def _data(self) -> bool:
        # A message never begins with its dot here: every one has a header.
        end = self._buffer.find(b"\r\n.\r\n")
        if end < 0:
            return False
        self._buffer = self._buffer[end + 5 :]
        now = time.monotonic()
        for recipient in self._recipients:
            self._notes.write(f"{now:.6f} {recipient}\n")
        self._recipients = []
        self._is_in_data = False
        if self._delay_seconds:
            asyncio.get_running_loop().call_later(self._delay_seconds, self._transport.write, b"250 Ok\r\n")
        else:
            self._transport.write(b"250 Ok\r\n")
        return True

    def _command(self) -> bool:
        line, ended, rest = self._buffer.partition(b"\r\n")
        if not ended:
            return False
        self._buffer = rest
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._recipients.append(line[line.index(b"<") + 1 : line.index(b">")].decode())
        elif verb == b"DATA":
            self._is_in_data = True
        elif verb == b"RSET":
            self._recipients = []
        self._transport.write(_REPLIES.get(verb, b"250 Ok\r\n"))
        if verb == b"QUIT":
            self._transport.close()
        return True


def read_notes(file: Path) -> Iterator[tuple[str, float]]:
    """Recipient and arrival of all that has been noted; a line that is not whole yet is left out."""
    whole, _, _ = file.read_text("utf-8").rpartition("\n")
    for line in whole.splitlines():
        at, _, recipient = line.partition(" ")
        yield recipient, float(at)


async def _serve(address: str, port: int, delay_seconds: float, file: Path) -> None:
    with file.open("a", encoding="utf-8") as notes:
        await asyncio.get_running_loop().create_server(lambda: _Session(notes, delay_seconds), address, port)
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            notes.flush()


if __name__ == "__main__":
    asyncio.run(_serve(loopback(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])))
