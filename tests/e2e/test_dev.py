"""`relayd dev`: on a machine with nothing but Python a message is captured, signed twice; every mistake is told."""

import re
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import at_length
from tests.e2e.conftest import need
from tests.e2e.house import free_port, wait_until
from tests.e2e.signatures import signed_part, verified_algorithms
from tests.peers import opendkim


class Dev:
    """One `relayd dev` on a state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.smtp_port, self.http_port = free_port(), free_port()
        self.output = state.parent / "output"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        self.spawn(*more)
        wait_until(lambda: "is ready" in self.text() or self._ended(), seconds=60, what="the welcome")
        assert "is ready" in self.text(), self.text()

    def spawn(self, *more: str) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relayd", "dev", "--state", str(self.state), "--smtp-port", str(self.smtp_port),
                 "--http-port", str(self.http_port), *more],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def run(self, *arguments: str) -> str:
        socket = self.state / "control.sock"
        command = [sys.executable, "-m", "relayd", "--socket", str(socket), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _ended(self) -> bool:
        assert self.process
        return self.process.poll() is not None


@pytest.fixture
def dev(state_directory: Path) -> Iterator[Dev]:
    running = Dev(state_directory)
    yield running
    running.close()
    # Postgres goes with its parent; the directory is removed only after it is gone.
    data = state_directory / "postgres" / "data" / "postmaster.pid"
    wait_until(lambda: not data.exists(), seconds=30, what="the end of Postgres")


def captured(dev: Dev) -> list[bytes]:
    """The messages in the Maildir as they were signed: with CRLF."""
    new = dev.state / "mail" / "new"
    return [path.read_bytes().replace(b"\n", b"\r\n") for path in sorted(new.iterdir())] if new.is_dir() else []


def txt_records(dev: Dev, domain: str) -> dict[str, str]:
    """The DKIM records that relayd prints for a zone file, as a resolver would answer them."""
    lines = [line for line in dev.run("domain", "records", domain, "--zone").splitlines() if "_domainkey" in line]
    return {line.split()[0].rstrip("."): "".join(re.findall(r'"([^"]*)"', line)) for line in lines}


def test_a_first_message_is_captured_with_two_signatures_that_verify(dev: Dev) -> None:
    need("swaks")
    dev.start()
    swaks = subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{dev.smtp_port}", "--from", "app@example.com", "--to", "you@example.net"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert re.search(r"250 2\.0\.0 queued as [0-9a-f-]{36}", swaks.stdout), swaks.stdout
    (message,) = wait_until(lambda: captured(dev), what="the captured message")
    records = txt_records(dev, "example.com")
    assert verified_algorithms(signed_part(message), records) == ["ed25519-sha256", "rsa-sha256"]
    assert dev.stop() == 0


@at_length
def test_opendkim_accepts_the_rsa_signature(dev: Dev, tmp_path: Path) -> None:
    need("opendkim")
    dev.start()
    with smtplib.SMTP("127.0.0.1", dev.smtp_port) as client:
        client.sendmail("app@example.com", ["you@example.net"], "From: app@example.com\r\nSubject: hi\r\n\r\nbody\r\n")
    (message,) = wait_until(lambda: captured(dev), what="the captured message")
    told = opendkim.verdicts(signed_part(message), txt_records(dev, "example.com"), tmp_path)
    assert "succeeded" in told.values()


def test_started_twice_on_one_state_directory_says_so(dev: Dev) -> None:
    dev.start()
    second = Dev(dev.state)
    second.output = dev.state.parent / "second"
    second.spawn()
    assert second.process
    assert second.process.wait(60) == 1
    assert "already running" in second.text()
    assert "Traceback" not in second.text()


def test_a_taken_port_is_told_before_anything_is_begun(dev: Dev) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", dev.smtp_port))
        taken.listen()
        dev.spawn()
        assert dev.process
        assert dev.process.wait(60) == 1
    assert f"127.0.0.1:{dev.smtp_port}" in dev.text() and "taken" in dev.text()
    assert "Traceback" not in dev.text()


@at_length
def test_killed_supervisor_leaves_no_orphan_and_starts_again(dev: Dev) -> None:
    dev.start()
    assert dev.process
    children = Path(f"/proc/{dev.process.pid}/task/{dev.process.pid}/children").read_text().split()
    assert len(children) == 2  # Postgres and the worker
    dev.process.kill()
    dev.process.wait()
    dev.start()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), what="no orphan")
    with smtplib.SMTP("127.0.0.1", dev.smtp_port) as client:
        client.sendmail("app@example.com", ["you@example.net"], "From: app@example.com\r\n\r\nbody\r\n")
    wait_until(lambda: captured(dev), what="the captured message")


def test_what_was_queued_when_it_stopped_is_delivered_when_it_starts(dev: Dev) -> None:
    dev.start()
    dev.run("pause", "everything", "--reason", "test")
    with smtplib.SMTP("127.0.0.1", dev.smtp_port) as client:
        client.sendmail("app@example.com", ["you@example.net"], "From: app@example.com\r\n\r\nbody\r\n")
    assert dev.stop() == 0
    assert captured(dev) == []
    dev.start()
    dev.run("resume", "everything")
    wait_until(lambda: captured(dev), what="the captured message")
