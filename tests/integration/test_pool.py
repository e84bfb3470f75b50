"""The pool against a real Postgres that refuses, stops, fills up and comes back."""

import asyncio
import contextlib
import os
import signal
import socket
import uuid

import asyncpg
import pytest

from relayd.errors import RelaydError, StoreUnavailable
from relayd.store.pool import Database


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.asynccontextmanager
async def opened(database, dsn=None, **settings):
    db = await Database.open(dsn or database.dsn, **{"password": database.password, **settings})
    try:
        yield db
    finally:
        await db.close()


@contextlib.asynccontextmanager
async def server_that_answers(error: bytes):
    """A server that answers every start-up message with this ErrorResponse."""

    async def answer(reader, writer):
        await reader.read(1000)
        writer.write(b"E" + (len(error) + 4).to_bytes(4, "big") + error)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def with_first_host(dsn: str, first: str) -> str:
    """The DSN with a host in front of its own, which is a socket."""
    return dsn.replace("?host=", f"?host={first},")


async def test_a_transaction_commits_and_an_error_rolls_back(db):
    async with db.connection() as connection:
        await connection.execute("CREATE TABLE t (n integer)")
    async with db.transaction() as connection:
        await connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(LookupError):  # noqa: PT012
        async with db.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (2)")
            raise LookupError
    async with db.connection() as connection:
        assert [row["n"] for row in await connection.fetch("SELECT n FROM t")] == [1]


async def test_json_uuid_and_bytes_go_in_and_out_by_parameter_and_by_copy(db):
    value, key = {"a": [1, None, "ä"]}, uuid.uuid4()
    async with db.transaction() as connection:
        await connection.execute("CREATE TEMP TABLE t (k uuid, b jsonb, j json, x bytea)")
        await connection.execute("INSERT INTO t VALUES ($1, $2, $3, $4)", key, value, value, b"\0\xff")
        await connection.copy_records_to_table("t", records=[(key, value, value, b"\0\xff")])
        assert await connection.fetchval("SELECT array_agg(b) FROM t") == [value, value]
        rows = await connection.fetch("SELECT * FROM t")
    assert [tuple(row) for row in rows] == [(key, value, value, b"\0\xff")] * 2


async def test_bugs_are_not_taken_for_an_outage(db):
    async with db.connection() as connection:
        await connection.execute("CREATE TABLE t (n integer PRIMARY KEY)")
        await connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with db.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(asyncpg.DataError):
        async with db.connection() as connection:
            await connection.execute("INSERT INTO t VALUES ($1)", "not a number")
    with pytest.raises(asyncpg.InterfaceError, match="in progress"):
        async with db.connection() as connection:
            await asyncio.gather(connection.execute("SELECT pg_sleep(0.1)"), connection.execute("SELECT 1"))


async def test_a_full_pool_is_unavailable_after_the_timeout(database):
    async with opened(database, max_size=1, acquire_timeout_seconds=0.05) as db, db.connection():
        with pytest.raises(StoreUnavailable, match="1 of 1 in use"):
            async with db.connection():
                pass


async def test_a_statement_that_takes_too_long_is_unavailable(database):
    async with opened(database, statement_timeout_seconds=0.05) as db:
        with pytest.raises(StoreUnavailable, match="57014"):
            async with db.connection() as connection:
                await connection.execute("SELECT pg_sleep(60)")


async def test_a_session_cut_off_by_the_server_is_unavailable_and_replaced(database):
    async with opened(database, max_size=1) as db:
        with pytest.raises(StoreUnavailable):  # noqa: PT012
            async with db.transaction() as connection:
                admin = await database.connect()
                await admin.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
                await admin.close()
                await connection.execute("SELECT 1")
        async with db.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_server_that_stops_is_unavailable_and_the_pool_heals_when_it_is_back(own_postgres, tmp_path):
    dsn, password = own_postgres.dsn, own_postgres.password
    db = await Database.open(dsn, password=password)
    async with db.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    own_postgres.stop()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            async with db.connection() as connection:
                await connection.execute("SELECT 1")
    own_postgres.start()
    assert (own_postgres.dsn, own_postgres.password) == (dsn, password)
    async with db.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    os.kill(own_postgres.pid, signal.SIGKILL)
    own_postgres.stop()
    own_postgres.start()
    # The pooled session died with its server, which the first use may find out.
    for _ in range(2):
        with contextlib.suppress(StoreUnavailable):
            async with db.connection() as connection:
                await connection.execute("SELECT 1")
    async with db.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    assert await db.check(tmp_path) == []
    await db.close()


