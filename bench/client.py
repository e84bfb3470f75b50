"""An SMTP client for what smtp-source cannot do: STARTTLS, AUTH, and the time of each reply. No pipelining, as it."""

import asyncio
import base64
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.errors import BenchError
from bench.loopback import loopback

_EHLO = b"EHLO app.example.com\r\n"


@dataclass(frozen=True, slots=True)
class Account:
    """What a client needs to log in: under TLS, which it begins by STARTTLS."""

    login: str
    secret: str
    certificate: Path

    def context(self) -> ssl.SSLContext:
        """TLS that trusts this certificate alone."""
        return ssl.create_default_context(cafile=str(self.certificate))


class Session:
    """One connection. Any reply but the expected one is a BenchError: in a measurement nothing is refused."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, address: str, port: int, account: Account | None, context: ssl.SSLContext | None) -> Self:
        """Connected, greeted and, with an account, logged in."""
        session = cls(*await asyncio.open_connection(loopback(address), port))
        await session._expect(220)
        await session._say(_EHLO, 250)
        if account and context:
            await session._say(b"STARTTLS\r\n", 220)
            await session._writer.start_tls(context, server_hostname=address)
            await session._say(_EHLO, 250)
            plain = base64.b64encode(f"\0{account.login}\0{account.secret}".encode())
            await session._say(b"AUTH PLAIN " + plain + b"\r\n", 235)
        return session

    async def send(self, sender: str, recipient: str, content: bytes) -> float:
        """Hand over one message, which ends with its dot. The seconds from writing it until its 250 was read."""
        await self._say(f"MAIL FROM:<{sender}>\r\n".encode(), 250)
        await self._say(f"RCPT TO:<{recipient}>\r\n".encode(), 250)
        await self._say(b"DATA\r\n", 354)
        began = time.monotonic()
        await self._say(content, 250)
        return time.monotonic() - began

    async def quit(self) -> None:
        await self._say(b"QUIT\r\n", 221)
        self._writer.close()

    async def _say(self, octets: bytes, expected: int) -> None:
        self._writer.write(octets)
        await self._writer.drain()
        await self._expect(expected)

    async def _expect(self, code: int) -> None:
        while True:
            line = await self._reader.readline()
            if not line.startswith(str(code).encode()):
                raise BenchError(f"wanted {code}, got {line.decode(errors='replace').strip() or 'end of connection'}")
            if line[3:4] != b"-":
                return
