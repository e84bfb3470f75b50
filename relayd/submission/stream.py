"""The bytes of one connection: bounded input, batched output, deadlines.

Replies gather and leave when the input has run dry, so a pipelining client gets one packet (RFC 2920). Nothing is
ever cancelled: a peer that goes away, a deadline and a shutdown all end the *wait for input* with `SessionOver`, so
whatever else the session is doing runs to its end. Input that came before the peer went is still read.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from relayd.errors import RelaydError
from relayd.mail.reply import Reply
from relayd.rules.session_events import Ending, Reason

HIGH_WATER_OCTETS = 262_144
MAX_UNSENT_REPLIES = 100

# The first of these must be a CRLF; the CR at the very end may still become one.
_LINE_END = re.compile(rb"\r\n|\n|\x00|\r(?!\Z)")


class SessionOver(RelaydError):
    """The session ends here, with a last reply unless there is nobody to read it."""

    def __init__(self, ending: Ending, reply: Reply | None = None) -> None:
        super().__init__(ending.value)
        self.ending = ending
        self.reply = reply


class TooLate(NamedTuple):
    """How the session ends when a deadline passes. Most never do, and an exception a command costs."""

    ending: Ending
    reply: Reply | None = None

    def over(self) -> SessionOver:
        """The end itself."""
        return SessionOver(self.ending, self.reply)


class BadLine(RelaydError):
    """A command line that is too long or holds a bare CR, bare LF or NUL."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Stream:
    """Reads and writes for one session. The protocol feeds it; `drained` waits for the transport's write buffer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, drained: Callable[[], Awaitable[None]]) -> None:
        self._loop = loop
        self._drained = drained
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._output: list[str] = []
        self._ended = False
        self._paused = False
        self._blocked = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._too_late = TooLate(Ending.IDLE)

    def attach(self, transport: asyncio.Transport) -> None:
        """Begin on a transport. Input that has come by it already is kept."""
        self._transport = transport
        self._paused = False

    def detach(self) -> None:
        """Leave the transport. What was read and not used is forgotten (RFC 3207 4.2)."""
        self._input.clear()
        self._transport = None

    def feed(self, data: bytes) -> None:
        """Take input from the protocol."""
        self._input += data
        if len(self._input) > HIGH_WATER_OCTETS and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def end(self) -> None:
        """No more input will come."""
        self._ended = True
        self._wake()

    def interrupt(self, over: SessionOver) -> None:
        """End the session if it is waiting for input."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(over)

    def close(self) -> None:
        """Give up the timer and what was not used."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._input.clear()

    async def line(self, max_octets: int, deadline: float, too_late: TooLate) -> bytes:
        """The next line without its CRLF. Raises BadLine; SessionOver when there is none or the deadline passes."""
        scanned = 0
        is_too_long = False
        while (match := _LINE_END.search(self._input, scanned)) is None:
            if len(self._input) > max_octets:
                is_too_long = True
                del self._input[:-1]
            scanned = max(0, len(self._input) - 1)
            await self._more(deadline, too_late)
        end = match.end()
        line = bytes(self._input[: match.start()])
        kind = match.group()
        del self._input[:end]
        if kind != b"\r\n":
            raise BadLine({b"\n": Reason.BARE_LF, b"\r": Reason.BARE_CR}.get(kind, Reason.NUL))
        if is_too_long or len(line) > max_octets:
            raise BadLine(Reason.LINE_TOO_LONG)
        return line

    async def chunk(self, deadline: float, too_late: TooLate) -> bytearray:
        """All the input there is, at least one byte. Raises SessionOver as `line` does."""
        while not self._input:
            await self._more(deadline, too_late)
        chunk, self._input = self._input, bytearray()
        return chunk

    def unread(self, data: bytes | bytearray) -> None:
        """Put back what belongs to the next reader."""
        self._input[:0] = data

    async def say(self, reply: str) -> None:
        """Send a reply, soon: with the others that this input calls for."""
        self._output.append(reply)
        if len(self._output) >= MAX_UNSENT_REPLIES:
            await self.flush()
            await asyncio.sleep(0)  # a client that pipelines thousands of commands must not starve the others

    async def flush(self) -> None:
        """Send what was said, and wait while the peer does not read."""
        if not self._output:
            return
        octets = ("\r\n".join(self._output) + "\r\n").encode("utf-8", "replace")
        self._output.clear()
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(octets)
        self._blocked = True
        if self._deadline:
            self._arm(self._deadline, self._too_late)
        try:
            await self._drained()
        except ConnectionError:
            pass  # whatever the peer said before it went is still to be read
        finally:
            self._blocked = False

    async def _more(self, deadline: float, too_late: TooLate) -> None:
        before = len(self._input)
        self._arm(deadline, too_late)
        await self.flush()
        if len(self._input) != before:
            return
        if self._ended:
            raise SessionOver(Ending.DISCONNECTED)
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _arm(self, deadline: float, too_late: TooLate) -> None:
        # Deadlines mostly move away: a timer that fires early looks again, which is cheaper than a timer a command.
        self._deadline, self._too_late = deadline, too_late
        if self._timer is not None and self._timer.when() > deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None and not self._blocked:
            return  # the session is at work; its next wait arms the timer again
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        elif self._blocked and self._transport is not None:
            self._transport.abort()
        else:
            self.interrupt(self._too_late.over())
