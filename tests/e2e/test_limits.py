"""A mailbox's daily limit through the whole daemon: never one over, nobody else delayed, and it says why."""

import asyncio

from tests.conftest import FreshDatabase
from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until
from tests.e2e.mail import send
from tests.peers.sink import Sink


def _execute(database: FreshDatabase, statement: str) -> None:
    async def run() -> None:
        connection = await database.connect()
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


def test_exactly_the_limit_leaves_and_the_rest_waits_for_the_window(
    house: House, sink: Sink, database: FreshDatabase
) -> None:
    # Early in the day, so that no window turns by itself while the test runs.
    _execute(
        database,
        "UPDATE relayd_state SET clock_offset ="
        " date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '1 hour'"
        " - clock_timestamp()",
    )
    house.start()
    furnish(house, sink.port, limit="50")
    house.run("mailbox", "add", "other@example.com", "--daily-limit", "unlimited")
    ids = [send(house, [f"user{number}@example.net"]) for number in range(500)]
    wait_until(lambda: len(sink.arrivals) >= 50, what="50 arrivals")
    send(house, ["friend@example.net"], sender="other@example.com")
    wait_until(lambda: sink.recipients["friend@example.net"] == 1, seconds=10, what="the other mailbox's message")
    assert sum(count for name, count in sink.recipients.items() if name.startswith("user")) == 50
    assert house.json("queue", "list", "--state", "queued")["total"] == 450
    explained = house.run("explain", ids[-1]).stdout
    assert "50" in explained and "app@example.com" in explained and "limit" in explained
    _execute(database, "UPDATE relayd_state SET clock_offset = clock_offset + interval '1 day'")
    wait_until(lambda: len(sink.arrivals) >= 101, what="the next day's 50")
    assert sum(count for name, count in sink.recipients.items() if name.startswith("user")) == 100
    assert house.stop() == 0
    assert sum(count for name, count in sink.recipients.items() if name.startswith("user")) == 100
