"""What budgets cost: claim, start and settle with no limit, with the mailbox's, and with five that all share."""

from argparse import Namespace
from uuid import UUID

from bench.limits.bench import Bench, busy
from bench.queue_cost import backlog, product, server
from bench.queue_cost.case import Case
from bench.queue_cost.crew import Crew
from relayd.store.connection import Connection

UNLIMITED = "UPDATE email_mailboxes SET daily_send_limit = NULL"
OF_MAILBOXES = "UPDATE email_mailboxes SET limit_window = $1"
# Far from binding, each shared by every mailbox.
OF_DOMAIN = "UPDATE email_domains SET own_daily_limit = 100000000, limit_window = $1"
OF_CLIENT = "UPDATE clients SET daily_send_limit = 100000000, limit_window = $1"
OF_PROVIDER = """
INSERT INTO google_workspace_quota (upstream_id, daily_limit, hourly_limit, limit_window)
SELECT id, 100000000, 100000000, $1 FROM email_configurations
"""
BUDGETS = "SELECT DISTINCT cardinality(budget_ids) FROM mailbox_lanes WHERE class = 'mail'"

CASES = ("none", "mailbox calendar", "mailbox rolling", "five calendar", "five rolling")


async def measure(bench: Bench, options: Namespace) -> None:
    """Rounds of all cases, in turn forwards and backwards."""
    upstreams = {case: await _fill(bench, case) for case in CASES}
    for number in range(1, options.rate_rounds + 1):
        for case in CASES if number % 2 else reversed(CASES):
            for workers in options.workers:
                await _trial(bench, options, case, upstreams[case], number, workers)


async def limit(connection: Connection, case: str) -> None:
    """Give what there is in the database the limits of the case."""
    if case == "none":
        await connection.execute(UNLIMITED)
        return
    window = case.split()[1]
    await connection.execute(OF_MAILBOXES, window)
    if case.startswith("five"):
        for statement in (OF_DOMAIN, OF_CLIENT, OF_PROVIDER):
            await connection.execute(statement, window)


def _name(case: str) -> str:
    return f"rate_{case.replace(' ', '_')}"


async def _fill(bench: Bench, case: str) -> UUID:
    await server.make_database(bench.server, _name(case))
    async with bench.on(_name(case)) as (connection, pool):
        upstream_id = await backlog.fill(connection, pool, Case(0, 1))
        await limit(connection, case)
        found = await connection.fetchval(BUDGETS)
    bench.say(f"{case}: {found} budgets a lane")
    return upstream_id


async def _trial(bench: Bench, options: Namespace, case: str, upstream_id: UUID, number: int, workers: int) -> None:
    async with bench.on(_name(case)) as (connection, pool):
        await backlog.settle_down(connection)
        await backlog.put_live(connection, pool, options.drained)
        dsn = server.dsn_of(bench.server, _name(case))
        crew = Crew(bench.server, dsn, upstream_id, product.BATCH, workers=workers)
        trial = {"case": case, "round": number, "workers": workers, **await crew.drain(connection), "load": busy()}
    bench.keep("rates", trial)
    bench.say(
        f"round {number}, {case}, {workers} workers: {trial['entries_per_second']:.0f}/s,"
        f" claim {trial['p50_ms']['claim']:.1f} ms, {trial['empty_claims']} empty"
    )
