"""The drill "a host with one silent address": its first address answers no SYN, its second takes mail.

`run` hands in messages one at a time, each on a connection of its own. What is promised: each arrives soon, by its
first attempt, and `relayd upstream test` warns of the address that is dead.
"""

import json
import signal
import smtplib
import time
from dataclasses import dataclass
from pathlib import Path

from relayd.control.client import ControlClient, path_of
from relayd.embedded.lifetime import die_with_parent
from tests.conftest import FreshDatabase
from tests.crash.machine import Loop, steady_ports
from tests.e2e.house import House
from tests.failover.sink import SinkProcess
from tests.peers.hosts import silent_address

HOST = "one-silent.test"
SILENT, WORKING = "127.0.0.2", "127.0.0.1"
PATIENCE_SECONDS = 60.0
# An address may be silent for a quarter of a second before the next one is tried; the rest is the machine's.
PROMISED_SECONDS = 5.0

# Index: none; a drill's log is small.
FAILED_ATTEMPTS = "SELECT count(*) FROM email_delivery_logs WHERE event IN ('deferred', 'uncertain', 'postponed')"


@dataclass(frozen=True)
class Told:
    """How it went. `longest_seconds`: from a message's 250 to its arrival. `warning` None: nobody asked for one."""

    messages: int
    arrived: int
    longest_seconds: float
    retries: int
    warning: str | None

    @property
    def failed_promises(self) -> list[str]:
        """What was promised and did not hold; empty if all is well."""
        broken = []
        if self.arrived != self.messages:
            broken.append(f"{self.messages - self.arrived} of {self.messages} messages did not arrive, or came twice")
        if self.retries:
            broken.append(f"{self.retries} attempts failed because one address is silent")
        if self.longest_seconds > PROMISED_SECONDS:
            broken.append(f"a message took {self.longest_seconds:.1f} s, not {PROMISED_SECONDS:.0f}")
        if self.warning == "":
            broken.append("relayd upstream test did not warn of the silent address")
        return broken

    @property
    def is_well(self) -> bool:
        return not self.failed_promises

    def __str__(self) -> str:
        figures = f"{self.arrived} of {self.messages} arrived, the slowest after {self.longest_seconds:.2f} s"
        return f"{figures}; {self.retries} retries; {self.warning if self.warning is not None else 'no trial'}"


def run(database: FreshDatabase, directory: Path, messages: int = 20, *, with_trial: bool = True) -> Told:
    """Hand in so many messages. The trial waits as long as a delivery would for the silent address: half a minute."""
    (port,) = steady_ports(1)
    sink = SinkProcess(port, directory / f"arrivals-{port}")
    house = House(database.dsn, database.password, processes=1)
    house.before_exec = die_with_parent(signal.SIGKILL)
    resolver = {
        "PYTHONPATH": str(Path(__file__).parent / "resolver"),
        "RELAYD_DRILL_HOSTS": json.dumps({HOST: [SILENT, WORKING]}),
    }
    try:
        with silent_address(SILENT, port):
            house.migrate()
            sink.start()
            house.start(**resolver)
            _furnish(house, port)
            longest = max(_send(house, sink, number) for number in range(messages))
            warning = _warning(house) if with_trial else None
            assert house.stop() == 0
        retries = _failed_attempts(database)
        return Told(messages, sink.count(), longest, retries, warning)
    finally:
        house.close()
        sink.kill()


def _furnish(house: House, port: int) -> None:
    control = ControlClient((house.socket,))
    control.post(path_of("clients"), {"name": "acme"})
    smtp = {"provider": "smtp_relay", "host": HOST, "port": port, "tls": "none", "max_messages_per_connection": 1}
    control.post(path_of("upstreams"), {"name": "out", **smtp})
    control.post(path_of("domains"), {"domain": "example.com", "client": "acme"})
    control.post(path_of("mailboxes"), {"email_address": "app@example.com", "daily_send_limit": None})


def _send(house: House, sink: SinkProcess, number: int) -> float:
    """How long the message took after its 250."""
    before = sink.count()
    with smtplib.SMTP("127.0.0.1", house.smtp_port) as client:
        text = f"From: app@example.com\r\nTo: you@example.net\r\nSubject: {number}\r\n\r\n{number}\r\n"
        client.sendmail("app@example.com", ["you@example.net"], text)
        taken = time.monotonic()
    sink.wait_for(before + 1, seconds=PATIENCE_SECONDS)
    return time.monotonic() - taken


def _failed_attempts(database: FreshDatabase) -> int:
    async def count() -> int:
        connection = await database.connect()
        try:
            failed: int = await connection.fetchval(FAILED_ATTEMPTS)
            return failed
        finally:
            await connection.close()

    with Loop() as loop:
        failed: int = loop.do(count())
    return failed


def _warning(house: House) -> str:
    shown = house.run("upstream", "test", "out", "--to", "you@example.net", "--from", "app@example.com", "--json")
    steps = json.loads(shown.stdout)["steps"]
    return next((step["warning"] for step in steps if step["warning"]), "")
