"""The Postgres that is measured: started here, durable, on a disk; gone with its data when the run ends.

No other is ever used: there is no option for a DSN, and the environment's is not read.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relayd.embedded import EmbeddedPostgres
from relayd.errors import RelaydError
from relayd.store import migrate
from relayd.store.connection import Connection, Connector
from relayd.store.dsn import parse_dsn

_IN_MEMORY = ("tmpfs", "ramfs")
_SETTINGS = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "wal_compression",
    "autovacuum_naptime",
)


@contextmanager
def own_server(scratch: Path, *, octets: int, major: int | None) -> Iterator[EmbeddedPostgres]:
    """A fresh server in a directory of its own below `scratch`. Raises RelaydError where nothing true can be measured.

    Call in the main thread.
    """
    _refuse_unfit(scratch, octets)
    # SIGTERM as Ctrl-C: what was started is stopped, what was written is removed. A shell's background job has
    # inherited that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    directory = Path(tempfile.mkdtemp(prefix="relayd-cost-", dir=scratch))
    # Open to the user that root lends to Postgres.
    directory.chmod(0o711)
    try:
        with EmbeddedPostgres(directory / "state", major=major) as server:
            try:
                yield server
            finally:
                # Whoever asks again while it ends has to wait: half an end would leave a server or its data behind.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def connect(server: EmbeddedPostgres, database: str) -> Connection:
    """A connection outside any pool. The caller closes it."""
    return await Connector(parse_dsn(dsn_of(server, database), server.password), connect_timeout_seconds=30).connect()


def dsn_of(server: EmbeddedPostgres, database: str) -> str:
    """Without the password."""
    return server.dsn.replace("@/relayd?", f"@/{database}?")


async def make_database(server: EmbeddedPostgres, name: str, *, target: int | None = None) -> None:
    """A fresh database with relayd's migrations, the last of them `target`."""
    main = await connect(server, "relayd")
    try:
        await main.execute(f"CREATE DATABASE {name}")
    finally:
        await main.close()
    connection = await connect(server, name)
    try:
        await migrate.up(connection, target)
        # The next noon: a run that passed midnight would find every limit fresh.
        await connection.execute(_NOON)
    finally:
        await connection.close()


async def described(connection: Connection) -> dict[str, str]:
    """Its version and the settings that decide what a commit costs."""
    found = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in _SETTINGS}
    return {"version": await connection.fetchval("SHOW server_version"), **found}


# Forwards, never back: ids carry the machine's time, and are not to seem younger than their rows.
_NOON = """
UPDATE relayd_state SET clock_offset = date_trunc('day', now() + interval '12 hours') + interval '12 hours' - now()
"""


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that holds `path`; `mounts` as the kernel lists them."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, found, *_ = line.split()
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _refuse_unfit(scratch: Path, octets: int) -> None:
    kind = file_system(scratch.resolve(), Path("/proc/self/mounts").read_text())
    if kind in _IN_MEMORY:
        raise RelaydError(f"{scratch} is memory ({kind}), where a commit costs nothing: name a disk with --scratch")
    free = shutil.disk_usage(scratch).free
    if free < octets:
        raise RelaydError(
            f"{scratch} has {free >> 30} GiB free, {octets >> 30} GiB are needed: use a smaller --largest"
        )
