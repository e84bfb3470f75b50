"""One connection: admitted, served, turned to TLS, closed. `conversation.Conversation` is what is said on it.

aiosmtpd's class, with its costly and trusting parts replaced: the set-up for each connection and the read loop. Its
event handlers, timers and log are not used. A connection that breaks never cancels anything: the session finds out
when it next needs input, so a message whose last dot has come is accepted all the same.
"""

import asyncio
import re
import ssl
from contextlib import suppress
from typing import cast

from aiosmtpd.smtp import SMTP

from relayd.mail.reply import Reply
from relayd.rules.session_events import (
    Cap,
    Ending,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TlsFailed,
)
from relayd.submission import replies
from relayd.submission.door import Identity
from relayd.submission.service import Service, peer_address
from relayd.submission.stream import SessionOver, Stream
from relayd.submission.transaction import Transaction

_UNPRINTABLE = re.compile(r"[^ -~]")


class Connection(SMTP):
    """The protocol of one connection, and the task that serves it."""

    transport: asyncio.Transport | None

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.StreamReaderProtocol.__init__(self, None, loop=loop)  # type: ignore[arg-type]
        self.loop = loop
        self.transport = None
        self.service = service
        self.limits = service.limits
        self.stream = Stream(loop, self._drain_helper)  # type: ignore[attr-defined]
        self.peer = "unknown"
        self.tls: str | None = None
        self.speaks_utf8 = False  # the latest MAIL said SMTPUTF8: replies may name non-ASCII addresses
        self.identity: Identity | None = None
        self.transaction: Transaction | None = None
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
        self.service.release(self)
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
            # Python 3.11.2, Debian's, forgets what is behind TLS at a second close(): there is nothing left to drop.
            with suppress(AttributeError):
                self.transport.abort()

    # The life of a session.

    async def _handle_client(self) -> None:
        ending = Ending.BROKEN
        try:
            over = await self.converse()
            ending = over.ending
            await self._close(over)
        finally:
            self.abort()
            self.stream.close()
            self.leave(ending)

    async def converse(self) -> SessionOver:
        """What is said until the session is over; how it ended."""
        raise NotImplementedError

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
        await self.stream.say(reply.line(utf8=self.speaks_utf8))


def tls_failed(peer: str, error: OSError) -> TlsFailed:
    """A handshake's failure as an event."""
    return TlsFailed(peer, printable(str(error) or type(error).__name__))


def printable(text: str) -> str:
    """A peer's text, fit for a log line."""
    return _UNPRINTABLE.sub("?", text[:200])
