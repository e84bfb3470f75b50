"""A line of JSON messages between the supervisor and one worker, over a socket pair. Its end means the other's end."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Self

# The longest line are the orders: settings, and up to 2.5 MB about failed logins.
_LIMIT = 16 * 1024 * 1024


class Channel:
    """One end of the line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        """Take over one end of a socket pair."""
        reader, writer = await asyncio.open_connection(sock=end, limit=_LIMIT)
        return cls(reader, writer)

    def send(self, kind: str, **values: Any) -> None:
        """Send a message; a peer that is gone is noticed by `messages`."""
        self._writer.write(json.dumps({"kind": kind, **values}).encode() + b"\n")

    async def flush(self) -> None:
        """Wait until what was sent is on its way."""
        with suppress(OSError):
            await self._writer.drain()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """What the other end sends, until it is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except (OSError, ValueError):
                return
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)

    def close(self) -> None:
        """Close this end."""
        self._writer.close()
