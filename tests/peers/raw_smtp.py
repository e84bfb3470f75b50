"""A raw SMTP client and a listener with a recording door, for tests that speak bytes."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from relayd.errors import StoreUnavailable
from relayd.intake.reports import ReportDoor
from relayd.mail.address import Address
from relayd.mail.reply import Reply
from relayd.rules.events import Event
from relayd.submission.door import Client, Identity, Submission
from relayd.submission.limits import SessionLimits
from relayd.submission.listener import Listener, ListeningSocket, Mode

TENANT = Client(UUID(int=1), "acme", may_send_bounces=True)
NETWORK = Identity(TENANT, None, None, None)
APP = Identity(TENANT, UUID(int=2), "app", ("example.com",))
PATIENCE_SECONDS = 20.0
E = TypeVar("E")


@dataclass
class RecordingDoor:
    """Takes every message; a test may hold it back, make it refuse, or break it."""

    submissions: list[Submission] = field(default_factory=list)
    error: Exception | None = None
    mail_error: Exception | None = None
    refusal: Reply | None = None
    final: Reply | None = None
    suppressed: dict[Address, Reply] = field(default_factory=dict)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.opened.set()

    async def check_reverse_path(self, identity: Identity, reverse_path: Address | None) -> Reply | None:
        if self.mail_error is not None:
            raise self.mail_error
        return self.refusal

    async def check_recipient(self, identity: Identity, forward_path: Address) -> Reply | None:
        return self.suppressed.get(forward_path)

    async def accept(self, submission: Submission) -> Reply:
        self.entered.set()
        await self.opened.wait()
        if self.error is not None:
            raise self.error
        self.submissions.append(submission)
        self.settled.set()
        return self.final or Reply(250, "2.0.0", f"queued as {len(self.submissions)}")


@dataclass
class TableVerifier:
    """One login, and whether loopback is a trusted network."""

    trusted: bool = True
    is_down: bool = False
    is_withdrawn: bool = False

    async def authenticate(self, login: str, secret: str) -> Identity | None:
        if self.is_down:
            raise StoreUnavailable("postgres://relayd:hunter2@db")
        return APP if (login, secret) == ("app", "sesame") and not self.is_withdrawn else None

    async def confirm(self, identity: Identity) -> Identity | None:
        return None if self.is_withdrawn else identity

    async def knows(self, login: str) -> bool:
        return login == "app"

    async def network_identity(self, peer_address: str) -> Identity | None:
        if self.is_down:
            raise StoreUnavailable("postgres://relayd:hunter2@db")
        return NETWORK if self.trusted and peer_address in {"127.0.0.1", "::1"} else None


class RawClient:
    """Sends octets as they are given, reads whole replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def reply(self) -> str:
        """One reply; its lines end in LF. Empty at the end of the connection."""
        lines = []
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), PATIENCE_SECONDS)).decode()
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    async def replies(self, count: int) -> list[str]:
        return [await self.reply() for _ in range(count)]

    async def ask(self, line: str) -> str:
        self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def codes(self, *lines: str) -> list[int]:
        return [int((await self.ask(line))[:3]) for line in lines]

    async def is_closed(self) -> bool:
        """Wait for the server to close."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(1), PATIENCE_SECONDS) == b""
        return True

    async def start_tls(self, context: ssl.SSLContext) -> None:
        await self.writer.start_tls(context, server_hostname="localhost")

    async def begin_message(self) -> None:
        """Up to and with the 354."""
        await self.ask("EHLO app.example")
        assert await self.codes("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA") == [250, 250, 354]

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@dataclass
class Server:
    """A listener on loopback and all that a test may look at."""

    listener: Listener
    port: int
    door: RecordingDoor
    verifier: TableVerifier
    events: list[Event]
    clients: list[RawClient] = field(default_factory=list)

    async def connect(self, tls: ssl.SSLContext | None = None, *, greeted: bool = True) -> RawClient:
        hostname = "localhost" if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=hostname)
        client = RawClient(reader, writer)
        self.clients.append(client)
        if greeted:
            assert await client.reply() == "220 mail.test ESMTP relayd"
        return client

    def seen(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0.005)


def listening_socket() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


@contextlib.asynccontextmanager
async def serving(
    *,
    limits: SessionLimits | None = None,
    mode: Mode = Mode.STARTTLS,
    tls_context: ssl.SSLContext | None = None,
    allow_plaintext_auth: bool = False,
    trusted: bool = True,
    reports: ReportDoor | None = None,
) -> AsyncIterator[Server]:
    """A server for one test; at the end it is drained and nothing may be left."""
    listening = listening_socket()
    events: list[Event] = []
    door, verifier = RecordingDoor(), TableVerifier(trusted=trusted)
    listener = Listener(
        sockets=[ListeningSocket(listening, mode)],
        door=door,
        verifier=verifier,
        emit=events.append,
        limits=limits or SessionLimits(auth_failure_delay_seconds=0, linger_seconds=1),
        tls_context=tls_context,
        hostname="mail.test",
        allow_plaintext_auth=allow_plaintext_auth,
        reports=reports,
    )
    port = listening.getsockname()[1]
    await listener.start()
    server = Server(listener, port, door, verifier, events)
    try:
        yield server
    finally:
        for client in server.clients:
            await client.close()
        await listener.drain(PATIENCE_SECONDS)
        assert listener.connections == 0 and listener.accepting == 0
