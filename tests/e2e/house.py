"""A whole relayd, as its users run it: `relayd serve` in processes of its own, on a database of the test's own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relayd.seal import new_key
from tests import command_line

START_SECONDS = 60.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Notifications:
    """What the daemon tells systemd, heard by the test."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.1)
        self._heard: list[str] = []

    def wait_for(self, wanted: str, seconds: float, process: "subprocess.Popen[bytes]") -> bool:
        """True once a notification holds the line `wanted`; False when the time or the process has run out."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self._heard += self._socket.recv(8192).decode().splitlines()
            except TimeoutError:
                if process.poll() is not None:
                    return False
            if wanted in self._heard:
                self._heard = self._heard[self._heard.index(wanted) + 1 :]
                return True
        return False

    def close(self) -> None:
        self._socket.close()


class House:
    """One node's directory, configuration and processes. `start`, `stop`, `kill` as often as a test likes."""

    def __init__(self, dsn: str, password: str, **sections: Any) -> None:
        # Short: a Unix socket's path holds 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="relayd-"))
        self.directory.chmod(0o711)
        self.smtp_port, self.http_port = free_port(), free_port()
        self.socket = self.directory / "control.sock"
        self.config = self.directory / "relayd.toml"
        self.log = self.directory / "log"
        self._secret("password", password)
        self._secret("key", new_key())
        self.settings: dict[str, Any] = {
            "node": "test",
            "hostname": "relay.test",
            "processes": 2,
            "database": {"dsn": dsn, "password_file": str(self.directory / "password")},
            "seal": {"key_file": str(self.directory / "key")},
            "submission": {"listen": [f"127.0.0.1:{self.smtp_port}"]},
            "trusted_networks": [{"network": "127.0.0.0/8", "client": "acme"}],
            "http": {"listen": f"127.0.0.1:{self.http_port}"},
            "control": {"socket": str(self.socket), "mode": "0600"},
            "delivery": {"poll_seconds": 0.2, "release_spread_seconds": 0, "drain_seconds": 20},
        }
        for name, values in sections.items():
            if isinstance(values, dict):
                self.settings[name] = {**self.settings.get(name, {}), **values}
            else:
                self.settings[name] = values
        self.write_config()
        self.process: subprocess.Popen[bytes] | None = None
        self.before_exec: Callable[[], None] | None = None
        """Called in the new process."""
        self._notify = self.directory / "notify"
        self.notifications = Notifications(self._notify)

    def write_config(self) -> None:
        self.config.write_text(_toml(self.settings))

    def run(self, *arguments: str, check: bool = True, text: str = "") -> "subprocess.CompletedProcess[str]":
        """One command of the CLI, on this node's socket."""
        ran = command_line.run(("--socket", str(self.socket), *arguments), stdin=text)
        if check and ran.code != 0:
            raise AssertionError(f"relayd {' '.join(arguments)}: {ran.err}{ran.out}")
        return subprocess.CompletedProcess(arguments, ran.code, ran.out, ran.err)

    def json(self, *arguments: str) -> Any:
        """What a command answers with --json."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def migrate(self) -> None:
        self.run("migrate", "up", "--config", str(self.config))

    def start(self, **environment: str) -> None:
        """Start and wait until it is ready."""
        self.spawn(**environment)
        assert self.process
        if not self.notifications.wait_for("READY=1", START_SECONDS, self.process):
            raise AssertionError(f"relayd did not start:\n{self.log_text()}")

    def spawn(self, **environment: str) -> None:
        """Start without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relayd", "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(self._notify), **environment},
                preexec_fn=self.before_exec,
            )

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and the exit code once it has drained."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL of the supervisor."""
        assert self.process
        self.process.kill()
        self.process.wait()
        self.process = None

    def worker_pids(self) -> list[int]:
        """The workers, as the kernel lists them."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def metric(self, name: str) -> float:
        """Of the metrics page; 0 if it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.notifications.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _secret(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text + "\n")
        path.chmod(0o600)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Any, *, seconds: float = 30.0, what: str = "the condition", every: float = 0.1) -> Any:
    """The first true value of `condition()`; a failure names `what` was waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(every)
    raise AssertionError(f"{what} did not come true within {seconds} s")


def _toml(settings: dict[str, Any]) -> str:
    plain = {key: value for key, value in settings.items() if not isinstance(value, (dict, list))}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in settings.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", *(f"{name} = {json.dumps(each)}" for name, each in value.items())]
        elif isinstance(value, list):
            for element in value:
                lines += [f"[[{key}]]", *(f"{name} = {json.dumps(each)}" for name, each in element.items())]
    return "\n".join(lines) + "\n"
