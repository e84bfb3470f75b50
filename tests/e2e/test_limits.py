"""A mailbox's daily limit through the whole daemon: never one over, nobody else delayed, and it says why."""

import asyncio
import urllib.request
from collections.abc import Callable

from tests.conftest import FreshDatabase, at_length
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
    assert "limit_reached" in house.log_text()
    _execute(database, "UPDATE relayd_state SET clock_offset = clock_offset + interval '1 day'")
    wait_until(lambda: len(sink.arrivals) >= 101, what="the next day's 50")
    assert sum(count for name, count in sink.recipients.items() if name.startswith("user")) == 100
    assert house.stop() == 0
    assert sum(count for name, count in sink.recipients.items() if name.startswith("user")) == 100


# Refused recipients, as the log would have them of two minutes ago: what is younger is not counted yet.
BOUNCES = """
INSERT INTO email_delivery_logs (id, client_id, message_id, entry_id, event, error_code, created_at, updated_at)
SELECT (lpad(to_hex(((extract(epoch FROM clock_timestamp()) - 120) * 1000)::bigint), 12, '0')
        || substr(replace(relayd_uuid()::text, '-', ''), 13))::uuid,
       q.client_id, q.message_id, q.id, 'bounced', 550, relayd_now(), relayd_now()
  FROM email_queue q
"""


@at_length
def test_what_the_configuration_says_of_tiers_warm_up_and_health_holds_in_the_daemon(
    make_house: Callable[..., House], sink: Sink, database: FreshDatabase
) -> None:
    house = make_house(
        tiers=[{"name": "Tiny", "domains": 1, "mailboxes": 1}],
        warm_up={"schedule": "3x2,6"},
        health={"least_tried": 3, "bounces_pause": 0.5},
    )
    house.start()
    furnish(house, sink.port, limit="100")
    house.run("client", "set", "acme", "--tier", "Tiny")
    refused = house.run("mailbox", "add", "second@example.com", check=False)
    assert refused.returncode != 0 and "Tiny" in refused.stderr and "1" in refused.stderr
    assert "tier_refused" in house.log_text()
    assert any(row["row"] == "refused" for row in house.json("audit", "list")["items"])
    house.run("warmup", "start", "app@example.com")
    ids = [send(house, [f"user{number}@example.net"]) for number in range(5)]
    wait_until(lambda: len(sink.arrivals) >= 3, what="the first day's three")
    assert "3" in house.run("explain", ids[-1]).stdout
    assert house.stop() == 0
    assert len(sink.arrivals) == 3

    _execute(database, BOUNCES)
    house.start()
    wait_until(lambda: house.json("mailbox", "show", "app@example.com")["status"] == "paused", what="the pause")
    assert "bounced" in house.run("explain", ids[-1]).stdout
    assert "mailbox_paused" in house.log_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{house.http_port}/metrics", timeout=10) as page:
        assert "relayd_health_pauses_total 1.0" in page.read().decode()
    assert house.json("audit", "list", "--table", "mailbox")["items"]
    assert house.stop() == 0
