"""The drill: two upstreams, a load, the first one killed in the middle and started again, and the ledger of it all."""

import json
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from relayd.control.client import ControlClient, path_of
from relayd.embedded.lifetime import die_with_parent
from relayd.store.connection import Connection
from tests.conftest import FreshDatabase
from tests.crash.journal import read_journal
from tests.crash.ledger import Verdict, compare
from tests.crash.load import Load
from tests.crash.machine import Loop, steady_ports
from tests.crash.snapshot import Snapshot, take_snapshot
from tests.e2e.house import House, wait_until
from tests.failover.sink import SinkProcess

PATIENCE_SECONDS = 60.0
PROMISED_SECONDS = 10.0
# A start that was under way as the breaker opened.
SLACK_SECONDS = 0.2

# Attempts at the first upstream, by when they began.
ATTEMPTS = """
SELECT extract(epoch FROM g.created_at)::float8 AS at, g.message_id FROM email_delivery_logs g
  JOIN email_configurations u ON u.id = g.upstream_id WHERE u.name = 'first' AND g.event = 'sending' ORDER BY g.id
"""


@dataclass(frozen=True)
class Told:
    """How it went. `idle_seconds`: from the first upstream's end to the next arrival at the second."""

    verdict: Verdict
    idle_seconds: float
    probes: int
    tried_while_open: int  # messages handed to the first upstream while its breaker was not closed
    returned: int  # arrivals at the first upstream after it came back

    @property
    def failed_promises(self) -> list[str]:
        """What was promised and did not hold; empty if all is well."""
        broken = []
        if not self.verdict.is_clean:
            broken.append("mail was lost, or arrived twice without a doubt")
        if self.idle_seconds > PROMISED_SECONDS:
            broken.append(f"mail went on after {self.idle_seconds:.1f} s, not {PROMISED_SECONDS:.0f}")
        if self.tried_while_open > self.probes:
            broken.append(f"{self.tried_while_open} messages came to first while its breaker was open")
        if self.returned <= 1:
            broken.append("no mail went through first again")
        return broken

    @property
    def is_well(self) -> bool:
        return not self.failed_promises

    def __str__(self) -> str:
        return (
            f"{self.verdict}; through the next after {self.idle_seconds:.1f} s; {self.probes} probes by"
            f" {self.tried_while_open} messages; {self.returned} through the first again"
        )


