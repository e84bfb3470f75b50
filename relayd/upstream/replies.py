"""aiosmtplib's protocol, but its replies wait in line: as many as there were commands, in one segment or in ten.

aiosmtplib reads one reply a command and drops what comes meanwhile, so commands could not be sent together (RFC 2920).
What comes without having been asked for is never kept for the next command: it is `surplus`. A reply has so many octets
and so much time in all: one that does not end is given up, however steadily it drips.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence

from aiosmtplib import SMTPReadTimeoutError, SMTPResponse, SMTPServerDisconnected
from aiosmtplib.protocol import COMMAND_INJECTION_REGEX, MAX_RESPONSE_LENGTH, FlowControlMixin, SMTPProtocol

from relayd.upstream.verdict import ProtocolViolation

_REPLY_LINE = re.compile(rb"[2-5][0-9]{2}(?:[ -]|\r?$)")


class ReplyReader(SMTPProtocol):
    """Write commands, then read a reply for each. One reader at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.surplus = False  # the peer has said more than it was asked
        self._awaited = 0
        self._replies: deque[SMTPResponse] = deque()
        self._failure: Exception | None = None
        self._wake: Callable[[], None] | None = None

    @property
    def has_spoken(self) -> bool:
        """There is a reply to read, or none will come any more."""
        return bool(self._replies) or self._failure is not None

    @property
    def has_reply(self) -> bool:
        """There is a reply to read."""
        return bool(self._replies)

    @property
    def awaited(self) -> int:
        """How many replies are still to be read."""
        return self._awaited + len(self._replies)

    def send(self, commands: Sequence[bytes]) -> None:
        """Write commands in one go. Raises SMTPServerDisconnected; ValueError for a control character in one."""
        if any(COMMAND_INJECTION_REGEX.search(command) for command in commands):
            raise ValueError("a command holds a control character")
        self.expect(len(commands))
        self.write(b"\r\n".join(commands) + b"\r\n")

    def expect(self, count: int) -> None:
        """So many more replies are asked for."""
        self._awaited += count

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:
        """The next reply, within `timeout` from its first octet to its last.

        Raises SMTPServerDisconnected, SMTPResponseException, SMTPReadTimeoutError, ProtocolViolation.
        """
        if not self._replies:
            if not self._awaited:
                self.expect(1)
            if self._failure is None:
                await self._arrival(timeout)
        if self._replies:
            return self._replies.popleft()
        assert self._failure
        raise self._failure

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The greeting is owed."""
        super().connection_made(transport)
        self.expect(1)

    def data_received(self, data: bytes) -> None:
        """Take as many replies out of the buffer as are awaited."""
        self._buffer.extend(data)
        try:
            # Without a line end nothing has become whole: what drips in is not read over and over.
            while self._awaited and b"\n" in data and (reply := self._read_response_from_buffer()) is not None:
                self._awaited -= 1
                self._replies.append(reply)
            if len(self._buffer) > MAX_RESPONSE_LENGTH:
                raise ProtocolViolation(f"the reply does not end: given up after {MAX_RESPONSE_LENGTH} octets")
        except Exception as error:
            self._buffer.clear()
            self._fail(error)
        self.surplus |= bool(self._buffer) and not self._awaited
        self._notify()

    def eof_received(self) -> bool:
        """Nothing more will come; returning False closes the transport."""
        self._fail(SMTPServerDisconnected("Unexpected EOF received"))
        self._notify()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Replies that have come can still be read."""
        FlowControlMixin.connection_lost(self, error)
        self.transport = None
        self._command_lock = None
        lost = SMTPServerDisconnected("Connection lost")
        lost.__cause__ = error
        self._fail(lost)
        self._notify()

    def _read_response_from_buffer(self) -> SMTPResponse | None:
        """The first reply, once it is whole. Raises ProtocolViolation for one that RFC 5321 4.2 does not know."""
        arrived = bytes(self._buffer)
        reply = super()._read_response_from_buffer()
        if reply is None:
            return None
        lines = arrived[: len(arrived) - len(self._buffer)].split(b"\n")[:-1]
        for line in lines:
            if not _REPLY_LINE.match(line):
                raise ProtocolViolation(f"not a line of a reply: {line.decode('ascii', 'backslashreplace').strip()}")
        if codes := {line[:3].decode() for line in lines} - {str(reply.code)}:
            raise ProtocolViolation(f"one reply has several codes: {', '.join(sorted(codes))} and {reply.code}")
        return reply

    async def _arrival(self, timeout: float | None) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        # A timer of its own: asyncio's timeouts cost more than all the rest of a reply.
        timer = self._loop.call_later(timeout, wake) if timeout is not None else None
        self._wake = wake
        try:
            while not self.has_spoken:
                await waiter
                if not self.has_spoken and self._buffer:
                    raise ProtocolViolation(f"the reply does not end: given up after {timeout:.0f} s")
                if not self.has_spoken:
                    raise SMTPReadTimeoutError("Timed out waiting for server response")
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _notify(self) -> None:
        if self._wake is not None and self.has_spoken:
            self._wake()

    def _fail(self, error: Exception) -> None:
        # The first failure says most.
        self._failure = self._failure or error
