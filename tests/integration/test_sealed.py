"""The registry of sealed columns, and the exchange of one value for another."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from relayd.seal import Seal, new_key, parse_key
from relayd.store import nodes, sealcheck, sealed, upstreams
from relayd.store.connection import Connection
from relayd.store.ids import new_id
from relayd.store.locks import held, node_lock
from relayd.store.pool import Database
from relayd.store.sealed import SEALED_COLUMNS, SealedColumn, SealedValue
from relayd.store.upstreams import UpstreamRecord

CATALOGUE = """
SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN information_schema.tables t
 USING (table_schema, table_name)
 WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.column_name LIKE '%\\_sealed'
"""
PASSWORDS = SEALED_COLUMNS[0]


async def add_passwords(connection: Connection, seal: Seal, *passwords: bytes) -> list[UUID]:
    keys = []
    for number, password in enumerate(passwords):
        upstream = UpstreamRecord(
            new_id(), f"out{number}", "smtp_relay", smtp_host="h", smtp_port=25, smtp_tls="none", smtp_username="u"
        )
        row = PASSWORDS.row(upstream.id)
        assert row == upstream.seal_row("smtp_password")
        await upstreams.add(connection, _with_password(upstream, seal.seal(password, row=row)))
        keys.append(upstream.id)
    return sorted(keys)


def _with_password(upstream: UpstreamRecord, value: bytes) -> UpstreamRecord:
    return replace(upstream, smtp_password_sealed=value)


@pytest.fixture
def seal() -> Seal:
    return Seal(parse_key(new_key().encode()))


async def test_every_sealed_column_of_the_database_is_in_the_registry(db: Database) -> None:
    async with db.connection() as connection:
        found = {tuple(row) for row in await connection.fetch(CATALOGUE)}
    assert found == {(each.table, each.column) for each in SEALED_COLUMNS}


@pytest.mark.parametrize("column", SEALED_COLUMNS, ids=str)
async def test_every_statement_of_the_registry_runs(db: Database, column: SealedColumn, seal: Seal) -> None:
    value = SealedValue(new_id(), "label", seal.seal(b"x", row="a/b/c"))
    async with db.connection() as connection:
        assert await sealed.count(connection, column) == {}
        assert await sealed.read(connection, column, None, 10) == []
        assert await sealed.read_again(connection, column, [value.key]) == []
        assert await sealed.exchange(connection, column, [(value, b"y")]) == set()


async def test_values_are_read_in_order_and_from_where_the_last_ended(db: Database, seal: Seal) -> None:
    async with db.connection() as connection:
        keys = await add_passwords(connection, seal, b"a", b"b", b"c")
        first = await sealed.read(connection, PASSWORDS, None, 2)
        rest = await sealed.read(connection, PASSWORDS, first[-1].key, 2)
        assert [value.key for value in (*first, *rest)] == keys
        assert await sealed.count(connection, PASSWORDS) == {seal.current_id: 3}
        assert "sealed=" not in repr(first[0])


async def test_only_a_value_that_still_stands_is_exchanged(db: Database, seal: Seal) -> None:
    async with db.connection() as connection:
        keys = await add_passwords(connection, seal, b"a", b"b")
        stale, fresh = await sealed.read(connection, PASSWORDS, None, 2)
        await connection.execute(
            "UPDATE email_configurations SET smtp_password_sealed = 'theirs' WHERE id = $1", keys[0]
        )
        assert await sealed.exchange(connection, PASSWORDS, [(stale, b"ours"), (fresh, b"ours")]) == {keys[1]}
        values = await sealed.read_again(connection, PASSWORDS, keys)
        assert [value.sealed for value in values] == [b"theirs", b"ours"]


async def test_an_exchange_waits_for_a_change_under_way_and_leaves_it(db: Database, seal: Seal) -> None:
    async with db.connection() as connection:
        (key,) = await add_passwords(connection, seal, b"a")
        (value,) = await sealed.read(connection, PASSWORDS, None, 1)

    async def exchange() -> set[UUID]:
        async with db.transaction() as connection:
            return await sealed.exchange(connection, PASSWORDS, [(value, b"ours")])

    async with db.transaction() as changing:
        found = await upstreams.find_to_change(changing, "out0")
        exchanging = asyncio.create_task(exchange())
        await until_one_waits(changing)
        await upstreams.save(changing, _with_password(found, b"theirs"))
    assert await exchanging == set()
    async with db.connection() as connection:
        assert (await sealed.read_again(connection, PASSWORDS, [key]))[0].sealed == b"theirs"


async def test_a_living_node_is_known_by_its_keys_and_a_dead_one_is_not(db: Database) -> None:
    async with db.transaction() as connection:
        await nodes.tell(connection, "a", ["11111111", "22222222"])
        await nodes.tell(connection, "b", ["33333333"])
    async with db.connection() as connection, held(connection, node_lock("a")), db.connection() as other:
        known, silent = await nodes.living(other)
        assert [(node.name, node.sealing_key, node.opening_keys) for node in known] == [
            ("a", "11111111", ("11111111", "22222222"))
        ]
        assert silent == 0


async def test_a_node_that_does_not_say_which_keys_it_has_is_counted(db: Database) -> None:
    async with db.connection() as connection, held(connection, node_lock("old")), db.connection() as other:
        assert await nodes.living(other) == ([], 0)  # any other lock of relayd's is not a node
        await connection.execute(f"SET application_name = '{nodes.APPLICATION}'")
        assert await nodes.living(other) == ([], 1)
        await connection.execute("RESET application_name")


async def test_a_node_that_starts_waits_for_the_beginning_of_a_rotation(db: Database) -> None:
    async def tell() -> bytes | None:
        async with db.transaction() as connection:
            await nodes.tell(connection, "late", ["11111111"])
        async with db.connection() as connection:
            return await sealcheck.read(connection)

    async with db.connection() as connection:
        await sealcheck.write(connection, b"former")
    async with db.transaction() as rotating:
        await sealcheck.replace(rotating, b"former", b"new")
        telling = asyncio.create_task(tell())
        await until_one_waits(rotating)
    assert await telling == b"new"


async def until_one_waits(connection: Connection) -> None:
    """Until a lock of a row is waited for."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    async with asyncio.timeout(30):
        while not await connection.fetchval(waiting):
            await asyncio.sleep(0.01)
