"""What budgets cost a real node: it starts with mail of a hundred mailboxes due, and a sink notes each arrival."""

import asyncio
import time
from argparse import Namespace

from bench.errors import BenchError
from bench.limits import node, rates
from bench.limits.bench import Bench, busy
from bench.limits.node import Sink
from bench.queue_cost import backlog, server
from bench.queue_cost.case import Case
from relayd.store.connection import Connection

CASES = ("none", "mailbox calendar", "five calendar", "five rolling")
TO_SINK = "UPDATE email_configurations SET smtp_host = $1, smtp_port = $2"
# Each its own, so that arrivals can be told apart.
APART = "UPDATE email_queue SET recipient_address = id || '@example.net' WHERE status = 'queued'"
LEFT = "SELECT count(*) FROM email_queue WHERE status <> 'sent'"


async def measure(bench: Bench, options: Namespace) -> None:
    """Rounds of all cases, in turn forwards and backwards."""
    sink = Sink(bench.directory)
    for case in CASES:
        await _fill(bench, case, sink)
    for number in range(1, options.rate_rounds + 1):
        for case in CASES if number % 2 else reversed(CASES):
            for workers in options.workers:
                await _trial(bench, options, case, sink, number, workers)


async def _fill(bench: Bench, case: str, sink: Sink) -> None:
    await server.make_database(bench.server, _name(case))
    async with bench.on(_name(case)) as (connection, pool):
        await backlog.fill(connection, pool, Case(0, 1))
        await connection.execute(TO_SINK, node.ADDRESS, sink.port)
        await rates.limit(connection, case)


async def _trial(bench: Bench, options: Namespace, case: str, sink: Sink, number: int, workers: int) -> None:
    async with bench.on(_name(case)) as (connection, pool):
        await backlog.settle_down(connection)
        await backlog.put_live(connection, pool, options.drained)
        await connection.execute(APART)
        sink.start()
        try:
            async with node.running(
                bench.server, _name(case), seal_key=bench.seal_key, spread_seconds=0, workers=workers
            ):
                await _wait_until_sent(connection, options.patience)
        finally:
            sink.stop()
    came = sorted(sink.arrivals().values())
    # The node is up when the first arrives; a tenth on either side is left out, for it is not under load there.
    tenth = len(came) // 10
    seconds = came[-tenth - 1] - came[tenth]
    trial = {
        "case": case,
        "round": number,
        "workers": workers,
        "messages_per_second": (len(came) - 2 * tenth - 1) / seconds,
        "load": busy(),
    }
    bench.keep("delivery", trial)
    bench.say(f"round {number}, {case}, {workers} workers: {trial['messages_per_second']:.0f} delivered a second")


async def _wait_until_sent(connection: Connection, patience_seconds: float) -> None:
    end = time.monotonic() + patience_seconds
    while await connection.fetchval(LEFT):
        if time.monotonic() > end:
            raise BenchError("not all that was due was delivered in time; give --patience more seconds")
        await asyncio.sleep(0.5)


def _name(case: str) -> str:
    return f"delivery_{case.replace(' ', '_')}"
