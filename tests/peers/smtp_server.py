"""An SMTP server that does as it is told: at each stage it answers, hangs up, falls silent, or worse.

    async with ScriptedServer({Stage.RCPT: ["250 ok", "550 5.1.1 no"]}) as server:
        ...deliver to server.port...
    server.messages[0].content

A script gives a stage one action, or a list used up one command at a time, the last for ever. An action is a reply
("250 ok", lines joined by newlines are sent as they are, CRLF added) or one of the classes below.
"""

import asyncio
import itertools
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from relayd.rules.outcome import Stage


@dataclass(frozen=True)
class Disconnect:
    """Hang up without a word; with `after`, say that first."""

    after: str = ""


@dataclass(frozen=True)
class Hang:
    """Say nothing until the client leaves."""


@dataclass(frozen=True)
class Flood:
    """Send this for ever."""

    line: bytes = b"250-still talking\r\n"


@dataclass(frozen=True)
class Drip:
    """Send this for ever, an octet at a time."""

    line: bytes = b"250-still talking\r\n"
    pause_seconds: float = 0.01


@dataclass(frozen=True)
class HalfBody:
    """After 354, read so many octets of the body, then act."""

    octets: int
    then: "str | Disconnect | Hang"


@dataclass(frozen=True)
class StopReading:
    """After 354, read nothing more."""


# RFC 2195 2: of its example.
CHALLENGE = "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"

Action = str | Disconnect | Hang | Flood | Drip | HalfBody | StopReading


@dataclass
class Received:
    """One message that was answered, or not, after its dot. `content` is as on the wire, before the final dot."""

    reverse_path: bytes
    forward_paths: list[bytes]
    content: bytes
    is_answered: bool = False


@dataclass
class Session:
    """What one connection saw."""

    peer: str
    commands: list[bytes] = field(default_factory=list)
    is_tls: bool = False
    client: Mapping[str, Any] = field(default_factory=dict)  # the certificate that it has shown
    say: Callable[[str], None] = lambda reply: None  # a line that nobody has asked for


