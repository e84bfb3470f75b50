"""What others get beside one that has far more due than a slow upstream takes: with turns of clients, and without."""

import asyncio
from argparse import Namespace

from bench.limits import node, world
from bench.limits.bench import Bench, latency, send_and_watch
from bench.limits.node import Sink
from bench.limits.world import World
from bench.queue_cost import server

_CLIENTS = 2


async def measure(bench: Bench, options: Namespace) -> None:
    """One client's many mailboxes, then one mailbox of it with everything."""
    await _measure(bench, options, "many", crowd=options.busy_mailboxes, entries=options.busy_entries, beside=1)
    await _measure(bench, options, "deep", crowd=1, entries=options.entries, beside=10)


async def _measure(bench: Bench, options: Namespace, name: str, *, crowd: int, entries: int, beside: int) -> None:
    """`beside`: of each client so many mailboxes send a message a second each; in `many` of the other client alone."""
    database = f"fairness_{name}"
    sink = Sink(bench.directory, delay_seconds=options.sink_seconds)
    whole = World(
        clients=_CLIENTS, live=2 * _CLIENTS * beside, crowd=crowd, entries=entries, crowd_clients=1, crowd_limit=None
    )
    await server.make_database(bench.server, database)
    async with bench.on(database) as (connection, pool):
        await world.fill(connection, pool, whole, sink=(node.ADDRESS, sink.port))
        live = await world.live_senders(connection)
    bench.say(f"{database}: {entries:,} entries wait behind {crowd:,} mailboxes")
    of_client = {client: [each for each in live if each[1] == client][:beside] for client in ("client0", "client1")}
    senders = of_client["client1"] if name == "many" else of_client["client0"] + of_client["client1"]
    for is_turnless in (False, True):
        sink.start()
        try:
            async with node.running(
                bench.server, database, seal_key=bench.seal_key, spread_seconds=300, is_turnless=is_turnless
            ) as running:
                await asyncio.sleep(options.warm_seconds)
                taken = len(sink.arrivals())
                arrivals = await send_and_watch(
                    running,
                    sink,
                    senders,
                    rate=float(len(senders)),
                    seconds=options.seconds,
                    patience_seconds=options.patience,
                )
                taken = len(sink.arrivals()) - taken
        finally:
            sink.stop()
        for client in sorted({each.client for each in arrivals}):
            trial = {
                "scene": name,
                "is_turnless": is_turnless,
                "client": "the busy one" if client == "client0" else "another",
                "taken": taken,
                **latency([each for each in arrivals if each.client == client]),
            }
            bench.keep("fairness", trial)
            bench.say(
                f"{name}, {'without' if is_turnless else 'with'} turns, {trial['client']}:"
                f" p50 {trial['p50']:.2f} s, p95 {trial['p95']:.2f} s"
            )
