"""How long the chores over all mailboxes take: rates, pauses, lost wakes, idle units."""

import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from functools import partial

from bench.limits import node, world
from bench.limits.bench import Bench, busy
from bench.limits.world import World
from bench.queue_cost import server
from relayd.store import health, lanes
from relayd.store.connection import Connection

_DAYS = 30
_RATED_DAYS = 7
_PORT = 25
_WAITING = 100_000

# A day's row for each mailbox and day; of one mailbox in a hundred a third bounces.
STATS = """
INSERT INTO warmup_stats (client_id, mailbox_id, day, emails_sent, emails_bounced)
SELECT m.client_id, m.id, (relayd_now() AT TIME ZONE m.time_zone)::date - d, 50,
       CASE WHEN m.number % 100 = 0 THEN 25 ELSE m.number % 3 END
  FROM (SELECT *, row_number() OVER (ORDER BY id) AS number FROM email_mailboxes) m, generate_series(0, $1::int - 1) d
"""


async def measure(bench: Bench, options: Namespace) -> None:
    """Each several times: the first finds everything to do, the others nothing."""
    crowd = World(
        clients=options.clients,
        live=options.live,
        crowd=options.mailboxes - options.live,
        entries=min(options.entries, _WAITING),
        crowd_clients=options.clients,
        crowd_limit=options.limit,
        crowd_used=options.limit,
    )
    await server.make_database(bench.server, "chores")
    async with bench.on("chores") as (connection, pool):
        await world.fill(connection, pool, crowd, sink=(node.ADDRESS, _PORT))
        await connection.execute(STATS, _DAYS, timeout=600)
        await connection.execute("VACUUM (ANALYZE) warmup_stats", timeout=600)
        for number in range(1, options.explains + 1):
            for name, chore in _chores(connection).items():
                began = time.monotonic()
                async with connection.transaction():
                    await chore()
                seconds = time.monotonic() - began
                bench.keep("chores", {"chore": name, "round": number, "seconds": seconds, "load": busy()})
                bench.say(f"round {number}, {name}: {seconds:.3f} s")


def _chores(connection: Connection) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "refresh_rates": partial(health.refresh_rates, connection, days=_RATED_DAYS),
        "pause_the_worst": partial(
            health.pause_the_worst, connection, days=_RATED_DAYS, least_tried=100, bounce_rate=0.2, spam_rate=0.01
        ),
        "sweep": partial(lanes.sweep, connection),
        "use_idle_units": partial(lanes.use_idle_units, connection),
    }