class ScriptedServer:
    def __init__(
        self,
        script: Mapping[Stage, Action | Sequence[Action]] | None = None,
        *,
        extensions: Sequence[str] = ("8BITMIME", "SMTPUTF8", "SIZE 100000000", "AUTH PLAIN LOGIN"),
        starttls: ssl.SSLContext | None = None,
        implicit_tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        unix_socket: str | None = None,
        silent_to: Sequence[bytes] = (),
    ) -> None:
        self.script: dict[Stage, list[Action]] = {}
        for stage, action in (script or {}).items():
            self.on(stage, action)
        self.extensions = list(extensions)
        self.sessions: list[Session] = []
        self.messages: list[Received] = []
        self.open_connections = 0
        self.most_connections = 0
        self.port = 0
        self._starttls = starttls
        self._implicit_tls = implicit_tls
        self._host = host
        self._unix_socket = unix_socket
        self._silent_to = frozenset(silent_to)
        self._changed = asyncio.Condition()
        self._handlers: set[asyncio.Task[None]] = set()
        self._conversation: type[Conversation] = Conversation

    def on(self, stage: Stage, action: Action | Sequence[Action]) -> None:
        """From now on do this at `stage`."""
        simple = isinstance(action, str | Disconnect | Hang | Flood | Drip | HalfBody | StopReading)
        self.script[stage] = [action] if simple else list(action)  # type: ignore[list-item,arg-type]

    @property
    def commands(self) -> list[bytes]:
        return [command for session in self.sessions for command in session.commands]

    def count(self, verb: bytes) -> int:
        return sum(command.upper().startswith(verb) for command in self.commands)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` holds; it is looked at after every command, open and close."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)

    async def hang_up(self) -> None:
        """Drop every connection, as a restart would, and wait until they are gone."""
        for task in list(self._handlers):
            task.cancel()
        if self._handlers:
            await asyncio.wait(self._handlers)

    async def __aenter__(self) -> Self:
        if self._unix_socket:
            self._server = await asyncio.start_unix_server(self._on_connect, self._unix_socket)
            return self
        self._server = await asyncio.start_server(self._on_connect, self._host, 0, ssl=self._implicit_tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self.hang_up()
        await self._server.wait_closed()

    def _on_connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = self._unix_socket or writer.get_extra_info("peername")[0]
        session = Session(peer, is_tls=self._implicit_tls is not None)
        session.client = writer.get_extra_info("peercert") or {}
        session.say = lambda reply: writer.write(f"{reply}\r\n".encode())
        self.sessions.append(session)
        self.open_connections += 1
        self.most_connections = max(self.most_connections, self.open_connections)
        await self._tell()
        try:
            await self._conversation(self, session, reader, writer).run()
        except (HungUp, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections -= 1
            writer.transport.abort()
            await asyncio.sleep(0)
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _next_action(self, stage: Stage, default: Action) -> Action:
        actions = self.script.get(stage)
        if not actions:
            return default
        return actions.pop(0) if len(actions) > 1 else actions[0]


class HungUp(Exception):
    pass


class Conversation:
    def __init__(
        self, server: ScriptedServer, session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server, self.session, self.reader, self.writer = server, session, reader, writer
        self.buffer = bytearray()
        self.reverse_path = b""
        self.forward_paths: list[bytes] = []

    async def run(self) -> None:
        await self.act(Stage.CONNECT, "220 scripted ESMTP")
        while (line := await self.read_line()) is not None:
            self.session.commands.append(line)
            await self.server._tell()
            await self.obey(line)

    async def obey(self, line: bytes) -> None:
        verb = line.split(b" ")[0].split(b":")[0].upper()
        if verb in self.server._silent_to:
            await self.perform(Hang())
        match verb:
            case b"EHLO":
                extensions = list(self.server.extensions)
                if self.server._starttls and not self.session.is_tls:
                    extensions.append("STARTTLS")
                lines = ["scripted", *extensions]
                await self.act(Stage.EHLO, "\n".join([f"250-{each}" for each in lines[:-1]] + [f"250 {lines[-1]}"]))
            case b"HELO":
                await self.act(Stage.EHLO, "250 scripted")
            case b"STARTTLS":
                if (await self.act(Stage.STARTTLS, "220 go ahead")).startswith("220"):
                    assert self.server._starttls is not None
                    await self.writer.start_tls(self.server._starttls)
                    self.session.is_tls = True
                    self.session.client = self.writer.get_extra_info("peercert") or {}
            case b"AUTH":
                await self.authenticate(line)
            case b"MAIL":
                self.reverse_path, self.forward_paths = line, []
                await self.act(Stage.MAIL, "250 2.1.0 ok")
            case b"RCPT":
                if (await self.act(Stage.RCPT, "250 2.1.5 ok")).startswith("2"):
                    self.forward_paths.append(line)
            case b"DATA":
                await self.take_data()
            case b"QUIT":
                await self.say("221 2.0.0 bye")
                raise HungUp
            case b"RSET" | b"NOOP":
                await self.say("250 2.0.0 ok")
            case _:
                await self.say("500 5.5.2 what")

    async def authenticate(self, line: bytes) -> None:
        action = self.server._next_action(Stage.AUTH, "235 2.7.0 welcome")
        if line.upper() == b"AUTH LOGIN" and action == "235 2.7.0 welcome":
            for challenge in ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"):
                await self.say(challenge)
                self.session.commands.append(await self.read_line() or b"")
        challenge = {b"AUTH PLAIN": "334 ", b"AUTH CRAM-MD5": f"334 {CHALLENGE}"}.get(line.upper())
        if challenge and action == "235 2.7.0 welcome":
            await self.say(challenge)
            self.session.commands.append(await self.read_line() or b"")
        await self.perform(action)

    async def take_data(self) -> None:
        action = self.server._next_action(Stage.DATA, "354 go ahead")
        if not isinstance(action, HalfBody | StopReading):
            if not (await self.perform(action)).startswith("354"):
                return
        else:
            await self.say("354 go ahead")
        match action:
            case StopReading():
                self.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.Event().wait()
            case HalfBody(octets, then):
                while len(self.buffer) < octets:
                    await self.fill()
                self.buffer.clear()
                await self.perform(then)
        received = Received(self.reverse_path, list(self.forward_paths), await self.read_content())
        self.server.messages.append(received)
        await self.server._tell()
        await self.act(Stage.DOT, "250 2.0.0 Ok: queued as SCRIPT1")
        received.is_answered = True

    async def act(self, stage: Stage, default: str) -> str:
        return await self.perform(self.server._next_action(stage, default))

    async def perform(self, action: Action) -> str:
        """Returns what was said."""
        match action:
            case str():
                await self.say(action)
                return action
            case Disconnect(after):
                if after:
                    await self.say(after)
                raise HungUp
            case Drip(line, pause_seconds):
                for octet in itertools.cycle(line):
                    self.writer.write(bytes([octet]))
                    await self.writer.drain()
                    await asyncio.sleep(pause_seconds)
            case Flood(line):
                while True:
                    self.writer.write(line * 100)
                    await self.writer.drain()
            case _:
                while await self.reader.read(65536):
                    pass
                raise HungUp

    async def say(self, text: str) -> None:
        self.writer.write(text.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"\r\n")
        await self.writer.drain()

    async def read_line(self) -> bytes | None:
        while (end := self.buffer.find(b"\r\n")) < 0:
            await self.fill()
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        return line

    async def read_content(self) -> bytes:
        """Up to the dot that ends it, with its last line end and still dot-stuffed."""
        searched = 0
        while not self.buffer.startswith(b".\r\n"):
            end = self.buffer.find(b"\r\n.\r\n", searched)
            if end >= 0:
                content = bytes(self.buffer[: end + 2])
                del self.buffer[: end + 5]
                return content
            searched = max(0, len(self.buffer) - 4)
            await self.fill()
        del self.buffer[:3]
        return b""

    async def fill(self) -> None:
        data = await self.reader.read(262144)
        if not data:
            raise HungUp
        self.buffer += data


def unstuffed(content: bytes) -> bytes:
    """What a server makes of the wire's bytes, line by line as RFC 5321 4.5.2 says it."""
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in content.split(b"\r\n"))
