"""Messages due at fixed times, a connection each: sockets and epoll alone, for the two cores are the system's.

The same over asyncio took as much of them as a whole relay.
"""

import select
import socket
import time
from collections.abc import Sequence

from bench.errors import BenchError
from bench.loopback import loopback
from bench.timing import Timing

MOST_UNDER_WAY = 250
_LONGEST_WAIT_SECONDS = 30.0


class _Talk:
    """One connection: what is yet to be said, each once its reply has come."""

    __slots__ = ("_buffer", "_due_at", "_sent_at", "_step", "_unsent", "socket")

    def __init__(self, socket: socket.socket, due_at: float) -> None:
        self.socket = socket
        self._due_at = due_at
        self._sent_at = 0.0
        self._step = 0
        self._buffer = b""
        self._unsent = memoryview(b"")

    def go_on(self, script: Sequence[tuple[bytes, bytes]], timings: list[Timing]) -> bool:
        """What came is read, and the next of the script said; True at its end. Raises BenchError, OSError."""
        if self._unsent:
            self._send(self._unsent)
            return False
        try:
            read = self.socket.recv(4096)
        except BlockingIOError:
            return False
        self._buffer += read
        code, says = script[self._step]
        if not read or not self._buffer.startswith(code):
            came = self._buffer.decode(errors="replace").strip() or "end of connection"
            raise BenchError(f"wanted {code.decode()}, got {came}")
        if not self._buffer.endswith(b"\n") or self._buffer[self._buffer.rfind(b"\n", 0, -1) + 4 :][:1] == b"-":
            return False
        self._buffer = b""
        self._step += 1
        if self._step == len(script) - 1:  # what is left is to say goodbye
            now = time.monotonic()
            timings.append(Timing(self._due_at, now, now - self._sent_at))
        if not says:
            return True
        self._sent_at = time.monotonic()
        self._send(memoryview(says))
        return False

    def waits_for(self) -> int:
        """What epoll is to tell."""
        return select.EPOLLOUT if self._unsent else select.EPOLLIN

    def _send(self, octets: memoryview) -> None:
        try:
            self._unsent = octets[self.socket.send(octets) :]
        except BlockingIOError:
            self._unsent = octets


class Paced:
    """One process's messages: `dues`, monotonic times in order."""

    def __init__(self, address: str, port: int, sender: str, recipient: str, content: bytes) -> None:
        self._family = socket.AF_INET6 if ":" in loopback(address) else socket.AF_INET
        self._endpoint = (address, port)
        # Each reply that is waited for, and what is said to it. No pipelining, as smtp-source.
        self._script = (
            (b"220", b"EHLO app.example.com\r\n"),
            (b"250", f"MAIL FROM:<{sender}>\r\n".encode()),
            (b"250", f"RCPT TO:<{recipient}>\r\n".encode()),
            (b"250", b"DATA\r\n"),
            (b"354", content),
            (b"250", b"QUIT\r\n"),
            (b"221", b""),
        )

    def send(self, dues: Sequence[float]) -> list[Timing]:
        """All of them. Raises BenchError at the first refusal, or when too many wait."""
        timings: list[Timing] = []
        talks: dict[int, _Talk] = {}
        started = 0
        poll = select.epoll()
        try:
            while talks or started < len(dues):
                now = time.monotonic()
                while started < len(dues) and dues[started] <= now:
                    self._open(dues[started], poll, talks)
                    started += 1
                wait = dues[started] - now if started < len(dues) else _LONGEST_WAIT_SECONDS
                events = poll.poll(wait)
                if not events and started == len(dues):
                    raise BenchError(f"no reply within {_LONGEST_WAIT_SECONDS:.0f} seconds")
                for number, _ in events:
                    talk = talks[number]
                    waited_for = talk.waits_for()
                    if talk.go_on(self._script, timings):
                        del talks[number]
                        talk.socket.close()
                    elif talk.waits_for() != waited_for:
                        poll.modify(number, talk.waits_for())
        finally:
            poll.close()
            for talk in talks.values():
                talk.socket.close()
        return timings

    def _open(self, due_at: float, poll: select.epoll, talks: dict[int, _Talk]) -> None:
        if len(talks) >= MOST_UNDER_WAY:
            raise BenchError(f"more than {MOST_UNDER_WAY} sessions wait: it cannot carry so many a second")
        talk = _Talk(socket.socket(self._family), due_at)
        talk.socket.setblocking(False)
        talk.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talks[talk.socket.fileno()] = talk
        talk.socket.connect_ex(self._endpoint)
        poll.register(talk.socket, select.EPOLLIN)
