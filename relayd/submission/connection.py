"""One connection: admitted, read line by line, turned to TLS, closed. `session.Session` adds the verbs.

aiosmtpd's class, with its costly and trusting parts replaced: the set-up for each connection and the read loop. Its
event handlers, timers and log are not used. A connection that breaks never cancels anything: the session finds out
when it next needs input, so a message whose last dot has come is accepted all the same.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, cast

from aiosmtpd.smtp import SMTP

from relayd.errors import StoreUnavailable
from relayd.mail.reply import Reply
from relayd.rules.outcome import Stage
from relayd.rules.session_events import (
    Cap,
    Ending,
    Reason,
    Refused,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TlsFailed,
)
from relayd.submission import replies
from relayd.submission.door import Identity
from relayd.submission.service import Service, peer_address
from relayd.submission.stream import BadLine, SessionOver, Stream, TooLate
from relayd.submission.transaction import Transaction

logger = logging.getLogger(__name__)

IDLE = TooLate(Ending.IDLE, replies.IDLE)
SESSION_TOO_LONG = TooLate(Ending.SESSION_TOO_LONG, replies.SESSION_TOO_LONG)

# A browser led here by a web page: not one of its lines may be taken for a command.
_NOT_SMTP = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_COUNTED_AS_ERRORS = frozenset({Reason.BAD_SYNTAX, Reason.BAD_PARAMETER, Reason.UNKNOWN_COMMAND, Reason.LINE_TOO_LONG})
_UNPRINTABLE = re.compile(r"[^ -~]")
_STAGES = {
    "STARTTLS": Stage.STARTTLS,
    "AUTH": Stage.AUTH,
    "MAIL": Stage.MAIL,
    "RCPT": Stage.RCPT,
    "DATA": Stage.DATA,
}


class Connection(SMTP):
    """The protocol of one connection, and the task that serves it."""

    verbs: ClassVar[dict[str, Callable[[Any, str], Awaitable[None]]]] = {}
    transport: asyncio.Transport | None

    def __init_subclass__(cls) -> None:
        # aiosmtpd makes such a table for each connection, by inspecting every member: a fifth of a session's time.
        cls.verbs = {name.removeprefix("smtp_"): getattr(cls, name) for name in dir(cls) if name.startswith("smtp_")}

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.StreamReaderProtocol.__init__(self, None, loop=loop)  # type: ignore[arg-type]
        self.loop = loop
        self.transport = None
        self.service = service
        self.limits = service.limits
        self.stream = Stream(loop, self._drain_helper)  # type: ignore[attr-defined]
        self.peer = "unknown"
        self.tls: str | None = None
        self.identity: Identity | None = None
        self.transaction: Transaction | None = None
        self.commands = 0
        self._errors = 0
        self._is_admitted = False
        self._is_tls_begun = False
        self._began_at = loop.time()
        self._lost: asyncio.Future[None] = loop.create_future()
        self._handler_coroutine = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection or turn it away."""
        self.transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        cap = self.admit(transport.get_extra_info("peername"))
        if cap is not None:
            reply = replies.SHUTTING_DOWN if cap is Cap.DRAINING else replies.TOO_MANY_CONNECTIONS
            transport.write(f"{reply}\r\n".encode())
            transport.close()
            return
        self.stream.attach(transport)
        self._note_tls()
        self._handler_coroutine = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        """Feed the session."""
        self.stream.feed(data)

    def eof_received(self) -> bool:
        """Keep a half-closed connection: the client may be waiting for its replies. TLS has no such state."""
        self.stream.end()
        return not self._is_tls_begun

    def connection_lost(self, error: Exception | None) -> None:
        """Let the session find out when it next needs input."""
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.stream.end()
        if not self._lost.done():
            self._lost.set_result(None)

    # What the listener calls.

    def admit(self, peername: object) -> Cap | None:
        """None if there is a place for this peer, else the cap that is reached. Counts a connection once."""
        if self._is_admitted:
            return None
        self.peer = peer_address(peername)
        cap = self.service.admit(self, self.peer)
        self._is_admitted = cap is None
        self.service.emit(SessionOpened(self.peer) if cap is None else SessionRefused(self.peer, cap))
        return cap

    def leave(self, ending: Ending) -> None:
        """Give the place back: the session is over, or never came to be."""
        self.service.release(self, self.peer)
        self.service.emit(SessionClosed(self.peer, ending, self.loop.time() - self._began_at))

    @property
    def is_served(self) -> bool:
        """Whether the session's own task will leave."""
        return self._handler_coroutine is not None

    def begin_drain(self) -> None:
        """Say goodbye at the next moment at which no message is under way."""
        if self.transaction is None:
            self.stream.interrupt(SessionOver(Ending.DRAINED, replies.SHUTTING_DOWN))

    def end(self) -> None:
        """Say goodbye even in the middle of a message, unless it is being accepted."""
        self.stream.interrupt(SessionOver(Ending.DRAINED, replies.SHUTTING_DOWN))

    def abort(self) -> None:
        """Drop the connection; a message that is being accepted still settles."""
        if self.transport is not None:
            self.transport.abort()

    # The life of a session.

    async def _handle_client(self) -> None:
        ending = Ending.BROKEN
        try:
            over = await self._converse()
            ending = over.ending
            await self._close(over)
        finally:
            self.abort()
            self.stream.close()
            self.leave(ending)

    async def _converse(self) -> SessionOver:
        try:
            await self.stream.say(f"220 {self.service.hostname} ESMTP relayd")
            while True:
                if self.service.is_draining and self.transaction is None:
                    return SessionOver(Ending.DRAINED, replies.SHUTTING_DOWN)
                try:
                    line = await self.read_line()
                    await self._obey(line)
                except BadLine as bad:
                    await self._refuse_line(bad.reason)
        except SessionOver as over:
            return over
        except Exception:
            logger.exception("a session broke")
            return SessionOver(Ending.BROKEN, replies.BROKEN)

    async def read_line(self) -> bytes:
        """The next line. Raises BadLine, SessionOver."""
        now = self.loop.time()
        idle_ends_at = now + self.limits.idle_seconds
        session_ends_at = self._began_at + self.limits.session_seconds
        if idle_ends_at < session_ends_at:
            deadline, too_late = idle_ends_at, IDLE
        else:
            deadline, too_late = session_ends_at, SESSION_TOO_LONG
        if deadline <= now and self.transaction is None:
            raise too_late.over()  # a client that never stops talking never waits
        return await self.stream.line(self.limits.max_command_octets, deadline, too_late)

    async def _obey(self, line: bytes) -> None:
        try:
            word, _, argument = line.decode().partition(" ")
        except UnicodeDecodeError:
            await self.refuse(Stage.EHLO, replies.NOT_UTF8, Reason.BAD_SYNTAX)
            return
        verb = word.upper()
        method = self.verbs.get(verb)
        if method is None:
            if verb in _NOT_SMTP:
                raise SessionOver(Ending.NOT_SMTP, replies.NOT_SMTP)
            # Not what the client sent: after a refused AUTH that may well be its secret.
            await self.refuse(Stage.EHLO, replies.NOT_RECOGNIZED, Reason.UNKNOWN_COMMAND)
            return
        if verb not in {"RCPT", "DATA", "QUIT"}:
            self.commands += 1
            if self.commands > self.limits.max_commands:
                raise SessionOver(Ending.TOO_MANY_COMMANDS, replies.TOO_MANY_COMMANDS)
        try:
            await method(self, argument.strip(" \t"))
        except (SessionOver, BadLine):
            raise
        except StoreUnavailable:
            await self.refuse(_STAGES.get(verb, Stage.EHLO), replies.TRY_LATER, Reason.UNAVAILABLE)
        except Exception:
            logger.exception("%s failed; the client was told to try again later", verb)
            self.transaction = None
            await self.refuse(_STAGES.get(verb, Stage.EHLO), replies.TRY_LATER, Reason.UNAVAILABLE)

    async def _refuse_line(self, reason: Reason) -> None:
        reply = replies.bad_line(reason)
        if reason is Reason.LINE_TOO_LONG:
            await self.refuse(Stage.EHLO, reply, reason)
            return
        # What follows may be another program's idea of where a line ends: do not read on.
        self.report(Stage.EHLO, reply, reason)
        raise SessionOver(Ending.BARE_NEWLINE, reply)

    async def secure(self) -> None:
        """Turn the connection to TLS and forget all that was said before (RFC 3207 4.2)."""
        assert self.transport is not None and self.service.tls_context is not None
        self._is_tls_begun = True
        # No byte can come in between: the first step of start_tls takes the transport away from us. And what comes
        # before start_tls returns is the client's first command within TLS.
        self.stream.detach()
        try:
            transport = await self.loop.start_tls(
                self.transport,
                self,
                self.service.tls_context,
                server_side=True,
                ssl_handshake_timeout=self.limits.tls_handshake_seconds,
                ssl_shutdown_timeout=self.limits.linger_seconds,
            )
        except OSError as error:
            self.service.emit(tls_failed(self.peer, error))
            raise SessionOver(Ending.TLS_FAILED) from error
        if transport is None:  # the peer left in the last step of the handshake
            raise SessionOver(Ending.DISCONNECTED)
        self.transport = transport
        self.stream.attach(transport)
        self._note_tls()
        self.identity = None
        self.transaction = None

    def _note_tls(self) -> None:
        assert self.transport is not None
        channel: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        if channel is not None:
            cipher = channel.cipher()
            self.tls = f"{channel.version()} {cipher[0] if cipher else 'NULL'}"
            self._is_tls_begun = True

    async def _close(self, over: SessionOver) -> None:
        """Send what is left to say, and wait a little for the peer to take it."""
        assert self.transport is not None
        if over.ending is Ending.TLS_FAILED:
            return
        if over.reply is not None:
            await self.say(over.reply)
        await self.stream.flush()
        self.transport.close()
        giving_up = self.loop.call_later(self.limits.linger_seconds, self._give_up)
        await self._lost
        giving_up.cancel()

    def _give_up(self) -> None:
        self.abort()
        if not self._lost.done():
            self._lost.set_result(None)

    # Replies.

    async def say(self, reply: Reply) -> None:
        """Reply, soon."""
        await self.stream.say(str(reply))

    async def refuse(self, stage: Stage, reply: Reply, reason: Reason, detail: str = "") -> None:
        """Report a refusal and reply with it; the session ends when there were too many mistakes."""
        self.report(stage, reply, reason, detail)
        await self.say(reply)
        if reason not in _COUNTED_AS_ERRORS:
            return
        self._errors += 1
        if self._errors >= self.limits.max_bad_commands:
            raise SessionOver(Ending.TOO_MANY_ERRORS, replies.TOO_MANY_ERRORS)

    def report(self, stage: Stage, reply: Reply, reason: Reason, detail: str = "") -> None:
        """Tell metrics and the log of a refusal. `detail` must hold no secret."""
        client, login = (self.identity.client.name, self.identity.login) if self.identity else (None, None)
        detail = printable(detail or reply.text)
        self.service.emit(Refused(self.peer, client, login, stage, reply.code, reply.enhanced, reason, detail))


def tls_failed(peer: str, error: OSError) -> TlsFailed:
    """A handshake's failure as an event."""
    return TlsFailed(peer, printable(str(error) or type(error).__name__))


def printable(text: str) -> str:
    """A peer's text, fit for a log line."""
    return _UNPRINTABLE.sub("?", text[:200])
