"""A hundred mailboxes at work beside thousands that have sent their day's limit, with a million entries behind them."""

import time
from argparse import Namespace
from collections import Counter
from typing import Any
from uuid import UUID

from bench.limits import node, world
from bench.limits.bench import Bench, latency, send_and_watch
from bench.limits.node import Sink
from bench.limits.world import World
from bench.queue_cost import backlog, plan, product, server
from bench.queue_cost.crew import Crew

_PATIENCE_SECONDS = 30.0
_EXPLAINED_LIVE = 2_000
_BEFORE_SECONDS = 30.0
_SLICES = 5

# Shortly before midnight in UTC, forwards.
BEFORE_MIDNIGHT = """
UPDATE relayd_state
   SET clock_offset = date_trunc('day', relayd_now(), 'UTC') + interval '1 day' - make_interval(secs => $1)
                      - clock_timestamp()
"""


async def measure(bench: Bench, options: Namespace) -> None:
    """Latency and plans with nothing and with all of it waiting, in turn; then the turn of the window."""
    sink = Sink(bench.directory)
    upstreams = {entries: await _fill(bench, options, sink, entries) for entries in (0, options.entries)}
    for number in range(1, options.rounds + 1):
        for entries in upstreams if number % 2 else reversed(upstreams):
            await _latency(bench, options, sink, entries, number)
    await _explain(bench, upstreams, options.explains)
    if options.turn_seconds:
        await _turn(bench, options, sink)


def release(released: dict[int, float], world: World, spread: float) -> dict[str, Any]:
    """When each mailbox began, against the spread that was promised; and that none sent more than its limit."""
    first: dict[int, float] = {}
    for number, at in released.items():
        mailbox = number // world.per_mailbox
        first[mailbox] = min(at, first.get(mailbox, at))
    sent = Counter(number // world.per_mailbox for number in released)
    begun = Counter(min(_SLICES, int(max(0.0, at) / spread * _SLICES)) for at in first.values())
    return {
        "mailboxes": len(first),
        "messages": len(released),
        "most_of_one": max(sent.values(), default=0),
        "begun_by_slice": [begun[number] for number in range(_SLICES + 1)],
        "too_early": sum(at < 0 for at in first.values()),
        "last_began": max(first.values(), default=0.0),
    }


def _world(options: Namespace, entries: int) -> World:
    return World(
        clients=options.clients,
        live=options.live,
        crowd=options.mailboxes - options.live,
        entries=entries,
        crowd_clients=options.clients,
        crowd_limit=options.limit,
        crowd_used=options.limit,
    )


def _name(entries: int) -> str:
    return f"crowd_{entries}"


async def _fill(bench: Bench, options: Namespace, sink: Sink, entries: int) -> UUID:
    began = time.monotonic()
    await server.make_database(bench.server, _name(entries))
    async with bench.on(_name(entries)) as (connection, pool):
        upstream_id = await world.fill(connection, pool, _world(options, entries), sink=(node.ADDRESS, sink.port))
        found = await world.counted(connection)
    bench.keep("filled", {"entries": entries, "seconds": time.monotonic() - began, **found})
    bench.say(f"{entries:,} entries wait, {found['blocked_lanes']:,} lanes are blocked")
    return upstream_id


async def _latency(bench: Bench, options: Namespace, sink: Sink, entries: int, number: int) -> None:
    async with bench.on(_name(entries)) as (connection, _):
        await backlog.settle_down(connection)
        senders = await world.live_senders(connection)
    sink.start()
    try:
        async with node.running(
            bench.server, _name(entries), seal_key=bench.seal_key, spread_seconds=options.spread
        ) as running:
            arrivals = await send_and_watch(
                running,
                sink,
                senders,
                rate=options.rate,
                seconds=options.seconds,
                patience_seconds=_PATIENCE_SECONDS,
            )
    finally:
        sink.stop()
    trial = {"waiting": entries, "round": number, **latency(arrivals)}
    bench.keep("latency", trial)
    bench.say(f"{entries:,} waiting: p50 {trial['p50']:.3f} s, p95 {trial['p95']:.3f} s, max {trial['max']:.3f} s")


async def _explain(bench: Bench, upstreams: dict[int, UUID], rounds: int) -> None:
    """The same live mail in both, explained in turn; then sent away by workers, or the next trial would have it."""
    for entries in upstreams:
        async with bench.on(_name(entries)) as (connection, pool):
            await backlog.settle_down(connection)
            await backlog.put_live(connection, pool, _EXPLAINED_LIVE)
    for number in range(1, rounds + 1):
        for entries, upstream_id in upstreams.items():
            async with bench.on(_name(entries)) as (connection, _):
                senders = await backlog.live_senders(connection)
                for step, found in (await plan.of_claim(connection, upstream_id, senders, batch=product.BATCH)).items():
                    bench.keep("plans", {"waiting": entries, "round": number, "step": step, **found})
    for entries, upstream_id in upstreams.items():
        async with bench.on(_name(entries)) as (connection, _):
            await Crew(bench.server, server.dsn_of(bench.server, _name(entries)), upstream_id, product.BATCH).drain(
                connection
            )


async def _turn(bench: Bench, options: Namespace, sink: Sink) -> None:
    """Midnight comes for all of the crowd at once, while the others go on."""
    name = _name(options.entries)
    async with bench.on(name) as (connection, _):
        await backlog.settle_down(connection)
        senders = await world.live_senders(connection)
    before = min(_BEFORE_SECONDS, options.turn_seconds / 4)
    sink.start()
    try:
        async with node.running(bench.server, name, seal_key=bench.seal_key, spread_seconds=options.spread) as running:
            async with bench.on(name) as (connection, _):
                await connection.execute(BEFORE_MIDNIGHT, before)
                turn = time.monotonic() + before
            arrivals = await send_and_watch(
                running,
                sink,
                senders,
                rate=options.rate,
                seconds=before + options.spread + options.turn_seconds,
                patience_seconds=_PATIENCE_SECONDS,
            )
        released = {
            int(recipient.partition("@")[0][4:]): at - turn
            for recipient, at in sink.arrivals().items()
            if recipient.startswith("user")
        }
    finally:
        sink.stop()
    terms = {"entries": options.entries, "limit": options.limit, "spread": options.spread}
    minute = min(60.0, options.spread / _SLICES)
    for begins in sorted({_slice(arrival.replied_at - turn, minute) for arrival in arrivals}):
        found = [arrival for arrival in arrivals if _slice(arrival.replied_at - turn, minute) == begins]
        left = sum(_slice(at, minute) == begins for at in released.values())
        sample = {**terms, "begins": begins * minute, "seconds": minute, "released": left, **latency(found)}
        bench.keep("turn", sample)
        bench.say(f"{sample['begins']:.0f} s after the turn: {left} released, p95 {sample['p95']:.3f} s")
    bench.keep("release", {**terms, **release(released, _world(options, options.entries), options.spread)})


def _slice(seconds: float, length: float) -> int:
    return int(seconds // length)
