"""The bench of limits, small: what it fills, sends and notes is what relayd makes of it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from bench.errors import BenchError
from bench.limits import node, rates, world
from bench.limits.bench import Bench, latency, send_and_watch
from bench.limits.node import Sink
from bench.limits.source import Line
from bench.limits.world import World
from bench.queue_cost import server
from relayd.embedded import EmbeddedPostgres
from relayd.store.pool import Database
from tests.builders import make_sender
from tests.conftest import at_length

SMALL = World(clients=3, live=6, crowd=30, entries=100, crowd_clients=3, crowd_limit=10, crowd_used=10)
TURNLESS = Path(node.__file__).parent / "turnless"


@pytest.fixture
async def bench(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Bench]:
    yield Bench(postgres, tmp_path, lambda line: None, lambda kind, sample: None)
    main = await server.connect(postgres, "relayd")
    await main.execute("DROP DATABASE IF EXISTS bench_small WITH (FORCE)")
    await main.close()


@at_length
async def test_mail_of_the_live_arrives_beside_a_blocked_crowd(bench: Bench) -> None:
    sink = Sink(bench.directory)
    await server.make_database(bench.server, "bench_small")
    async with bench.on("bench_small") as (connection, pool):
        await world.fill(connection, pool, SMALL, sink=(node.ADDRESS, sink.port))
        assert await world.counted(connection) == {"blocked_lanes": 30, "live_waiting": 0}
        senders = await world.live_senders(connection)
        assert len({client for _, client in senders}) == 3
        sink.start()
        try:
            async with node.running(bench.server, "bench_small", seal_key=bench.seal_key, spread_seconds=0) as running:
                arrivals = await send_and_watch(running, sink, senders, rate=30, seconds=0.5, patience_seconds=20)
            noted = sink.arrivals()
        finally:
            sink.stop()
        assert await world.counted(connection) == {"blocked_lanes": 30, "live_waiting": 0}
    found = latency(arrivals)
    assert (found["messages"], found["missing"]) == (15, 0)
    assert 0 < found["p50"] <= found["p95"] <= found["max"]
    assert len(noted) == 15 and all(recipient.startswith("live-") for recipient in noted)


async def test_each_case_of_the_rate_has_its_budgets(db: Database) -> None:
    found = {}
    for case in rates.CASES:
        async with db.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await make_sender(connection, daily_limit=500)
            await rates.limit(connection, case)
            found[case] = await connection.fetch(
                "SELECT is_rolling, unit_limit IS NOT NULL AS limited, count(*) FROM budgets GROUP BY 1, 2"
            )
            assert await connection.fetchval(rates.BUDGETS) == (5 if case.startswith("five") else 1)
            await transaction.rollback()
    assert {case: [tuple(row) for row in rows] for case, rows in found.items()} == {
        "none": [(False, False, 1)],
        "mailbox calendar": [(False, True, 1)],
        "mailbox rolling": [(True, True, 1)],
        "five calendar": [(False, True, 5)],
        "five rolling": [(True, True, 5)],
    }


async def test_the_claim_without_turns_is_another_one_that_runs(db: Database) -> None:
    script = "from relayd.store.claim import CLAIM; print(CLAIM)"
    planted = {"PYTHONPATH": f"{TURNLESS}:{Path.cwd()}"}
    claims = []
    for environment in ({}, planted):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        claims.append(done.stdout)
    assert "client_turn, turn, lane_id) AS place" in claims[0]
    assert "client_turn, turn, lane_id) AS place" not in claims[1]
    async with db.connection() as connection:
        sender = await make_sender(connection)
        assert await connection.fetch(claims[1], [sender.upstream_id], [20], 200, "bench", 60.0, UUID(int=0)) == []


async def test_a_refusal_ends_the_trial_and_says_why(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    line = Line(node.ADDRESS, sink.port, "app", "secret")
    sink.start()
    try:
        # A sink asks nobody to log in, so it cannot accept a login.
        with pytest.raises(BenchError, match="wanted 235, got 250 Ok"):
            await line.send("a@example.com", "b@example.net", b"\r\n")
    finally:
        line.close()
        sink.stop()


async def test_the_sink_notes_each_recipient_of_a_message_that_came_in_pieces(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    sink.start()
    try:
        reader, writer = await asyncio.open_connection(node.ADDRESS, sink.port)
        said = (
            b"EHLO a\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nDATA\r\nA: b\r\n\r\nhello\r\n.\r\nQUIT\r\n"
        )
        for piece in (said[:30], said[30:-12], said[-12:-8], said[-8:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        replies = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        async with asyncio.timeout(20):
            while len(sink.arrivals()) < 2:
                await asyncio.sleep(0.05)
        assert sink.arrivals().keys() == {"b@x", "c@x"}
    finally:
        sink.stop()
    assert replies.endswith(b"354 Go on\r\n250 Ok\r\n221 Bye\r\n")
