"""Measure the cases, interleaved: each trial puts the same live mail into a case's database and drains it."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from bench.queue_cost import backlog, plan, product, server
from bench.queue_cost.case import Case, interleaved
from bench.queue_cost.crew import Crew
from relayd.embedded import EmbeddedPostgres
from relayd.store.connection import Connection
from relayd.store.pool import Database

Say = Callable[[str], None]

EXPLAINED_LIVE = 2_000


async def prepare(own: EmbeddedPostgres, cases: Sequence[Case], say: Say) -> dict[Case, UUID]:
    """A database for each case; its upstream."""
    upstreams = {}
    for case in cases:
        say(f"filling {case.database}")
        await server.make_database(own, case.database)
        async with _on(own, case) as (connection, database):
            upstreams[case] = await backlog.fill(connection, database, case)
    return upstreams


async def measure(
    own: EmbeddedPostgres,
    upstreams: Mapping[Case, UUID],
    *,
    rounds: int,
    live: int,
    batch: int,
    say: Say,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """`rounds` trials of each case, each handed to `keep` as it ends."""
    for number, case in interleaved(list(upstreams), rounds):
        async with _on(own, case) as (connection, database):
            await backlog.settle_down(connection)
            await backlog.put_live(connection, database, live)
            crew = Crew(own, server.dsn_of(own, case.database), upstreams[case], batch)
            trial = {"backlog": case.backlog, "mailboxes": case.mailboxes, "round": number, "batch": batch}
            trial |= await crew.drain(connection)
        say(
            f"round {number} {case.database}: {trial['entries_per_second']:.0f}/s,"
            f" {trial['backend_cpu_seconds_per_1000']:.3f} CPU s/1000"
        )
        keep(trial)


async def explain(own: EmbeddedPostgres, upstreams: Mapping[Case, UUID], *, batch: int) -> list[dict[str, Any]]:
    """The claim's plan in each case, over the same live mail. Leaves the mail in the queue."""
    found = []
    for case, upstream_id in upstreams.items():
        async with _on(own, case) as (connection, database):
            await backlog.settle_down(connection)
            await backlog.put_live(connection, database, EXPLAINED_LIVE)
            senders = await backlog.live_senders(connection)
            for step, summed in (await plan.of_claim(connection, upstream_id, senders, batch=batch)).items():
                found.append({"backlog": case.backlog, "mailboxes": case.mailboxes, "step": step, **summed})
    return found


@asynccontextmanager
async def _on(own: EmbeddedPostgres, case: Case) -> AsyncIterator[tuple[Connection, Database]]:
    """A connection of ours, and a pool as workers have it."""
    connection = await server.connect(own, case.database)
    database = await product.open_as_worker(server.dsn_of(own, case.database), own.password, name="bench")
    try:
        yield connection, database
    finally:
        await database.close()
        await connection.close()
