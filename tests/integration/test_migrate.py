"""Migrations against a real Postgres, with files of the test's own."""

import asyncio

import pytest

from relayd.errors import RelaydError
from relayd.store import migrate
from relayd.store.migrate import Loss, State

FIRST_UP = """
CREATE TABLE fruit (name text PRIMARY KEY);
CREATE FUNCTION ripe() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "0001_fruit.up.sql").write_text(FIRST_UP)
    (tmp_path / "0001_fruit.down.sql").write_text("DROP FUNCTION ripe(); DROP TABLE fruit;")
    (tmp_path / "0002_apple.up.sql").write_text("INSERT INTO fruit VALUES ('apple');")
    (tmp_path / "0002_apple.down.sql").write_text("DELETE FROM fruit WHERE name = 'apple';")
    return tmp_path


@pytest.fixture
async def empty(postgres, database):
    """A database without relayd's own migrations."""
    admin = await database.connect()
    await admin.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await admin.close()
    return database


@pytest.fixture
async def connection(empty):
    opened = await empty.connect()
    yield opened
    await opened.close()


def states(entries):
    return [(entry.version, entry.state) for entry in entries]


async def test_up_applies_in_order_and_only_once(connection, directory):
    applied = await migrate.up(connection, directory=directory)
    assert states(applied) == [(1, State.APPLIED), (2, State.APPLIED)]
    assert all(entry.applied_at for entry in applied)
    assert await connection.fetchval("SELECT name FROM fruit") == "apple"
    assert await migrate.up(connection, directory=directory) == []


async def test_status_and_pending_write_nothing(connection, directory):
    assert states(await migrate.status(connection, directory=directory)) == [(1, State.PENDING), (2, State.PENDING)]
    assert await connection.fetchval("SELECT to_regclass('schema_migrations')") is None
    await migrate.up(connection, 1, directory=directory)
    assert states(await migrate.pending(connection, directory)) == [(2, State.PENDING)]


async def test_down_undoes_the_last_or_all_above_a_target(connection, directory):
    await migrate.up(connection, directory=directory)
    assert [entry.name for entry in await migrate.down(connection, directory=directory)] == ["0002_apple"]
    assert await connection.fetchval("SELECT count(*) FROM fruit") == 0
    await migrate.up(connection, directory=directory)
    undone = await migrate.down(connection, 0, directory=directory)
    assert [entry.version for entry in undone] == [2, 1]
    assert await connection.fetchval("SELECT to_regclass('fruit')") is None
    assert len(await migrate.pending(connection, directory)) == 2


async def test_a_file_changed_after_it_was_applied_is_refused_by_name(connection, directory):
    await migrate.up(connection, directory=directory)
    (directory / "0001_fruit.up.sql").write_text(FIRST_UP + "-- harmless?")
    assert states(await migrate.status(connection, directory=directory))[0] == (1, State.CHANGED)
    with pytest.raises(RelaydError, match="0001_fruit"):
        await migrate.up(connection, directory=directory)


async def test_a_newer_database_is_left_as_it_is(connection, directory):
    await migrate.up(connection, directory=directory)
    for name in ("0002_apple.up.sql", "0002_apple.down.sql"):
        (directory / name).unlink()
    assert await migrate.up(connection, directory=directory) == []
    assert states(await migrate.status(connection, directory=directory)) == [(1, State.APPLIED), (2, State.UNKNOWN)]
    assert await migrate.pending(connection, directory) == []
    with pytest.raises(RelaydError, match="newer relayd"):
        await migrate.down(connection, directory=directory)


@pytest.mark.parametrize(("target", "steps"), [(99, 1), (-1, 1), (3, 1), (None, 0), (None, -2)])
async def test_a_way_back_to_nowhere_is_refused(connection, directory, target, steps):
    await migrate.up(connection, directory=directory)
    with pytest.raises(RelaydError, match=r"there is no migration|--steps"):
        await migrate.down(connection, target, steps=steps, directory=directory)
    assert await connection.fetchval("SELECT name FROM fruit") == "apple"


async def test_what_a_way_back_loses_is_counted_and_nothing_is_done(connection, directory):
    (directory / "0003_pear.up.sql").write_text(
        'ALTER TABLE fruit ADD ripe boolean NOT NULL DEFAULT false, ADD note text; CREATE TABLE "Odd name" (n int);'
    )
    (directory / "0003_pear.down.sql").write_text('DROP TABLE "Odd name"; ALTER TABLE fruit DROP ripe, DROP note;')
    await migrate.up(connection, directory=directory)
    await connection.execute(
        "INSERT INTO fruit VALUES ('pear', true, 'soft'), ('fig', false, NULL);"
        ' INSERT INTO "Odd name" SELECT generate_series(1, 5)'
    )
    last = await migrate.to_undo(connection, directory=directory)
    found = await migrate.losses(connection, last, directory=directory)
    assert found == [Loss("Odd name", 5), Loss("fruit.note", 1), Loss("fruit.ripe", 1)]
    two = await migrate.to_undo(connection, 1, directory=directory)
    assert Loss("fruit", 1) in await migrate.losses(connection, two, directory=directory)
    everything = await migrate.to_undo(connection, 0, directory=directory)
    found = await migrate.losses(connection, everything, directory=directory)
    assert found == [Loss("Odd name", 5), Loss("fruit", 3)]
    assert await migrate.pending(connection, directory) == []
    assert await connection.fetchval("SELECT count(*) FROM fruit WHERE ripe") == 1


async def test_a_missing_down_file_stops_before_anything_is_undone(connection, directory):
    (directory / "0001_fruit.down.sql").unlink()
    await migrate.up(connection, directory=directory)
    with pytest.raises(RelaydError, match=r"0001_fruit\.down\.sql is missing"):
        await migrate.down(connection, 0, directory=directory)
    assert await connection.fetchval("SELECT name FROM fruit") == "apple"


async def test_a_failing_migration_leaves_nothing_and_names_the_line(connection, directory):
    (directory / "0002_apple.up.sql").write_text("INSERT INTO fruit VALUES ('apple');\nSELECT nonsense;\n")
    with pytest.raises(RelaydError, match=r"0002_apple\.up\.sql line 2: .*nonsense"):
        await migrate.up(connection, directory=directory)
    assert await connection.fetchval("SELECT count(*) FROM fruit") == 0
    assert states(await migrate.pending(connection, directory)) == [(2, State.PENDING)]
    (directory / "0002_apple.up.sql").write_text("INSERT INTO fruit VALUES ('apple');")
    assert states(await migrate.up(connection, directory=directory)) == [(2, State.APPLIED)]


async def test_concurrent_ups_run_each_migration_once(empty, directory):
    (directory / "0003_slow.up.sql").write_text("SELECT pg_sleep(0.1); INSERT INTO fruit VALUES ('pear');")
    connections = [await empty.connect() for _ in range(4)]
    applied = await asyncio.gather(*(migrate.up(each, directory=directory) for each in connections))
    assert sorted(len(each) for each in applied) == [0, 0, 0, 3]
    for each in connections:
        await each.close()


@pytest.mark.parametrize("name", ["001_short.up.sql", "0003_Capital.up.sql", "0003_lost.sql", "0003_lonely.down.sql"])
def test_a_misnamed_file_is_refused(directory, name):
    (directory / name).write_text("SELECT 1")
    with pytest.raises(RelaydError, match=name):
        migrate.read_migrations(directory)


def test_two_migrations_of_one_number_are_refused(directory):
    (directory / "0002_banana.up.sql").write_text("SELECT 1")
    with pytest.raises(RelaydError, match="number 2"):
        migrate.read_migrations(directory)
