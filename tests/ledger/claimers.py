"""One process of the race: many claimers on few connections. `python -m tests.ledger.claimers`, a line of JSON a round.

It answers each with a line: how many units its claimers took, and what went wrong.
"""

import asyncio
import json
import os
import random
import sys
from typing import Any
from uuid import UUID

from relayd.store.claim import claim
from relayd.store.pool import Database
from tests.ledger.bugs import planted

# Longer than any round takes.
GIVE_UP_SECONDS = 240.0
IS_FULL = "SELECT used >= unit_limit FROM budget_usage WHERE budget_id = $1"


async def main() -> None:
    """Until the input ends."""
    connections = int(sys.argv[1])
    database = await Database.open(
        os.environ["RACE_DSN"], max_size=connections, acquire_timeout_seconds=60, statement_timeout_seconds=60
    )
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await _round(database, **json.loads(line))), flush=True)
    await database.close()


async def _round(
    database: Database, *, upstream: str, budget: int, claimers: int, bug: str | None, name: str
) -> dict[str, Any]:
    with planted(bug):
        ended = await asyncio.gather(
            *(_claimer(database, UUID(upstream), budget, f"{name}/{os.getpid()}/{n}") for n in range(claimers)),
            return_exceptions=True,
        )
    errors = [f"{type(each).__name__}: {each}" for each in ended if isinstance(each, BaseException)]
    return {"taken": sum(each for each in ended if isinstance(each, int)), "errors": errors}


async def _claimer(database: Database, upstream: UUID, budget: int, name: str) -> int:
    taken = looks = 0
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while True:
            looks += 1
            async with database.transaction() as connection:
                found = await claim(
                    connection,
                    {upstream: random.randint(1, 20)},
                    read_limit=50,
                    claimant=f"{name}/{looks}",
                    lease_seconds=600,
                    spread_seconds=0,
                )
            taken += len(found.entries)
            if not found.entries:
                async with database.connection() as connection:
                    if await connection.fetchval(IS_FULL, budget):
                        return taken
                # As a worker that has found nothing, only sooner.
                await asyncio.sleep(random.random())


if __name__ == "__main__":
    asyncio.run(main())