async def test_a_dead_first_host_is_passed_over(database):
    dsn = with_first_host(database.dsn, f"127.0.0.1:{closed_port()}")
    async with opened(database, dsn) as db, db.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("sqlstate", ["53300", "57P03"])
async def test_a_first_host_that_takes_nobody_is_passed_over(database, sqlstate):
    error = b"SFATAL\0C" + sqlstate.encode() + b"\0Mnot now\0\0"
    async with server_that_answers(error) as port:
        dsn = with_first_host(database.dsn, f"127.0.0.1:{port}")
        async with opened(database, dsn, ssl="disable") as db, db.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_server_that_takes_no_writes_is_not_used(database):
    admin = await database.connect()
    await admin.execute(
        f"ALTER DATABASE {await admin.fetchval('SELECT current_database()')} SET default_transaction_read_only = on"
    )
    await admin.close()
    async with opened(database) as db:
        with pytest.raises(StoreUnavailable, match="takes no writes"):
            async with db.connection():
                pass


async def test_after_a_failover_every_pooled_connection_is_replaced(database):
    async with opened(database, max_size=2) as db:
        async with db.connection() as first, db.connection() as second:
            old = {first.get_server_pid(), second.get_server_pid()}
        with pytest.raises(StoreUnavailable, match="25006"):  # noqa: PT012
            async with db.transaction() as connection:
                await connection.execute("SET TRANSACTION READ ONLY")
                await connection.execute("CREATE TABLE t ()")
        async with db.connection() as first, db.connection() as second:
            assert old.isdisjoint({first.get_server_pid(), second.get_server_pid()})


async def test_check_names_a_wrong_password_without_showing_it(database):
    async with opened(database, database.dsn.replace("relayd@", "relayd:tops3cret@"), password=None) as db:
        with pytest.raises(RelaydError, match="refuses the user or the password") as caught:
            await db.check()
        assert not isinstance(caught.value, StoreUnavailable)
        with pytest.raises(StoreUnavailable) as caught_later:
            async with db.connection():
                pass
        shown = f"{caught.value} {caught_later.value} {db.safe_dsn()}"
    assert "tops3cret" not in shown
    assert "relayd@" in shown


async def test_check_names_a_missing_database(database):
    async with opened(database, database.named("nowhere").dsn) as db:
        with pytest.raises(RelaydError, match=r"nowhere.*does not exist") as caught:
            await db.check()
    assert not isinstance(caught.value, StoreUnavailable)


async def test_check_tells_a_refused_connection_and_an_unknown_host(database):
    port = closed_port()
    for host in (f"127.0.0.1:{port}", "no-such-host.invalid"):
        async with opened(database, f"postgresql://u:tops3cret@{host}/m") as db:
            with pytest.raises(StoreUnavailable, match=host) as caught:
                await db.check()
        assert "tops3cret" not in str(caught.value)


async def test_check_names_missing_migrations(database, tmp_path):
    (tmp_path / "9999_later.up.sql").write_text("SELECT 1")
    async with opened(database) as db:
        with pytest.raises(RelaydError, match=r"9999_later.*relayd migrate up"):
            await db.check(tmp_path)


async def test_check_warns_of_settings_that_lose_mail(database, tmp_path):
    async with opened(database) as db:
        warnings = await db.check(tmp_path)
    assert [name for name in ("fsync", "full_page_writes", "synchronous_commit") if name in " ".join(warnings)] == [
        "fsync",
        "full_page_writes",
        "synchronous_commit",
    ]


async def test_check_refuses_a_server_too_old(database, tmp_path, monkeypatch):
    monkeypatch.setattr("relayd.store.pool.OLDEST_SERVER", 99)
    async with opened(database) as db:
        with pytest.raises(RelaydError, match="relayd needs 99 or newer"):
            await db.check(tmp_path)


async def test_server_settings_reach_every_session(database):
    settings = {"enable_seqscan": "off", "jit": "off"}
    async with opened(database, application_name="worker 3", server_settings=settings) as db:
        for _ in range(2):
            async with db.connection() as connection:
                names = ("enable_seqscan", "application_name", "statement_timeout")
                shown = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
                assert shown == ["off", "worker 3", "10s"]


async def test_a_closed_pool_is_unavailable(database):
    db = await database.open()
    await db.close()
    with pytest.raises(StoreUnavailable):
        async with db.connection():
            pass


async def test_opening_never_connects():
    db = await Database.open(f"postgresql://u@127.0.0.1:{closed_port()}/m")
    await db.close()
