"""`relayd serve` under socket activation: takes systemd's sockets and tells it how it does.

systemd-socket-activate hands over the sockets at the first connection, and execs the program: the process that is
started here becomes the supervisor.
"""

import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from relayd.seal import new_key
from tests.conftest import FreshDatabase
from tests.e2e.peers import require

pytestmark = pytest.mark.skipif(find_spec("relayd.cli") is None, reason="there is no `relayd serve` yet")

WATCHDOG_SECONDS = 1.0
START_SECONDS = 30.0


class Notifications:
    """What the daemon tells, as systemd would receive it. A Unix path is short, so it lies in a directory given."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self.received: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))

    def wait_for(self, name: str, value: str, *, times: int = 1, seconds: float = START_SECONDS) -> None:
        """Until `name=value` has come `times` times from now on."""
        deadline = time.monotonic() + seconds
        while times:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                message = self._socket.recv(65536).decode()
            except TimeoutError:
                pytest.fail(f"no {name}={value} within {seconds:g} s; received: {self.received}")
            states = dict(line.split("=", 1) for line in message.splitlines())
            self.received.append(states)
            times -= states.get(name) == value

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def notifications(state_directory: Path) -> Iterator[Notifications]:
    state_directory.mkdir()
    listener = Notifications(state_directory)
    yield listener
    listener.close()


@contextmanager
def activated(
    directory: Path, database: FreshDatabase, notifications: Notifications
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The daemon, waiting for its first connection on the port given."""
    password, key = directory / "password", directory / "key"
    for path, secret in ((password, database.password), (key, new_key())):
        path.touch(mode=0o600)
        path.write_text(secret)
    config = directory / "relayd.toml"
    config.write_text(
        f'hostname = "relay.example.com"\nprocesses = 2\n'
        f'[database]\ndsn = "{database.dsn}"\npassword_file = "{password}"\n[seal]\nkey_file = "{key}"\n'
        # Cannot be bound: were it tried, the start would fail.
        f'[submission]\nlisten = ["192.0.2.1:587"]\n'
        f'[http]\nlisten = "off"\n[control]\nsocket = "{directory / "control"}"\n[delivery]\ndrain_seconds = 5\n'
    )
    port = _free_port()
    log = directory / "stderr"
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            [
                *("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=submission"),
                # It passes on nothing but what it is told to.
                *(f"-E{name}" for name in ("HOME", "PATH") if name in os.environ),
                f"-ENOTIFY_SOCKET={notifications.path}",
                f"-EWATCHDOG_USEC={int(WATCHDOG_SECONDS * 1_000_000)}",
                *(sys.executable, "-m", "relayd", "serve", "--config", str(config)),
            ],
            stderr=log_file,
        )
    try:
        _wait_until_listening(log)
        yield process, port
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_ready_watchdog_reload_and_stop(
    state_directory: Path, database: FreshDatabase, notifications: Notifications
) -> None:
    require("systemd-socket-activate")
    with activated(state_directory, database, notifications) as (process, port):
        with smtplib.SMTP("127.0.0.1", port, timeout=START_SECONDS) as client:
            # The connection that woke the daemon is served by it.
            assert client.ehlo("app.example.com")[0] == 250
            notifications.wait_for("READY", "1")
            notifications.wait_for("WATCHDOG", "1", times=3, seconds=4 * WATCHDOG_SECONDS)
        process.send_signal(signal.SIGHUP)
        notifications.wait_for("RELOADING", "1")
        assert re.fullmatch(r"\d+", notifications.received[-1]["MONOTONIC_USEC"])
        notifications.wait_for("READY", "1")
        process.send_signal(signal.SIGTERM)
        notifications.wait_for("STOPPING", "1")
        assert process.wait(15) == 0


def test_the_supervisor_alone_notifies(
    state_directory: Path, database: FreshDatabase, notifications: Notifications
) -> None:
    """NotifyAccess=main: systemd would drop what a worker says, and log it."""
    require("systemd-socket-activate")
    with activated(state_directory, database, notifications) as (process, port):
        with smtplib.SMTP("127.0.0.1", port, timeout=START_SECONDS):
            notifications.wait_for("READY", "1")
        workers = _children(process.pid)
        assert workers
        for worker in workers:
            environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
            names = {variable.partition(b"=")[0] for variable in environment}
            assert not names & {b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"LISTEN_FDS", b"LISTEN_PID"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _wait_until_listening(log: Path) -> None:
    """systemd-socket-activate says so on standard error before it waits for a connection."""
    deadline = time.monotonic() + START_SECONDS
    while b"Listening on" not in log.read_bytes():
        if time.monotonic() > deadline:
            pytest.fail(f"systemd-socket-activate does not listen: {log.read_text()}")
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
