"""smtp-sink as the place where all mail ends, and its counter, the same and as cheap for every system.

Its running counters go to a file; a look at the file's last octets says how many messages have arrived.
"""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Self

from bench import process
from bench.loopback import endpoint

_COUNTERS = re.compile(rb"mesg=(\d+)\r")
_TAIL_OCTETS = 200
_MOST_SESSIONS = 512


class Sink:
    """Use as a context manager. `dump` names a directory in which every message is kept, for a look at one."""

    def __init__(self, directory: Path, address: str, port: int, *, dump: Path | None = None) -> None:
        self._directory = directory
        self._address, self._port = address, port
        self._dump = dump
        self._counters = directory / "sink.counters"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._counters.unlink(missing_ok=True)
        # Only root can become somebody else, and must; before it keeps messages it would be in their way.
        become = ["-u", "nobody"] if os.geteuid() == 0 else []
        keep = ["-d", f"{self._dump}/"] if self._dump else []
        self._process = process.start(
            ["/usr/sbin/smtp-sink", "-c", "-m", str(_MOST_SESSIONS), *become, *keep,
             endpoint(self._address, self._port), str(_MOST_SESSIONS)],
            log=self._counters,
        )  # fmt: skip
        process.wait_for_port(self._address, self._port, self._process, self._counters)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        # smtp-sink keeps nothing that an orderly end would save.
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def arrived(self) -> int:
        """How many messages it has taken up to now."""
        with self._counters.open("rb") as counters:
            size = counters.seek(0, os.SEEK_END)
            counters.seek(max(0, size - _TAIL_OCTETS))
            found = _COUNTERS.findall(counters.read())
        return int(found[-1]) if found else 0
