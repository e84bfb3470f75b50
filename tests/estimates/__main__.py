"""`python -m tests.estimates`: a thousand entries under every kind of limit; how far `explain` was off, as a table.

It starts and stops a Postgres of its own.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from statistics import quantiles

from relayd.embedded import EmbeddedPostgres
from relayd.store import migrate
from relayd.store.pool import Database
from tests.conftest import FreshDatabase, state_directory_of_its_own, wanted_major
from tests.estimates import scene
from tests.estimates.day import Left, run

MOST_DAYS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every entry left."""
    parser = argparse.ArgumentParser(prog="python -m tests.estimates", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000)
    options = parser.parse_args(arguments)
    with state_directory_of_its_own() as state, EmbeddedPostgres(state, durable=False, major=wanted_major()) as server:
        left, total = asyncio.run(_measure(FreshDatabase(server.dsn, server.password), options.entries))
    _table("waited for", left, lambda one: one.kind or "nothing")
    _table("mailbox", left, lambda one: one.mailbox)
    _write(f"\n{len(left)} of {total} left within {MOST_DAYS} days")
    return 0 if len(left) == total else 1


async def _measure(database: FreshDatabase, entries: int) -> tuple[list[Left], int]:
    connection = await database.connect()
    await migrate.up(connection, directory=migrate.find_directory())
    await connection.close()
    db: Database = await database.open()
    async with db.connection() as pooled:
        await scene.furnish(pooled, entries)
        total: int = await pooled.fetchval("SELECT count(*) FROM email_queue")
    left = await run(db, most_days=MOST_DAYS)
    await db.close()
    return left, total


def _table(title: str, left: Sequence[Left], group: Callable[[Left], str]) -> None:
    _write(f"\n| {title} | entries | p50 | p90 | p99 | largest | left before its time by more than a minute |")
    _write("|---|---|---|---|---|---|---|")
    for name in [*sorted({group(one) for one in left}), "all"]:
        errors = sorted(one.late_seconds for one in left if name in (group(one), "all"))
        sizes = sorted(abs(error) for error in errors)
        cuts = quantiles(sizes, n=100, method="inclusive") if len(sizes) > 1 else sizes * 99
        early = sum(error < -60 for error in errors)
        shown = " | ".join(_span(seconds) for seconds in (cuts[49], cuts[89], cuts[98], sizes[-1]))
        _write(f"| {name} | {len(sizes)} | {shown} | {early} |")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
