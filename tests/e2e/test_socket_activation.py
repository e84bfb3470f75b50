"""`relayd serve` under socket activation and in the sandbox of its unit: takes systemd's sockets, tells how it does.

systemd-socket-activate hands the sockets over at the first connection and execs the program: the process that is
started here becomes the supervisor.
"""

import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import FreshDatabase, at_length
from tests.e2e.conftest import need
from tests.e2e.house import START_SECONDS, House, free_port, wait_until

HERE = Path(__file__).parent
SERVICE = HERE.parents[1] / "systemd" / "relayd.service"
# The daemon speaks three times in each: a busy machine may be late twice.
WATCHDOG_SECONDS = 3.0


@pytest.fixture
def house(database: FreshDatabase) -> Iterator[House]:
    # The configured address cannot be bound: were it tried, the start would fail.
    found = House(database.dsn, database.password, submission={"listen": ["192.0.2.1:587"]})
    yield found
    found.close()


@contextmanager
def activated(house: House) -> Iterator[int]:
    """The daemon, not yet started: it will be by the first connection to the port given."""
    need("systemd-socket-activate", "systemd-analyze")
    port = free_port()
    with house.log.open("wb") as log:
        house.process = subprocess.Popen(
            [
                *("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=submission"),
                # It passes on what it is told to, and nothing else.
                "-ERELAYD_DUMPABLE=1",  # or only root could look at their environment
                *(f"-E{name}" for name in ("HOME", "PATH") if name in os.environ),
                f"-ENOTIFY_SOCKET={house.directory / 'notify'}",
                f"-EWATCHDOG_USEC={int(WATCHDOG_SECONDS * 1_000_000)}",
                *(sys.executable, str(HERE / "sandboxed.py"), str(SERVICE)),
                *(sys.executable, "-m", "relayd", "serve", "--config", str(house.config)),
            ],
            stdout=log,
            stderr=log,
        )
    wait_until(lambda: "Listening on" in house.log_text(), what="systemd-socket-activate listening")
    yield port


def expect(house: House, told: str, seconds: float = START_SECONDS) -> None:
    assert house.process
    assert house.notifications.wait_for(told, seconds, house.process), f"no {told}:\n{house.log_text()}"


def test_ready_watchdog_reload_and_stop(house: House) -> None:
    with activated(house) as port:
        with smtplib.SMTP("127.0.0.1", port, timeout=START_SECONDS) as app:
            # The connection that woke the daemon is served by it.
            assert app.ehlo("app.example.com")[0] == 250
            expect(house, "READY=1")
            for _ in range(3):
                expect(house, "WATCHDOG=1", WATCHDOG_SECONDS)
        assert house.process
        old_workers = set(house.worker_pids())
        house.process.send_signal(signal.SIGHUP)
        expect(house, "RELOADING=1")
        expect(house, "READY=1")
        # Until then an old worker may take a connection, only to say that it is about to go.
        wait_until(lambda: not old_workers & set(house.worker_pids()), what="the old workers' end")
        with smtplib.SMTP("127.0.0.1", port, timeout=START_SECONDS) as app:
            assert app.ehlo("app.example.com")[0] == 250
        house.process.send_signal(signal.SIGTERM)
        expect(house, "STOPPING=1")
        assert house.process.wait(START_SECONDS) == 0


@at_length
def test_workers_cannot_speak_to_systemd_nor_take_its_sockets(house: House) -> None:
    """NotifyAccess=main: systemd drops what a worker says, and logs that it did."""
    with activated(house) as port:
        with smtplib.SMTP("127.0.0.1", port, timeout=START_SECONDS):
            expect(house, "READY=1")
        assert house.worker_pids()
        for pid in house.worker_pids():
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            names = {variable.partition(b"=")[0] for variable in environment}
            assert not names & {b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID", b"LISTEN_FDS", b"LISTEN_PID"}


def test_control_socket_and_its_group_work_in_the_sandbox(house: House) -> None:
    house.settings["control"] |= {"mode": "0660", "group": "root"}
    house.write_config()
    with activated(house) as port:
        with smtplib.SMTP("127.0.0.1", port, timeout=START_SECONDS):
            expect(house, "READY=1")
        assert house.run("client", "list").returncode == 0


def test_a_unix_socket_from_systemd_is_refused_with_the_reason(house: House) -> None:
    path = house.directory / "submission.sock"
    command = ["systemd-socket-activate", f"--listen={path}", sys.executable, "-m", "relayd", "serve"]
    need("systemd-socket-activate")
    with house.log.open("ab") as log:
        activator = subprocess.Popen([*command, "--config", str(house.config)], stdout=log, stderr=log)
    try:
        wait_until(path.exists, what="the socket")
        with socket.socket(socket.AF_UNIX) as app:
            app.connect(str(path))
            wait_until(lambda: "a socket that is not TCP" in house.log_text(), what="the refusal")
        assert activator.wait(START_SECONDS) == 1
    finally:
        activator.kill()
        activator.wait()
    assert "takes addresses with a port only" in house.log_text()
    assert "Traceback" not in house.log_text()