def run(database: FreshDatabase, directory: Path, messages: int, *, rate: float) -> Told:
    """Hand in so many messages; the first upstream is dead from the first quarter to the second."""
    ports = steady_ports(2)
    first, second = (SinkProcess(port, directory / f"arrivals-{port}") for port in ports)
    house = House(
        database.dsn,
        database.password,
        processes=2,
        breaker={"open_seconds": 1.0, "open_longest_seconds": 2.0},
        delivery={"first_retry_seconds": 60, "longest_retry_seconds": 600},
        log={"format": "json"},
    )
    house.before_exec = die_with_parent(signal.SIGKILL)
    try:
        house.migrate()
        for sink in (first, second):
            sink.start()
        house.start()
        furnish(house, *ports)
        journals = [directory / "journal-1", directory / "journal-2"]
        with Load(house.smtp_port, journals[0], most=messages // 2, rate=rate) as load:
            first.wait_for(messages // 4, seconds=PATIENCE_SECONDS + messages / rate)
            first.kill()
            died_at, had = time.monotonic(), second.count()
            second.wait_for(had + 1, seconds=PATIENCE_SECONDS)
            idle_seconds = time.monotonic() - died_at
            load.wait()
        before = first.count()
        first.start()
        # As many as are left, and on until all is well again: the probe needs mail to try with.
        with Load(house.smtp_port, journals[1], first=messages, rate=rate) as load:
            wait_until(lambda: load.acknowledged >= messages // 2, seconds=PATIENCE_SECONDS + messages / rate)
            wait_until(lambda: not _is_broken(house), seconds=PATIENCE_SECONDS, what="a closed breaker")
            first.wait_for(before + 2, seconds=PATIENCE_SECONDS)
        # Nothing waits for a retry but what its upstream may have taken as it died: what failed went on at once.
        wait_until(lambda: ask(database, _waiting) == 0, seconds=PATIENCE_SECONDS, what="a queue of doubts alone")
        ask(database, moved_clock(600))
        wait_until(lambda: ask(database, live_entries) == 0, seconds=PATIENCE_SECONDS, what="an empty queue")
        returned = first.count() - before
        snapshot: Snapshot = ask(database, lambda connection: take_snapshot(connection))
        probes, tried = _probes(house, database)
        assert house.stop() == 0
        arrivals = first.arrivals() + second.arrivals()
        return Told(compare(read_journal(*journals), arrivals, snapshot), idle_seconds, probes, tried, returned)
    finally:
        house.close()
        first.kill()
        second.kill()


def _is_broken(house: House) -> bool:
    shown = ControlClient((house.socket,)).get(path_of("upstreams", "first"))
    return bool(shown.data["breaker"] != "closed")


def furnish(house: House, first: int, second: int) -> None:
    """A mailbox app@example.com with the upstreams first and second, at these ports."""
    control = ControlClient((house.socket,))
    control.post(path_of("clients"), {"name": "acme"})
    for name, port in (("first", first), ("second", second)):
        smtp = {"provider": "smtp_relay", "host": "127.0.0.1", "port": port, "tls": "none"}
        control.post(path_of("upstreams"), {"name": name, **smtp})
    control.post(path_of("domains"), {"domain": "example.com", "client": "acme"})
    listed = [{"name": "first"}, {"name": "second"}]
    address = {"email_address": "app@example.com", "daily_send_limit": None}
    control.post(path_of("mailboxes"), {**address, "upstreams": listed, "allow_misaligned": True})


def _probes(house: House, database: FreshDatabase) -> tuple[int, int]:
    """Probes by the log, and messages that were tried at the first upstream while it was not used."""
    events = [json.loads(line) for line in house.log_text().splitlines() if '"breaker_' in line]
    events = [event for event in events if event["upstream"] == "first"]
    probes = sum(event["event"] == "breaker_closed" or bool(event.get("after_probe")) for event in events)
    spans, opened = [], None
    for event in sorted(events, key=lambda each: each["time"]):
        at = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] == "breaker_opened" and opened is None:
            opened = at
        elif event["event"] == "breaker_closed" and opened is not None:
            spans.append((opened + SLACK_SECONDS, at))
            opened = None
    rows = ask(database, lambda connection: connection.fetch(ATTEMPTS))
    tried = {row["message_id"] for row in rows for begin, end in spans if begin < row["at"] < end}
    return probes, len(tried)


async def _waiting(connection: Connection) -> int:
    count: int = await connection.fetchval(
        "SELECT count(*) FROM email_queue q WHERE status IN ('pending', 'queued', 'sending') AND NOT EXISTS"
        " (SELECT FROM email_delivery_logs l WHERE l.entry_id = q.id AND l.event = 'uncertain')"
    )
    return count


async def live_entries(connection: Connection) -> int:
    """How many are not done with."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM email_queue WHERE status IN ('pending', 'queued', 'sending')"
    )
    return count


def moved_clock(seconds: float) -> Any:
    """A question for `ask`: moves the clock of the database and of all that use it."""

    async def move(connection: Connection) -> None:
        await connection.execute(
            "UPDATE relayd_state SET clock_offset = clock_offset + make_interval(secs => $1)", seconds
        )

    return move


def ask(database: FreshDatabase, question: Any) -> Any:
    """What `question` answers, asked with a connection of its own."""

    async def answer() -> Any:
        connection = await database.connect()
        try:
            return await question(connection)
        finally:
            await connection.close()

    with Loop() as loop:
        return loop.do(answer())
