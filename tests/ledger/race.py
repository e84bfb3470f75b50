"""Many claimers in several processes, all after the same units: exactly the limit may be taken, and nobody may fail."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from relayd.store import lanes
from relayd.store.connection import Connection
from relayd.store.queue import enqueue
from tests.builders import Sender, make_sender, make_upstream, new_message
from tests.conftest import FreshDatabase

ROOT = Path(__file__).parents[2]
# What is limited, in turn.
KINDS = ("mailbox", "reserve", "domain", "client", "provider", "rolling mailbox")


@dataclass(frozen=True)
class Size:
    """How many run against how many units."""

    processes: int
    claimers: int
    connections: int
    limit: int


@dataclass(frozen=True)
class Round:
    """What came of one."""

    number: int
    kind: str
    limit: int
    answered: int  # as the claims told their claimers
    sending: int  # as the queue has it
    used: int  # as the ledger has it
    bulk: int
    bulk_limit: int
    errors: list[str]

    @property
    def is_well(self) -> bool:
        """Not one unit more or less, nowhere."""
        return (
            self.answered == self.sending == self.used == self.limit
            and self.bulk <= self.bulk_limit
            and not self.errors
        )


class Race:
    """Its processes wait between the rounds; see `racing`."""

    def __init__(self, connection: Connection, processes: list[asyncio.subprocess.Process], size: Size) -> None:
        self._connection = connection
        self._processes = processes
        self._size = size

    async def round(self, number: int, *, bug: str | None = None) -> Round:
        """One kind after the other."""
        kind = KINDS[number % len(KINDS)]
        await self._connection.execute("TRUNCATE messages CASCADE")
        upstream, budget = await self._furnish(kind, f"r{number}")
        told = {
            "upstream": str(upstream),
            "budget": budget,
            "claimers": self._size.claimers // self._size.processes,
            "bug": bug,
            "name": f"node/{number}",
        }
        answers = await asyncio.gather(*(_ask(each, told) for each in self._processes))
        row = await self._connection.fetchrow(
            "SELECT u.used, u.unit_limit, u.bulk_limit, count(q.id) AS sending,"
            " count(*) FILTER (WHERE l.class = 'bulk') AS bulk"
            " FROM budget_usage u LEFT JOIN email_queue q ON q.status = 'sending'"
            " LEFT JOIN mailbox_lanes l ON l.id = q.lane_id WHERE u.budget_id = $1 GROUP BY 1, 2, 3",
            budget,
        )
        assert row
        return Round(
            number,
            kind,
            row["unit_limit"],
            sum(each["taken"] for each in answers),
            row["sending"],
            row["used"],
            row["bulk"],
            row["bulk_limit"],
            [error for each in answers for error in each["errors"]],
        )

    async def _furnish(self, kind: str, name: str) -> tuple[UUID, int]:
        connection, limit = self._connection, self._size.limit
        upstream = await make_upstream(connection, name)
        count = 1 if kind in ("mailbox", "reserve", "rolling mailbox") else 6
        senders = [
            await make_sender(
                connection,
                f"m{n}@{name}-{0 if kind == 'domain' else n % 2}.example",
                client=name,
                upstream=name,
                daily_limit=limit if count == 1 else limit // 3 if kind == "provider" else None,
            )
            for n in range(count)
        ]
        sender = senders[0]
        owner = {"domain": sender.domain_id, "client": sender.client_id}.get(kind, sender.mailbox_id)
        match kind:
            case "reserve":
                await connection.execute("UPDATE clients SET bulk_reserve_percent = 20 WHERE id = $1", sender.client_id)
            case "domain":
                await connection.execute("UPDATE email_domains SET own_daily_limit = $2 WHERE id = $1", owner, limit)
            case "client":
                await connection.execute(
                    "UPDATE clients SET daily_send_limit = $2, limit_window = 'rolling', bulk_reserve_percent = 30"
                    " WHERE id = $1",
                    *(owner, limit),
                )
            case "provider":
                owner = await connection.fetchval(
                    "INSERT INTO google_workspace_quota (upstream_id, daily_limit, hourly_limit)"
                    " VALUES ($1, $2, $2 + 10) RETURNING id",
                    *(upstream, limit),
                )
            case "rolling mailbox":
                await connection.execute("UPDATE email_mailboxes SET limit_window = 'rolling' WHERE id = $1", owner)
        for each in senders:
            await _fill(connection, each, limit * 2 // count)
        budget = await connection.fetchval("SELECT id FROM budgets WHERE owner_id = $1 AND kind LIKE '%day'", owner)
        return upstream, budget


@asynccontextmanager
async def racing(database: FreshDatabase, size: Size) -> AsyncIterator[Race]:
    """Starts the processes, and ends them."""
    connection = await database.connect()
    environment = {**os.environ, "RACE_DSN": database.dsn_with_password}
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.ledger.claimers", str(size.connections)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        for _ in range(size.processes)
    ]
    try:
        yield Race(connection, processes, size)
    finally:
        for process in processes:
            assert process.stdin
            process.stdin.close()
        for process in processes:
            await process.wait()
        await connection.close()


async def _ask(process: asyncio.subprocess.Process, told: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(told).encode() + b"\n")
    line = await process.stdout.readline()
    return json.loads(line) if line else {"taken": 0, "errors": ["the process ended"]}


async def _fill(connection: Connection, sender: Sender, count: int) -> None:
    rows = await connection.fetch("SELECT class, id FROM mailbox_lanes WHERE mailbox_id = $1", sender.mailbox_id)
    lane_ids = {row["class"]: row["id"] for row in rows}
    for lane_class in ("mail", "bulk"):
        # Two recipients each, every third time.
        recipients = [("a@example.net", "b@example.net") if n % 3 == 0 else ("a@example.net",) for n in range(count)]
        messages = [replace(new_message(sender, *each), lane_id=lane_ids[lane_class]) for each in recipients]
        await enqueue(connection, messages)
    await lanes.wake(connection, list(lane_ids.values()))
