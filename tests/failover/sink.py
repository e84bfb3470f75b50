"""A sink that can be killed: `python -m tests.failover.sink PORT FILE` takes mail on 127.0.0.1 and writes it down."""

import subprocess
import sys
import threading
from pathlib import Path

from relayd.embedded.lifetime import die_with_parent
from tests.crash.recorder import Delivered, Recorder, read_arrivals
from tests.e2e.house import wait_until

ROOT = Path(__file__).parents[2]


class SinkProcess:
    """Killed and started as often as one likes; on one port, into one file."""

    def __init__(self, port: int, path: Path) -> None:
        self.port = port
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.failover.sink", str(self.port), str(self._path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            preexec_fn=die_with_parent(9),
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """SIGKILL, by its process id."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout
            self._process.stdout.close()
            self._process = None

    def count(self) -> int:
        """How many recipients it has taken."""
        return self._path.read_bytes().count(b"\n") if self._path.exists() else 0

    def wait_for(self, count: int, *, seconds: float) -> None:
        wait_until(lambda: self.count() >= count, seconds=seconds, every=0.02, what=f"{count} arrivals at {self.port}")

    def arrivals(self) -> list[Delivered]:
        return read_arrivals(self._path) if self._path.exists() else []


def main() -> None:
    with Recorder(Path(sys.argv[2]), port=int(sys.argv[1])):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
