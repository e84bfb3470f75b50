"""Write log lines from a thread of their own, so that a reader who hangs (journald, a full pipe) never stops mail.

Lines wait in a bounded buffer. When it is full, new lines are dropped and counted; the next line that gets through
says how many are missing.
"""

import atexit
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Mapping

BUFFER_OCTETS = 4 * 1024 * 1024
FLUSH_SECONDS = 1.0
_CHUNK_OCTETS = 64 * 1024
# sd-daemon(3): journald reads a line's priority from this prefix.
_PRIORITIES = {logging.DEBUG: b"<7>", logging.INFO: b"<6>", logging.WARNING: b"<4>", logging.ERROR: b"<3>"}
_CRITICAL = b"<2>"


class LineWriter:
    """Lines for one file descriptor. `write` never blocks and never raises.

    `has_priorities` puts journald's priority in front of each line. `on_drop` is called for each dropped line;
    `on_resume` gets their number, in the writing thread, once lines get through again.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        has_priorities: bool = False,
        buffer_octets: int = BUFFER_OCTETS,
        on_drop: Callable[[], None] = lambda: None,
        on_resume: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._descriptor = descriptor
        self._has_priorities = has_priorities
        self._buffer_octets = buffer_octets
        self._on_drop = on_drop
        self._on_resume = on_resume
        self._lines: deque[bytes] = deque()
        self._octets = 0
        self._dropped = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.flush)

    def write(self, level: int, line: str) -> None:
        """Take a line without its newline."""
        encoded = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._has_priorities:
            encoded = _PRIORITIES.get(level, _CRITICAL) + encoded
        with self._changed:
            has_room = self._octets + len(encoded) <= self._buffer_octets
            if has_room:
                self._lines.append(encoded)
                self._octets += len(encoded)
                self._changed.notify_all()
            else:
                self._dropped += 1
        if not has_room:
            self._on_drop()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until every line is written, at most for so long; False if some are not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._octets == 0, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                chunk = self._next_chunk()
            self._write_out(chunk)
            with self._changed:
                self._octets -= len(chunk)
                dropped, self._dropped = self._dropped, 0
                self._changed.notify_all()
            if dropped:
                self._on_resume(dropped)

    def _next_chunk(self) -> bytes:
        """Whole lines, at least one. They count as buffered until they are written."""
        taken: list[bytes] = []
        octets = 0
        while self._lines and (not taken or octets + len(self._lines[0]) <= _CHUNK_OCTETS):
            taken.append(self._lines.popleft())
            octets += len(taken[-1])
        return b"".join(taken)

    def _write_out(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select((), (self._descriptor,), ())
            except OSError:
                return  # a full disk, a closed pipe: nobody can be told


def is_journal(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Whether journald reads this descriptor: systemd.exec(5), JOURNAL_STREAM."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
