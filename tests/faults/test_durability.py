"""What Postgres says is committed, and is not: seen on real servers, at the pool and at the daemon's start."""

import asyncio
import contextlib
import urllib.request
from typing import Any

import asyncpg
import pytest

from relayd.errors import StoreUnavailable
from relayd.store import durability
from relayd.store.pool import Database
from tests.e2e.house import House, wait_until
from tests.peers.postgres_server import PostgresServer, run

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'relayd'"


@contextlib.asynccontextmanager
async def opened(server: PostgresServer, **settings: Any) -> Any:
    database = await Database.open(server.dsn, password=server.password, **settings)
    try:
        yield database
    finally:
        await database.close()


async def _waits_for_its_standby(server: PostgresServer) -> int:
    # A thread: the server's own helper brings its own loop.
    found = await asyncio.to_thread(
        wait_until, lambda: server.execute(WAITING), what="a commit that waits for its standby"
    )
    pid: int = found[0]["pid"]
    return pid


@pytest.mark.parametrize("is_transaction", [True, False])
async def test_a_commit_whose_wait_for_the_standby_was_cancelled_is_not_taken_for_durable(
    server: PostgresServer, is_transaction: bool
) -> None:
    """The statement itself succeeds: asyncpg raises nothing, which `plain` shows."""
    await asyncio.to_thread(server.execute, "CREATE TABLE t (n integer)")
    await asyncio.to_thread(server.configure, synchronous_standby_names="*")

    async def cancel() -> None:
        pid = await _waits_for_its_standby(server)
        await asyncio.to_thread(server.execute, f"SELECT pg_cancel_backend({pid})")

    plain = await asyncpg.connect(server.dsn, password=server.password, server_settings={"application_name": "relayd"})
    _, status = await asyncio.gather(cancel(), plain.execute("INSERT INTO t VALUES (1)"))
    assert status == "INSERT 0 1"
    await plain.close()

    async def insert(database: Database) -> None:
        async with database.transaction() if is_transaction else database.connection() as connection:
            await connection.execute("INSERT INTO t VALUES (2)")

    async with opened(server) as database:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="standby may not have it"):
                await asyncio.gather(insert(database), cancel())
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM t") == 3


async def test_a_shutdown_in_the_middle_of_such_a_wait_is_no_success(server: PostgresServer) -> None:
    await asyncio.to_thread(server.execute, "CREATE TABLE t (n integer)")
    await asyncio.to_thread(server.configure, synchronous_standby_names="*")
    async with opened(server) as database:

        async def insert() -> None:
            async with database.connection() as connection:
                await connection.execute("INSERT INTO t VALUES (1)")

        inserting = asyncio.create_task(insert())
        await _waits_for_its_standby(server)
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreUnavailable):
            await inserting


# Where it is set, how it is taken back, and what is said of it.
UNSAFE = [
    ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM RESET fsync", "fsync = off"),
    ("ALTER SYSTEM SET full_page_writes = off", "ALTER SYSTEM RESET full_page_writes", "full_page_writes = off"),
    ("ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM RESET synchronous_commit", "synchronous_commit = off"),
    (
        "ALTER DATABASE relayd SET synchronous_commit = off",
        "ALTER DATABASE relayd RESET synchronous_commit",
        "synchronous_commit = off",
    ),
    (
        "ALTER ROLE relayd SET synchronous_commit = off",
        "ALTER ROLE relayd RESET synchronous_commit",
        "synchronous_commit = off",
    ),
]


def test_settings_that_lose_mail_are_seen_wherever_they_are_set(server: PostgresServer) -> None:
    def change(statement: str) -> None:
        server.execute(statement)
        server.execute("SELECT pg_reload_conf()")

    assert run(_warnings(server)) == []
    for unsafe, safe, words in UNSAFE:
        change(unsafe)
        # A reload takes a moment.
        [text] = wait_until(lambda: run(_warnings(server)), what=f"the warning after {unsafe}")
        assert words in text and "set " in text
        change(safe)
        wait_until(lambda: not run(_warnings(server)), what=f"no warning after {safe}")


async def test_a_dsn_and_a_standby_that_is_not_waited_for_are_seen(server: PostgresServer) -> None:
    assert "synchronous_commit = off" in (await _warnings(server, "?synchronous_commit=off"))[0]
    await asyncio.to_thread(server.configure, synchronous_standby_names="nobody")
    found = await _warnings(server, "?synchronous_commit=local")
    assert "does not wait for its standby" in found[0]
    async with opened(server) as database, database.connection() as connection:
        assert await durability.warnings(connection, has_several_hosts=True) == []
    await asyncio.to_thread(server.configure, synchronous_standby_names="")
    async with opened(server) as database, database.connection() as connection:
        assert "waits for no standby" in (await durability.warnings(connection, has_several_hosts=True))[0]


def test_the_operator_is_told_at_the_start_and_by_a_metric(server: PostgresServer) -> None:
    server.execute("ALTER ROLE relayd SET synchronous_commit = off")
    house = House(server.dsn, server.password, processes=1)
    try:
        house.migrate()
        house.start()
        assert "synchronous_commit = off" in house.log_text()
        assert "relayd_database_durable 0.0" in _page(house, "metrics")
    finally:
        house.close()


def _page(house: House, name: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{house.http_port}/{name}", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


async def _warnings(server: PostgresServer, options: str = "") -> list[str]:
    database = await Database.open(server.dsn + options, password=server.password)
    try:
        async with database.connection() as connection:
            return await durability.warnings(connection)
    finally:
        await database.close()
