"""One SMTP connection to an upstream, on aiosmtplib's protocol. It always knows how far it has come.

aiosmtplib's client class is passed by: it cannot tell a refused DATA from a refused dot or from a body that never
left, and its close() may linger for half a minute on TLS. What remains of it parses replies and does STARTTLS.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Hashable, Iterator, Sequence
from typing import cast

from aiosmtplib import SMTPException, SMTPResponse, SMTPResponseException, SMTPServerDisconnected

from relayd import failpoints
from relayd.errors import RelaydError
from relayd.rules.outcome import Outcome, Stage
from relayd.upstream.certificate import Certificate
from relayd.upstream.redaction import redacted, spellings
from relayd.upstream.replies import ReplyReader
from relayd.upstream.settings import SmarthostSettings, bare_host, is_socket_path
from relayd.upstream.verdict import ProtocolViolation, Rule, judge_exception

BLOCK_OCTETS = 64 * 1024


class NoGreeting(RelaydError):
    """It took the connection and said nothing."""


_log = logging.getLogger(__name__)


class Connection:
    """`stage` says where an error happened; whoever catches one judges it by that.

    Not usable again after any error, a 421, or an abort. `in_transaction`: MAIL was accepted and nothing ended it.
    """

    def __init__(self, settings: SmarthostSettings, secrets: tuple[str, ...] = ()) -> None:
        """`secrets` never leave through a reply's text, should the peer echo them."""
        self.stage = Stage.CONNECT
        self.extensions: dict[str, str] = {}
        self.ehlo_refusal: str | None = None  # its reply, where it knows HELO alone
        self.transactions = 0
        self.in_transaction = False
        self.idle_since = 0.0
        self.identity: Hashable = None  # as whom it was opened, for who keeps several
        self._settings = settings
        self._concealed = secrets
        self._secrets = spellings(secrets)
        self._protocol = ReplyReader()
        self._is_broken = False
        self._writer: asyncio.StreamWriter | None = None

    @property
    def settings(self) -> SmarthostSettings:
        """What it was opened with."""
        return self._settings

    @property
    def rules(self) -> Sequence[Rule]:
        """What this server's replies mean."""
        return self._settings.rules

    @property
    def is_usable(self) -> bool:
        return not self._is_broken and self._protocol.is_connected and not self._protocol.surplus

    @property
    def is_private(self) -> bool:
        """Nobody reads along but who is meant: a Unix socket, or TLS to whom the certificate, or the operator, vouches
        for. Of opportunistic TLS nobody knows who is at its other end."""
        if is_socket_path(self._settings.host):
            return True
        return self.tls_object is not None and self._settings.tls != "opportunistic"

    @property
    def tls_object(self) -> ssl.SSLObject | None:
        """What was agreed on with the peer, None without TLS."""
        transport = self._protocol.transport
        return None if transport is None else cast(ssl.SSLObject | None, transport.get_extra_info("ssl_object"))

    @property
    def peer_certificate(self) -> Certificate | None:
        """Verified or not. Raises ValueError if it cannot be read."""
        der = None if self.tls_object is None else self.tls_object.getpeercert(binary_form=True)
        return None if der is None else Certificate.parse(der)

    async def connect(self, tls: ssl.SSLContext | None, connected: socket.socket) -> None:
        """Speak over a socket that is connected, which is this connection's from then on; with TLS from the first
        octet if a context is given."""
        loop = asyncio.get_running_loop()
        host = bare_host(self._settings.host) if tls else None
        try:
            async with asyncio.timeout(self._settings.timeouts.connect):
                await loop.create_connection(lambda: self._protocol, sock=connected, ssl=tls, server_hostname=host)
        finally:
            if self._protocol.transport is None:
                connected.close()

    async def greeting(self, seconds: float | None = None) -> SMTPResponse:
        """What the upstream says first, within so many seconds, or else the time that it has for that."""
        seconds = seconds or self._settings.timeouts.greeting_seconds
        try:
            return self._read(await self._protocol.read_response(seconds))
        except TimeoutError:
            raise NoGreeting(f"timed out: no greeting within {seconds:g} s") from None

    def conceal(self, secret: str) -> None:
        """This, too, must never leave through a reply's text."""
        self._concealed = (*self._concealed, secret)
        self._secrets = spellings(self._concealed)

    async def start_tls(self, tls: ssl.SSLContext) -> SMTPResponse:
        """Ask for STARTTLS and shake hands. Raises SMTPResponseException if it is refused."""
        self.stage = Stage.STARTTLS
        response = await self._protocol.start_tls(
            tls, bare_host(self._settings.host), timeout=self._settings.timeouts.command
        )
        return self._read(response)

    async def ask(self, stage: Stage, command: bytes, timeout: float | None = None) -> SMTPResponse:
        """Send one command and read its reply, whatever it says."""
        self.stage = stage
        self._protocol.send([command])
        return await self.hear(stage, timeout)

    def say(self, stage: Stage, commands: Sequence[bytes]) -> None:
        """Send several commands in one go (RFC 2920); `hear` reads their replies. `stage` is the first one's."""
        self.stage = stage
        self._protocol.send(commands)

    async def hear(self, stage: Stage, timeout: float | None = None) -> SMTPResponse:
        """The reply to the next command of those that were said."""
        self.stage = stage
        return self._read(await self._protocol.read_response(timeout or self._settings.timeouts.command))

    async def hear_out(self) -> None:
        """Read the replies that are still owed, when what is to be done is settled already. Never raises.

        A peer that waits for a message now is not given one: without a dot there is none (RFC 5321 4.1.1.4).
        """
        try:
            while self._protocol.awaited:
                self._is_broken |= (await self.hear(self.stage)).code == 354
        except Exception as error:
            self.judge(error)

    async def send_content(self, content: bytes) -> SMTPResponse:
        """Send the message after a 354, and the dot; return the reply. Only from the dot on is `stage` DOT.

        A peer that answers before the dot has refused for certain: the dot is not sent, and `stage` stays DATA.
        """
        self._protocol.expect(1)
        has_reply = False
        try:
            if len(content) <= BLOCK_OCTETS:
                await self._send_at_once(content)
            else:
                await self._send_in_blocks(content)
            response = await self._protocol.read_response(self._settings.timeouts.dot)
            has_reply = True
            return self._read(response, is_last=True)
        finally:
            self._is_broken |= self.stage is not Stage.DOT or not has_reply

    async def reset(self) -> None:
        """End a transaction that failed midway. Never raises; look at `is_usable` afterwards."""
        try:
            response = await self.ask(self.stage, b"RSET")
        except Exception as error:
            self.judge(error)
        else:
            self._is_broken |= response.code != 250
        self.in_transaction = False

    async def quit(self) -> None:
        """Take leave politely but briefly, and close. Never raises."""
        try:
            await self.ask(self.stage, b"QUIT", self._settings.timeouts.quit)
        except Exception as error:
            self.judge(error)
        finally:
            self.abort()

    def judge(self, error: Exception) -> Outcome:
        """What an error on this connection means. The connection is not used again."""
        self._is_broken = True
        if not isinstance(error, OSError | SMTPException | RelaydError):
            _log.error("unexpected error at %s", self.stage, exc_info=error)
        if isinstance(error, SMTPResponseException):
            error = SMTPResponseException(error.code, redacted(error.message, self._secrets))
        return judge_exception(self.stage, error, self.rules)

    def abort(self) -> None:
        """Close at once: nothing that is buffered is sent any more, and no farewell is awaited."""
        self._is_broken = True
        if self._protocol.transport is not None:
            cast(asyncio.WriteTransport, self._protocol.transport).abort()

    async def _send_at_once(self, content: bytes) -> None:
        """Body and dot in one packet, unless the peer has spoken."""
        await self._look()
        if self._protocol.has_spoken:
            return
        block = b"".join(stuffed_blocks(content))
        writer = self._flushing_writer()
        failpoints.reach("upstream-dot-before")
        self._protocol.write(block + _end(content))
        # The dot is the last of it: while anything is left here it has not gone, and once nothing is it has.
        is_gone = not writer.transport.get_write_buffer_size()
        if is_gone:
            self.stage = Stage.DOT
        failpoints.reach("upstream-dot-after")
        if not is_gone and await self._flush(writer):
            self.stage = Stage.DOT

    async def _send_in_blocks(self, content: bytes) -> None:
        """Hand the body to the kernel, then the dot; stop early when the peer has spoken."""
        writer = self._flushing_writer()
        for block in stuffed_blocks(content):
            if not self._protocol.has_spoken:
                self._protocol.write(block)
                await self._flush(writer)
        await self._look()
        if not self._protocol.has_spoken:
            self.stage = Stage.DOT
            failpoints.reach("upstream-dot-before")
            self._protocol.write(_end(content))
            failpoints.reach("upstream-dot-after")

    async def _flush(self, writer: asyncio.StreamWriter) -> bool:
        """Wait until the kernel has taken all. False if it never will, and the peer has said why."""
        try:
            async with asyncio.timeout(self._settings.timeouts.data_block):
                await writer.drain()
        except (OSError, SMTPException) as error:
            if isinstance(error, TimeoutError) and not writer.transport.get_write_buffer_size():
                return True  # taken at the last moment
            # A refusal that was read before the connection broke says more than the break does.
            if not self._protocol.has_reply:
                raise
            return False
        return True

    async def _look(self) -> None:
        # Two turns of the loop: a refusal or a hang-up that has arrived is seen before the dot, not after it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _flushing_writer(self) -> asyncio.StreamWriter:
        """A writer whose drain() waits until all is written, so that the dot never queues behind a body."""
        if self._protocol.transport is None:
            raise SMTPServerDisconnected("Connection lost")
        transport = cast(asyncio.WriteTransport, self._protocol.transport)
        if self._writer is None or self._writer.transport is not transport:
            # Not 0: asyncio's TLS transport pauses at `size >= high`, so an empty buffer would pause for ever.
            transport.set_write_buffer_limits(high=1, low=0)
            self._writer = asyncio.StreamWriter(transport, self._protocol, None, asyncio.get_running_loop())
        return self._writer

    def _read(self, response: SMTPResponse, is_last: bool = False) -> SMTPResponse:
        # A surplus 250 could answer for the dot, and a refused message would pass for sent.
        if self._protocol.surplus:
            self._is_broken = True
            if not is_last:
                raise ProtocolViolation(f"more than one reply to a command, the first: {response.code}")
        self._is_broken |= response.code == 421
        return SMTPResponse(response.code, redacted(response.message, self._secrets))


def stuffed_blocks(content: bytes, block_octets: int = BLOCK_OCTETS) -> Iterator[bytes]:
    """`content` in blocks, with a dot put before each dot that begins a line (RFC 5321 4.5.2)."""
    start = 0
    while start < len(content):
        end = start + block_octets
        if content[end - 1 : end] == b"\r":
            end += 1  # CRLF stays whole, so that CRLF-dot is either inside a block or across a clean line end.
        block = content[start:end].replace(b"\r\n.", b"\r\n..")
        if block.startswith(b".") and (start == 0 or content[start - 2 : start] == b"\r\n"):
            block = b"." + block
        yield block
        start = end


def _end(content: bytes) -> bytes:
    return b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
