"""One SMTP connection to an upstream, on aiosmtplib's protocol. It always knows how far it has come.

aiosmtplib's client class is passed by: it cannot tell a refused DATA from a refused dot or from a body that never
left, and its close() may linger for half a minute on TLS. What remains of it reads replies and does STARTTLS.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterator
from typing import cast

from aiosmtplib import SMTPException, SMTPResponse, SMTPResponseException, SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol

from relayd import failpoints
from relayd.errors import RelaydError
from relayd.rules.outcome import Outcome, Stage
from relayd.upstream.settings import SmarthostSettings
from relayd.upstream.verdict import ProtocolViolation, judge_exception

BLOCK_OCTETS = 64 * 1024

_log = logging.getLogger(__name__)


class Connection:
    """`stage` says where an error happened; whoever catches one judges it by that.

    Not usable again after any error, a 421, or an abort. `in_transaction`: MAIL was accepted and nothing ended it.
    """

    def __init__(self, settings: SmarthostSettings, secrets: tuple[str, ...] = ()) -> None:
        """`secrets` never leave through a reply's text, should the peer echo them."""
        self.stage = Stage.CONNECT
        self.extensions: dict[str, str] = {}
        self.transactions = 0
        self.in_transaction = False
        self.idle_since = 0.0
        self._settings = settings
        self._secrets = secrets
        self._protocol = SMTPProtocol()
        self._is_broken = False
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_usable(self) -> bool:
        return not self._is_broken and self._protocol.is_connected

    async def connect(self, tls: ssl.SSLContext | None) -> SMTPResponse:
        """Open the socket, with TLS from the first octet if a context is given, and read the greeting."""
        host = bare_host(self._settings.host)
        source = self._settings.source_address
        timeout = self._settings.timeouts.connect
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().create_connection(
                lambda: self._protocol,
                host,
                self._settings.port,
                ssl=tls,
                server_hostname=host if tls else None,
                local_addr=(bare_host(source), 0) if source else None,
            )
        return self._read(await self._protocol.read_response(timeout))

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
        timeout = timeout or self._settings.timeouts.command
        return self._read(await self._protocol.execute_command(command, timeout=timeout))

    async def send_content(self, content: bytes) -> SMTPResponse:
        """Send the message after a 354, and the dot; return the reply. Only from the dot on is `stage` DOT.

        A peer that answers before the dot has refused for certain: the dot is not sent, and `stage` stays DATA.
        """
        reading = asyncio.create_task(self._protocol.read_response())
        try:
            await self._send_body(content, reading)
            if not reading.done():
                self.stage = Stage.DOT
                failpoints.reach("upstream-dot-before")
                self._protocol.write(b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")
                failpoints.reach("upstream-dot-after")
                await asyncio.wait({reading}, timeout=self._settings.timeouts.dot)
            if not reading.done():
                raise TimeoutError
            return self._read(reading.result(), is_last=True)
        finally:
            self._is_broken |= self.stage is not Stage.DOT or not _has_result(reading)
            reading.cancel()

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
            error = SMTPResponseException(error.code, self._redact(error.message))
        return judge_exception(self.stage, error)

    def abort(self) -> None:
        """Close at once: nothing that is buffered is sent any more, and no farewell is awaited."""
        self._is_broken = True
        if self._protocol.transport is not None:
            cast(asyncio.WriteTransport, self._protocol.transport).abort()

    async def _send_body(self, content: bytes, reading: "asyncio.Task[SMTPResponse]") -> None:
        """Hand all but the dot to the kernel, or stop early because the peer has spoken."""
        writer = self._flushing_writer()
        try:
            for block in stuffed_blocks(content):
                async with asyncio.timeout(self._settings.timeouts.data_block):
                    self._protocol.write(block)
                    await writer.drain()
                if reading.done():
                    return
        except (OSError, SMTPException):
            # A refusal that was read before the connection broke says more than the break does.
            if not _has_result(reading):
                raise
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
        # Replies that came in one segment wait in the buffer and would answer the commands that follow: a surplus
        # 250 could answer for the dot, and a refused message would pass for sent.
        if self._protocol._buffer:
            self._is_broken = True
            if not is_last:
                raise ProtocolViolation(f"more than one reply to a command, the first: {response.code}")
        self._is_broken |= response.code == 421
        return SMTPResponse(response.code, self._redact(response.message))

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


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


def bare_host(host: str) -> str:
    """An address literal without its brackets, as sockets and certificates want it."""
    return host.removeprefix("[").removesuffix("]").removeprefix("IPv6:")


def _has_result(reading: "asyncio.Task[SMTPResponse]") -> bool:
    return reading.done() and not reading.cancelled() and reading.exception() is None
