"""Send messages through a queue for a while and watch its tables: do they grow, does autovacuum keep up?

Each step enqueues, drains and prunes as much as came in some steps before, so that the tables should level off.
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from bench.queue_cost import backlog, product, server, sizes
from bench.queue_cost.case import Case
from bench.queue_cost.crew import Crew
from relayd.embedded import EmbeddedPostgres

DATABASE = "growth"
STEP = 5_000
KEPT_STEPS = 4


async def grow(
    own: EmbeddedPostgres,
    *,
    messages: int,
    batch: int,
    say: Callable[[str], None],
    keep: Callable[[dict[str, Any]], None],
    target: int | None = None,
) -> None:
    """A sample after each step, handed to `keep`. `target`: the last migration to apply, all by default."""
    await server.make_database(own, DATABASE, target=target)
    connection = await server.connect(own, DATABASE)
    database = await product.open_as_worker(server.dsn_of(own, DATABASE), own.password, name="bench/growth")
    try:
        upstream_id = await backlog.fill(connection, database, Case(0, 1))
        senders = await backlog.live_senders(connection)
        crew = Crew(own, server.dsn_of(own, DATABASE), upstream_id, batch)
        ends: deque[datetime] = deque(maxlen=KEPT_STEPS)
        for done in range(STEP, messages + 1, STEP):
            await product.submit(database, senders, STEP)
            drained = await crew.drain(connection, warms=False)
            ends.append(await connection.fetchval("SELECT relayd_now()"))
            began = time.monotonic()
            pruned = await product.prune(database, ends[0]) if len(ends) == KEPT_STEPS else 0
            seconds = time.monotonic() - began
            sampled = await sizes.sample(connection)
            keep({"messages": done, "pruned": pruned, "prune_seconds": seconds, **drained, **sampled})
            say(f"{done} messages: {drained['entries_per_second']:.0f}/s, {pruned} rows pruned in {seconds:.1f} s")
    finally:
        await database.close()
        await connection.close()
    main = await server.connect(own, "relayd")
    try:
        await main.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    finally:
        await main.close()
