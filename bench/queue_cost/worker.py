"""One worker, a process of its own: claim, start, settle until nothing is due. Talks JSON lines with who started it.

In: the job, then `go`. Out: `{"pid": its backend}` when it is warm, then what it measured.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

from bench.queue_cost import counters, product
from relayd.store.pool import Database

_WARM_BATCHES = 12


@dataclass(slots=True)
class Measured:
    """What one worker did. Latencies are of statements with their commits, in seconds, a batch each."""

    entries: int = 0
    empty_claims: int = 0
    began: float = 0.0
    ended: float = 0.0
    latencies: dict[str, list[float]] = field(default_factory=lambda: {"claim": [], "start": [], "settle": []})


async def drain(
    database: Database, upstream_id: UUID, *, batch: int, name: str, deadline_seconds: float, batches: int | None = None
) -> Measured:
    """Until nothing is due, or for so many batches. Raises TimeoutError past the deadline."""
    measured = Measured(began=time.monotonic())
    async with asyncio.timeout(deadline_seconds):
        for number in count(1):
            if batches is not None and len(measured.latencies["claim"]) >= batches:
                break
            began = time.monotonic()
            entries, leaves_more = await product.claim(database, upstream_id, batch=batch, claimant=f"{name}/{number}")
            claimed = time.monotonic()
            if not entries:
                if not leaves_more:
                    break
                measured.empty_claims += 1
                continue
            startable = await product.start(database, entries)
            started = time.monotonic()
            measured.entries += await product.settle_sent(database, startable)
            measured.ended = time.monotonic()
            for step, seconds in (
                ("claim", claimed - began),
                ("start", started - claimed),
                ("settle", measured.ended - started),
            ):
                measured.latencies[step].append(seconds)
    return measured


async def _main() -> None:
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    database = await product.open_as_worker(job["dsn"], job["password"], name=job["name"])
    upstream_id = UUID(job["upstream_id"])
    try:
        # Plans are made and pages read before it counts.
        warm = await drain(
            database,
            upstream_id,
            batch=job["batch"],
            name=f"{job['name']}/warm",
            deadline_seconds=job["deadline_seconds"],
            batches=_WARM_BATCHES if job["warms"] else 0,
        )
        async with database.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await connection.execute(counters.FLUSH)
        print(json.dumps({"pid": pid, "warm": warm.entries}), flush=True)
        if sys.stdin.readline().strip() != "go":
            return
        measured = await drain(
            database, upstream_id, batch=job["batch"], name=job["name"], deadline_seconds=job["deadline_seconds"]
        )
        async with database.connection() as connection:
            await connection.execute(counters.FLUSH)
        print(
            json.dumps(
                {
                    "entries": measured.entries,
                    "empty_claims": measured.empty_claims,
                    "began": measured.began,
                    "ended": measured.ended,
                    "latencies": measured.latencies,
                }
            ),
            flush=True,
        )
        # The backend's CPU is read while it lives.
        sys.stdin.readline()
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(_main())
