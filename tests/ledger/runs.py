"""Histories on a Postgres of their own, in a process of their own: whoever starts one does so from its main thread."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from relayd.embedded import EmbeddedPostgres
from relayd.store import migrate
from tests.conftest import FreshDatabase, state_directory_of_its_own, wanted_major
from tests.ledger.bugs import planted
from tests.ledger.history import Told, run

# Histories in which a planted bug has to show.
TRIES = 60


def histories(seeds: Sequence[str], events: int, bug: str | None) -> list[Told]:
    """One after the other, each on a database of its own."""
    with postgres() as main, planted(bug):
        return [asyncio.run(_on_its_own(main, number, seed, events)) for number, seed in enumerate(seeds)]


def catch(bug: str, seed: str, events: int) -> Told | None:
    """The first history in which it shows."""
    with postgres() as main, planted(bug):
        for number in range(TRIES):
            told = asyncio.run(_on_its_own(main, number, f"{seed}-{bug}-{number}", events))
            if told.fault:
                return told
    return None


async def _on_its_own(main: FreshDatabase, number: int, seed: str, events: int) -> Told:
    connection = await main.connect()
    await connection.execute(f"CREATE DATABASE history_{number} TEMPLATE template_ledger STRATEGY file_copy")
    try:
        return await run(main.named(f"history_{number}"), seed, events)
    finally:
        await connection.execute(f"DROP DATABASE history_{number} WITH (FORCE)")
        await connection.close()


@contextmanager
def postgres() -> Iterator[FreshDatabase]:
    """A server of our own; its database is migrated, and so is the template."""
    with state_directory_of_its_own() as state, EmbeddedPostgres(state, durable=False, major=wanted_major()) as server:
        main = FreshDatabase(server.dsn, server.password)
        asyncio.run(_set_up(main))
        yield main


async def _set_up(main: FreshDatabase) -> None:
    connection = await main.connect()
    # What comes when it likes would make other plans, and two histories of one seed.
    await connection.execute("ALTER SYSTEM SET autovacuum = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.execute("CREATE DATABASE template_ledger")
    for database in (main, main.named("template_ledger")):
        each = await database.connect()
        await migrate.up(each, directory=migrate.find_directory())
        await each.close()
    await connection.close()
