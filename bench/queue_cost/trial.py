"""Measure the cases, interleaved: each trial puts the same live mail into a case's database and drains it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from bench.queue_cost import backlog, plan, product, server
from bench.queue_cost.case import Case, interleaved
from bench.queue_cost.crew import Crew
from relayd.embedded import EmbeddedPostgres

Say = Callable[[str], None]


async def prepare(own: EmbeddedPostgres, cases: Sequence[Case], say: Say) -> dict[Case, UUID]:
    """A database for each case; its upstream."""
    upstreams = {}
    for case in cases:
        say(f"filling {case.database}")
        await server.make_database(own, case.database)
        connection = await server.connect(own, case.database)
        database = await product.open_as_worker(server.dsn_of(own, case.database), own.password, name="bench/fill")
        try:
            upstreams[case] = await backlog.fill(connection, database, case)
        finally:
            await database.close()
            await connection.close()
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
        connection = await server.connect(own, case.database)
        try:
            await backlog.settle_down(connection)
            await product.submit(connection, await backlog.live_senders(connection), live)
            await backlog.count_anew(connection)
        finally:
            await connection.close()
        crew = Crew(own, server.dsn_of(own, case.database), upstreams[case], batch)
        trial = {"backlog": case.backlog, "mailboxes": case.mailboxes, "round": number, "batch": batch}
        trial |= await crew.drain()
        say(
            f"round {number} {case.database}: {trial['entries_per_second']:.0f}/s,"
            f" {trial['backend_cpu_seconds_per_1000']:.3f} CPU s/1000"
        )
        keep(trial)


async def explain(own: EmbeddedPostgres, upstreams: Mapping[Case, UUID], *, batch: int) -> list[dict[str, Any]]:
    """The claim's plan in each case, over the same live mail. Leaves the mail in the queue."""
    found = []
    for case, upstream_id in upstreams.items():
        connection = await server.connect(own, case.database)
        try:
            senders = await backlog.live_senders(connection)
            await backlog.settle_down(connection)
            await product.submit(connection, senders, 2000)
            await backlog.count_anew(connection)
            for step, summed in (await plan.of_claim(connection, upstream_id, senders, batch=batch)).items():
                found.append({"backlog": case.backlog, "mailboxes": case.mailboxes, "step": step, **summed})
        finally:
            await connection.close()
    return found
