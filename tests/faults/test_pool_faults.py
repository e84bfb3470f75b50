"""The pool between servers that hang, lag, are crowded, or were replaced."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from relayd.errors import StoreFull, StoreUnavailable
from relayd.store import locks
from relayd.store.pool import Database
from tests.e2e.house import wait_until
from tests.faults.crowd import Crowd
from tests.peers.postgres_pair import Fate, PostgresPair
from tests.peers.postgres_server import PostgresServer
from tests.peers.proxy import Proxy

PORT = "SELECT inet_server_port()"


@contextlib.asynccontextmanager
async def opened(dsn: str, password: str, **settings: Any) -> AsyncIterator[Database]:
    database = await Database.open(dsn, password=password, **settings)
    try:
        yield database
    finally:
        await database.close()


async def _port(database: Database) -> int:
    async with database.transaction() as connection:
        port: int = await connection.fetchval(PORT)
        return port


async def test_one_use_that_hangs_frees_all_others_of_that_server(server: PostgresServer) -> None:
    """Each would wait its own time limit, one after the other."""
    with Proxy(server.port) as proxy:
        dsn = server.dsn.replace(server.host, f"127.0.0.1:{proxy.port}")
        async with opened(dsn, server.password, statement_timeout_seconds=0.5, connect_timeout_seconds=1) as database:
            proxied = asyncio.Event()

            async def use(statement: str) -> None:
                async with database.transaction() as connection:
                    await connection.execute("SELECT 1")
                    await proxied.wait()
                    await connection.execute(statement)

            async def idle() -> None:
                async with database.connection() as connection:
                    await proxied.wait()
                    with pytest.raises(StoreUnavailable):
                        await using[0]
                    # It asked for nothing just then, and was cut off too.
                    with pytest.raises(asyncpg.InterfaceError, match="released"):
                        connection.is_closed()

            using = [asyncio.create_task(use(f"SELECT {number}")) for number in range(3)]
            idling = asyncio.create_task(idle())
            await asyncio.sleep(0.5)
            proxy.fall_silent()
            proxied.set()
            results = await asyncio.gather(*using, return_exceptions=True)
            assert {type(result) for result in results} == {StoreUnavailable}
            await idling
            with pytest.raises(StoreUnavailable):
                await _port(database)
            proxy.speak()
            assert await _port(database) == server.port


async def test_a_primary_that_was_overtaken_is_not_used_again_even_if_it_is_the_only_one_that_answers(
    pair: PostgresPair,
) -> None:
    former, port = pair.primary, pair.primary.port
    async with opened(pair.dsn, pair.password, statement_timeout_seconds=0.5) as database:
        assert await _port(database) == port
        await asyncio.to_thread(pair.fail_over, Fate.ISOLATED)
        # A commit waits for the standby that has left, and what it says when it is given up is no success.
        with pytest.raises(StoreUnavailable):
            async with database.connection() as connection:
                await connection.execute("CREATE TABLE t ()")
        assert await _port(database) == pair.primary.port != port
        await asyncio.to_thread(pair.primary.stop)
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"standby was promoted|Postgres is unavailable"):
                await _port(database)
        assert former.is_running


async def test_commits_given_up_while_their_standby_is_away_hold_no_connections(server: PostgresServer) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'relayd'"
    await asyncio.to_thread(server.execute, "CREATE TABLE t (n integer)")
    await asyncio.to_thread(server.configure, synchronous_standby_names="*")

    async def insert() -> None:
        async with database.connection() as connection:
            await connection.execute("INSERT INTO t VALUES (1)")

    async with opened(server.dsn, server.password, statement_timeout_seconds=0.5) as database:
        results = await asyncio.gather(*(insert() for _ in range(5)), return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailable}
        await asyncio.to_thread(
            wait_until, lambda: not server.execute(waiting), what="an end of commits that nobody waits for"
        )


async def test_a_crowded_server_is_asked_again_while_we_hold_a_connection_to_it(server: PostgresServer) -> None:
    crowd = Crowd(server)
    async with opened(server.dsn, server.password, max_size=2, acquire_timeout_seconds=30) as database:
        try:
            async with database.connection() as held:
                await asyncio.to_thread(crowd.enter, throwing_out=False)
                waiting = asyncio.create_task(_port(database))
                # It finds out that there is no other by then, and must not give up.
                await asyncio.sleep(0.5)
                assert await held.fetchval(PORT) == server.port
            assert await waiting == server.port
        finally:
            await asyncio.to_thread(crowd.close)
    async with opened(server.dsn, server.password) as database:
        assert await _port(database) == server.port


async def test_a_lock_on_a_server_that_takes_no_writes_any_more_is_lost(server: PostgresServer) -> None:
    async with (
        opened(server.dsn, server.password) as database,
        database.connection() as connection,
        locks.held(connection, locks.UPKEEP) as ours,
    ):
        assert ours

        async def keep() -> None:
            while True:
                await locks.touch(connection)
                await asyncio.sleep(0.01)

        keeping = asyncio.create_task(keep())
        await asyncio.to_thread(server.configure, default_transaction_read_only="on")
        with pytest.raises(StoreUnavailable, match="no writes"):
            await asyncio.wait_for(keeping, 30)


async def test_a_session_tells_its_server_to_notice_when_we_are_gone(server: PostgresServer) -> None:
    async with opened(server.dsn, server.password) as database, database.connection() as connection:
        names = ("tcp_keepalives_idle", "tcp_user_timeout", "client_min_messages")
        shown = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
    assert shown == ["10", "25000", "warning"]


async def test_a_full_disk_is_told_apart(server: PostgresServer) -> None:
    async with opened(server.dsn, server.password) as database:
        with pytest.raises(StoreFull, match="53100"):
            async with database.transaction() as connection:
                await connection.execute("DO $$ BEGIN RAISE 'No space left on device' USING ERRCODE = '53100'; END $$")
