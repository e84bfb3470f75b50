"""A Postgres that listens on 127.0.0.1, durable, that a test may stop, kill, hang, fill up and clone. No other's twin.

It dies with the process that started it, and only what it started itself is ever signalled.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asyncpg

from relayd.embedded import cluster
from relayd.embedded.account import choose_account, make_directory
from relayd.embedded.lifetime import die_with_parent
from relayd.embedded.programs import find_programs, make_reachable
from relayd.store.connection import Connector
from relayd.store.dsn import parse_dsn
from tests.crash.loopback import loopback

START_SECONDS = 60.0
STOP_SECONDS = 60.0

_SETTINGS = {
    "shared_buffers": "32MB",
    "max_connections": "60",
    # What a clone, or a standby that was away, still has to fetch.
    "wal_keep_size": "256MB",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",
}


class PostgresServer:
    """`home` must be reachable by the user that root lends to Postgres. `start` and `stop` as often as a test likes."""

    def __init__(self, home: Path, port: int, *, major: int | None = None, **settings: str) -> None:
        self.port = port
        self._home = home
        self._data = home / "data"
        self._account = choose_account(None, self._data)
        make_directory(home, self._account)
        self._programs = make_reachable(find_programs(major), self._account, home.parent)
        self._settings = {**_SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"{loopback('127.0.0.1')}:{self.port}"

    @property
    def dsn(self) -> str:
        """Without the password."""
        return f"postgresql://{cluster.USER}@{self.host}/{cluster.DATABASE}"

    @property
    def password(self) -> str:
        return cluster.read_password(self._home)

    @property
    def log_text(self) -> str:
        return (self._home / "log").read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def initialise(self) -> None:
        """A cluster of its own."""
        cluster.initialise(self._home, self._programs, self._account, durable=True)
        self._account.own(self._data)

    def clone(self, primary: "PostgresServer") -> None:
        """Become the primary's standby, of its data as it is now. It must not run."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(mode=0o700)
        self._account.own(self._data)
        subprocess.run(
            [
                *(str(self._programs.directory / "pg_basebackup"), "-D", str(self._data), "-R"),
                *("-h", "127.0.0.1", "-p", str(primary.port), "-U", cluster.USER, "-X", "stream", "-c", "fast"),
            ],
            cwd="/",
            env={**cluster.environment(), "PGPASSWORD": primary.password},
            check=True,
            capture_output=True,
            timeout=START_SECONDS,
            **self._account.popen_arguments(),
        )
        shutil.copy(primary._home / "password", self._home / "password")

    def start(self) -> None:
        """Return when it takes connections (a standby: reading ones)."""
        self.spawn()
        end = time.monotonic() + START_SECONDS
        while not self._accepts():
            if not self.is_running or time.monotonic() > end:
                raise AssertionError(f"Postgres did not start:\n{self.log_text[-2000:]}")
            time.sleep(0.02)

    def spawn(self) -> None:
        """Start without waiting."""
        assert not self.is_running
        settings = {**self._settings, "listen_addresses": "127.0.0.1", "port": str(self.port)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # Postgres itself would take any living process with the old number for its predecessor.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs.postgres), "-D", str(self._data), "-c", "unix_socket_directories=", *arguments],
                cwd="/",
                env=cluster.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGQUIT),
                **self._account.popen_arguments(),
            )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast; SIGQUIT: immediate; SIGKILL: of the postmaster, and its children end by themselves."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        children = self._children()
        self._process.send_signal(how)
        self._process.wait(STOP_SECONDS)
        self._process = None
        end = time.monotonic() + STOP_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < end:
            time.sleep(0.01)

    def hang(self) -> None:
        """Every process stands still; the kernel goes on accepting connections for it."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def execute(self, statement: str, *, timeout: float = 30.0) -> list[asyncpg.Record]:
        """One statement, as the owner, on a connection of its own."""
        return run(self._execute(statement, timeout))

    async def connect(self, **arguments: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection with relayd's codecs, to a primary only. The caller closes it."""
        return await Connector(parse_dsn(self.dsn, self.password), **arguments).connect()

    def configure(self, **settings: str) -> None:
        """ALTER SYSTEM, and a reload."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    async def _execute(self, statement: str, timeout: float) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.dsn, password=self.password, timeout=timeout, command_timeout=timeout)
        try:
            return await connection.fetch(statement)
        finally:
            connection.terminate()

    def _accepts(self) -> bool:
        try:
            self.execute("SELECT 1", timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        return True

    def _children(self) -> list[int]:
        assert self._process
        try:
            listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in listed.split()]

    def _signal(self, number: signal.Signals) -> None:
        # The postmaster first: it must not make new children meanwhile.
        assert self._process
        self._process.send_signal(number)
        for pid in self._children():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def run(work: Any) -> Any:
    """Await something in a test that has no loop."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def stop_all(servers: Iterable[PostgresServer]) -> None:
    """However they stand."""
    for server in servers:
        server.stop(signal.SIGQUIT)
