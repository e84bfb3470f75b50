"""Two real Postgres servers, a primary and its synchronous standby, that change places as often as a test likes."""

import signal
import time
from enum import StrEnum
from pathlib import Path

import asyncpg

from relayd.embedded import cluster
from tests.e2e.house import free_port, wait_until
from tests.peers.postgres_server import PostgresServer, stop_all


class Fate(StrEnum):
    """What becomes of the primary just before its standby is promoted."""

    IMMEDIATE = "immediate"  # stopped without a shutdown
    KILLED = "killed"  # its postmaster was
    HUNG = "hung"  # stands still, and wakes up when it is not the primary any more, not knowing it
    READ_ONLY = "read-only"  # goes on, but takes no writes
    ISOLATED = "isolated"  # goes on, its clients connected, and waits for a standby that has left it


class PostgresPair:
    """Use as a context manager: on entry one is the primary, the other its synchronous standby."""

    def __init__(self, directory: Path, *, major: int | None = None, **settings: str) -> None:
        self.primary = PostgresServer(directory / "a", free_port(), major=major, **settings)
        self.standby = PostgresServer(directory / "b", free_port(), major=major, **settings)
        self._servers = (self.primary, self.standby)

    def __enter__(self) -> "PostgresPair":
        try:
            self.primary.initialise()
            self.primary.start()
            self.rebuild()
        except BaseException:
            stop_all(self._servers)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop_all(self._servers)

    @property
    def dsn(self) -> str:
        """Always in the same order. Without the password."""
        hosts = ",".join(server.host for server in self._servers)
        return f"postgresql://{cluster.USER}@{hosts}/{cluster.DATABASE}?target_session_attrs=read-write"

    @property
    def password(self) -> str:
        return self.primary.password

    def fail_over(self, fate: Fate) -> None:
        """The standby is the primary when this returns. What it replaced may live on: see `rebuild`."""
        match fate:
            case Fate.IMMEDIATE:
                self.primary.stop(signal.SIGQUIT)
            case Fate.KILLED:
                self.primary.stop(signal.SIGKILL)
            case Fate.HUNG:
                self.primary.hang()
            case Fate.READ_ONLY:
                self.primary.configure(default_transaction_read_only="on")
            case Fate.ISOLATED:
                pass
        # As a cluster manager does: the only server left must not wait for a standby.
        self.standby.configure(synchronous_standby_names="")
        self.standby.execute("SELECT pg_promote(true, 60)")
        self.primary, self.standby = self.standby, self.primary

    def rebuild(self) -> None:
        """Whatever the former primary is, it becomes the standby, and is waited for from now on."""
        self.standby.stop(signal.SIGQUIT)
        self.standby.clone(self.primary)
        self.standby.start()
        wait_until(self._is_streaming, what="replication")
        self.primary.configure(synchronous_standby_names="*")
        wait_until(self._is_synchronous, what="synchronous replication")
        # Once a commit was waited for, all that were before it are there.
        self.primary.execute("SELECT pg_logical_emit_message(true, 'test', '')")

    def _is_streaming(self) -> bool:
        return bool(self.primary.execute("SELECT FROM pg_stat_replication WHERE state = 'streaming'"))

    def _is_synchronous(self) -> bool:
        return bool(self.primary.execute("SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"))


def seconds_until_writable(pair: PostgresPair, since: float) -> float:
    """When the new primary takes writes, counted from `since` (monotonic)."""
    while True:
        try:
            pair.primary.execute("SELECT pg_logical_emit_message(true, 'test', '')", timeout=2)
            return time.monotonic() - since
        except (OSError, TimeoutError, asyncpg.PostgresError):
            time.sleep(0.05)
