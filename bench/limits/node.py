"""`relayd serve` with two workers on one of the server's databases, and a sink: started and stopped together."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.request import urlopen

from bench import process
from bench.errors import BenchError
from bench.limits import sink
from bench.limits.source import Line
from bench.loopback import endpoint, free_port
from bench.queue_cost import server
from relayd.control.client import ControlClient, path_of
from relayd.embedded import EmbeddedPostgres

ADDRESS = "127.0.0.1"
WORKERS = 2
_TURNLESS = Path(__file__).parent / "turnless"

_CONFIG = """\
node = "bench"
hostname = "relayd.example.com"
processes = {workers}
[database]
dsn = "{dsn}"
password_file = "{directory}/password"
[seal]
key_file = "{directory}/seal.key"
[submission]
listen = ["{listen}"]
allow_plaintext_auth = true
[delivery]
release_spread_seconds = {spread_seconds}
[http]
listen = "{http}"
[control]
socket = "{directory}/control.sock"
mode = "0600"
"""


@dataclass(slots=True)
class Sink:
    """Where the upstream leads to. One port for the whole run; each start notes into a file of its own."""

    directory: Path
    delay_seconds: float = 0.0
    port: int = field(default_factory=lambda: free_port(ADDRESS))
    _process: "subprocess.Popen[bytes] | None" = None
    _notes: Path = Path()
    _count: int = 0

    def start(self) -> None:
        """Listens when it returns."""
        self._count += 1
        self._notes = self.directory / f"arrivals-{self.port}-{self._count}"
        log = self.directory / "sink.log"
        arguments = [ADDRESS, str(self.port), str(self.delay_seconds), str(self._notes)]
        self._process = process.start([sys.executable, "-m", "bench.limits.sink", *arguments], log=log)
        process.wait_for_port(ADDRESS, self.port, self._process, log)

    def stop(self) -> None:
        """It flushes a few times a second; what is asked for has long arrived."""
        process.stop(self._process)
        self._process = None

    def arrivals(self) -> dict[str, float]:
        """The first arrival of each recipient since the start."""
        found: dict[str, float] = {}
        for recipient, at in sink.read_notes(self._notes):
            found.setdefault(recipient, at)
        return found


@dataclass(slots=True)
class Node:
    """A node that runs. `lines` gives each client its connection."""

    port: int
    control: ControlClient

    def lines(self, clients: Iterable[str]) -> dict[str, Line]:
        """A login for each of these clients."""
        made = {}
        for name in sorted(set(clients)):
            login = f"{name}-{os.urandom(4).hex()}"
            secret = self.control.post(path_of("credentials"), {"login": login, "client": name}).data["secret"]
            made[name] = Line(ADDRESS, self.port, login, secret)
        return made


@asynccontextmanager
async def running(
    own: EmbeddedPostgres,
    database: str,
    *,
    seal_key: str,
    spread_seconds: float,
    is_turnless: bool = False,
    workers: int = WORKERS,
) -> AsyncIterator[Node]:
    """A node on that database; it has drained when this ends. A database is bound to its first `seal_key`."""
    with tempfile.TemporaryDirectory(prefix="relayd-limits-") as scratch:
        directory = Path(scratch)
        port, http = free_port(ADDRESS), free_port(ADDRESS)
        for name, text in (("seal.key", seal_key), ("password", own.password)):
            path = directory / name
            path.touch(mode=0o600)
            path.write_text(text + "\n")
        config = directory / "relayd.toml"
        config.write_text(
            _CONFIG.format(
                workers=workers,
                dsn=server.dsn_of(own, database),
                directory=directory,
                listen=endpoint(ADDRESS, port),
                http=endpoint(ADDRESS, http),
                spread_seconds=spread_seconds,
            )
        )
        log = directory / "log"
        planted = {"PYTHONPATH": f"{_TURNLESS}:{Path.cwd()}"} if is_turnless else {}
        started = process.start(
            [sys.executable, "-m", "relayd", "serve", "--config", str(config)], log=log, environment=planted
        )
        try:
            process.wait_for_path(directory / "control.sock", started, log)
            _wait_until_ready(endpoint(ADDRESS, http), started, log)
            yield Node(port, ControlClient((directory / "control.sock",)))
        except BaseException:
            sys.stderr.write(f"the node's last words: {process.last_words(log)}\n")
            raise
        finally:
            process.stop(started)


def _wait_until_ready(http: str, started: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + process.START_SECONDS
    while time.monotonic() < end and started.poll() is None:
        with contextlib.suppress(OSError), urlopen(f"http://{http}/readyz", timeout=5) as answer:
            if answer.status == HTTPStatus.OK:
                return
        time.sleep(0.05)
    raise BenchError(f"relayd is not ready: {process.last_words(log)}")
