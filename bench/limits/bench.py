"""What every part of a run is given, and what each notes of a trial: latencies, and how busy the machine was."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.limits.node import Node, Sink
from bench.limits.source import Sent, send_steadily
from bench.queue_cost import product, server, summary
from relayd.embedded import EmbeddedPostgres
from relayd.seal import new_key
from relayd.store.connection import Connection
from relayd.store.pool import Database

OCTETS = 4096


@dataclass(frozen=True, slots=True)
class Bench:
    """`keep` takes a sample of one kind, and writes all that there are."""

    server: EmbeddedPostgres
    directory: Path
    say: Callable[[str], None]
    keep: Callable[[str, dict[str, Any]], None]
    seal_key: str = field(default_factory=new_key)

    @asynccontextmanager
    async def on(self, database: str) -> AsyncIterator[tuple[Connection, Database]]:
        """A connection of ours, and a pool as workers have it."""
        connection = await server.connect(self.server, database)
        pool = await product.open_as_worker(server.dsn_of(self.server, database), self.server.password, name="bench")
        try:
            yield connection, pool
        finally:
            await pool.close()
            await connection.close()


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message of ours: who sent it, when its 250 came, and how long after that it was at the sink.

    `is_there` is False for what had not come when the trial ended: then it is how long it has waited at least.
    """

    client: str
    replied_at: float
    seconds: float
    is_there: bool


def busy() -> float:
    """The load of the last minute, ours included."""
    return os.getloadavg()[0]


async def send_and_watch(
    node: Node, sink: Sink, senders: Sequence[tuple[str, str]], *, rate: float, seconds: float, patience_seconds: float
) -> list[Arrival]:
    """Messages at that rate for so long; what has not arrived `patience_seconds` after the last one is given up."""
    lines = node.lines(client for _, client in senders)
    name = f"live-{os.urandom(3).hex()}"
    try:
        sent = await send_steadily(lines, senders, rate=rate, seconds=seconds, octets=OCTETS, name=name)
    finally:
        for line in lines.values():
            line.close()
    end = time.monotonic() + patience_seconds
    while (arrivals := sink.arrivals()) is not None and time.monotonic() < end:
        if sent.replied_at.keys() <= arrivals.keys():
            break
        await asyncio.sleep(0.5)
    return arrivals_of(sent, arrivals, [client for _, client in senders], now=time.monotonic())


def latency(arrivals: Sequence[Arrival]) -> dict[str, Any]:
    """Percentiles of the seconds from 250 to arrival."""
    seconds = [arrival.seconds for arrival in arrivals]
    return {
        "messages": len(seconds),
        "missing": sum(not arrival.is_there for arrival in arrivals),
        **{f"p{share}": summary.percentile(seconds, share / 100) for share in (50, 95, 99)},
        "max": max(seconds, default=0.0),
        "load": busy(),
    }


def arrivals_of(sent: Sent, arrivals: dict[str, float], clients: Sequence[str], *, now: float) -> list[Arrival]:
    """Each message's fate, `arrivals` by recipient; the clients took turns."""
    found = []
    for recipient, replied_at in sent.replied_at.items():
        number = int(recipient.partition("@")[0].rpartition("-")[2])
        at = arrivals.get(recipient)
        # The 250 may be read after the arrival: then it took no time.
        seconds = max(0.0, (now if at is None else at) - replied_at)
        found.append(Arrival(clients[number % len(clients)], replied_at, seconds, at is not None))
    return found
