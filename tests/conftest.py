"""What every test may ask for: a real Postgres, one for each xdist worker, and in it a fresh, migrated database.

RELAYD_TEST_POSTGRES=15 (or 18) chooses the major version; by default it is what relayd itself would choose.
"""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from relayd.embedded import EmbeddedPostgres
from relayd.errors import RelaydError
from relayd.store import migrate
from relayd.store.connection import Connection, Connector
from relayd.store.dsn import parse_dsn
from relayd.store.pool import Database

_TEMPLATE = "relayd_template"
_numbers = count(1)

# What takes ten seconds and has a long form of its own. CI runs it; `make test` has to be quick.
at_length = pytest.mark.skipif(
    os.environ.get("RELAYD_TEST_AT_LENGTH") != "1", reason="takes long: RELAYD_TEST_AT_LENGTH=1 runs it"
)


@dataclass(frozen=True)
class FreshDatabase:
    """A database of one test alone. `dsn` has no password in it; `dsn_with_password` does, for child processes."""

    dsn: str
    password: str

    @property
    def dsn_with_password(self) -> str:
        return self.dsn.replace("://relayd@", f"://relayd:{self.password}@")

    def named(self, name: str) -> "FreshDatabase":
        return replace(self, dsn=re.sub(r"(?<=@/)\w+", name, self.dsn))

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection outside any pool, with relayd's codecs. The caller closes it."""
        return await Connector(parse_dsn(self.dsn, self.password), connect_timeout_seconds=60).connect()

    async def open(self, **settings: Any) -> Database:
        """A pool. The caller closes it."""
        return await Database.open(self.dsn, password=self.password, **settings)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The server of this worker: quick, not durable, not to be killed."""
    with state_directory_of_its_own() as state, EmbeddedPostgres(state, durable=False, major=wanted_major()) as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> FreshDatabase:
    """The migrated database that others are copied from. Nobody connects to it: it could not be copied then."""
    main = FreshDatabase(postgres.dsn, postgres.password)
    _run(_execute(main, f"CREATE DATABASE {_TEMPLATE}"))
    _run(_migrate(main.named(_TEMPLATE)))
    return main.named(_TEMPLATE)


@pytest.fixture
async def database(postgres: EmbeddedPostgres, template: FreshDatabase) -> AsyncIterator[FreshDatabase]:
    """A fresh, migrated database of this test's own; dropped afterwards, whoever is still connected."""
    main = FreshDatabase(postgres.dsn, postgres.password)
    name = f"test_{next(_numbers)}"
    await _execute(main, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy")
    yield main.named(name)
    await _execute(main, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def db(database: FreshDatabase) -> AsyncIterator[Database]:
    """A pool on this test's database."""
    opened = await database.open()
    yield opened
    await opened.close()


@pytest.fixture
def own_postgres(state_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A durable server for a test that stops, kills or restarts it: stop(), start(), os.kill(own_postgres.pid, …).

    Its database `relayd` is migrated. After a kill call stop(), then start().
    """
    with EmbeddedPostgres(state_directory, major=wanted_major()) as server:
        _run(_migrate(FreshDatabase(server.dsn, server.password)))
        yield server


@pytest.fixture
def state_directory() -> Iterator[Path]:
    """A state directory with a short path, which the user that Postgres runs as can reach."""
    with state_directory_of_its_own() as path:
        yield path


def wanted_major() -> int | None:
    return int(os.environ.get("RELAYD_TEST_POSTGRES") or 0) or None


@contextmanager
def state_directory_of_its_own() -> Iterator[Path]:
    """As the fixture `state_directory`, for fixtures of a wider scope."""
    path = Path(tempfile.mkdtemp(prefix="relayd-", dir=_quick_directory()))
    # pytest's own directories are closed to the user that root lends to Postgres.
    path.chmod(0o711)
    try:
        yield path / "state"
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _quick_directory() -> str | None:
    """Memory, where there is enough and programs may run in it: copying a database takes a tenth of the time."""
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return None
    is_roomy = found.f_bavail * found.f_frsize >= 2 << 30
    is_open = os.access("/dev/shm", os.W_OK | os.X_OK) and not found.f_flag & os.ST_NOEXEC
    return "/dev/shm" if is_roomy and is_open else None


async def _execute(database: FreshDatabase, statement: str) -> None:
    connection = await database.connect()
    await connection.execute(statement)
    await connection.close()


async def _migrate(database: FreshDatabase) -> None:
    try:
        directory = migrate.find_directory()
    except RelaydError:
        return
    connection: Connection = await database.connect()
    await migrate.up(connection, directory=directory)
    await connection.close()


def _run(work: Any) -> None:
    # Not asyncio.run: it would take away the loop that pytest-asyncio has set.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()
