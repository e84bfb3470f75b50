"""An honest app at a steady rate on a real node, alone and beside strangers: what it waits, and what the log grows."""

import asyncio
import contextlib
import smtplib
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from relayd.control.client import ControlClient, path_of
from tests.e2e.house import House, wait_until
from tests.peers.sink import Sink

KINDS = ("refused", "logins", "slow", "tenant")
LOGIN = "app"
TENANT = "tenant"
RATE = 5.0
WARM_UP = 40  # messages before the first phase: the first few wait for caches and connections
_MESSAGE = b"From: app@example.com\r\nSubject: honest\r\n\r\nHello\r\n"


@dataclass(frozen=True)
class Measured:
    """One phase. Seconds are from connecting to the 250."""

    kind: str
    seconds: list[float]
    failed: int
    log_octets: int

    def percentile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def make_house(dsn: str, password: str) -> House:
    """Two workers that ask for logins."""
    return House(dsn, password, processes=2, trusted_networks=[], submission={"allow_plaintext_auth": True})


def furnish(house: House, sink: Sink) -> tuple[str, str]:
    """A client with one mailbox; the secrets of the app and of the tenant who shares the node."""
    control = ControlClient((house.socket,))
    control.post(path_of("clients"), {"name": "acme"})
    control.post(
        path_of("upstreams"),
        {"name": "sink", "provider": "smtp_relay", "host": "127.0.0.1", "port": sink.port, "tls": "none"},
    )
    control.post(path_of("domains"), {"domain": "example.com", "client": "acme"})
    control.post(path_of("mailboxes"), {"email_address": "app@example.com", "daily_send_limit": None})
    secrets: list[Any] = [
        house.json("credential", "add", login, "--client", "acme")["secret"] for login in (LOGIN, TENANT)
    ]
    return secrets[0], secrets[1]


def send(port: int, secret: str) -> float:
    """One message on a connection of its own; how long it took."""
    began = time.monotonic()
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.login(LOGIN, secret)
        client.sendmail("app@example.com", ["you@example.net"], _MESSAGE)
        return time.monotonic() - began


async def steady(port: int, secret: str, seconds: float) -> tuple[list[float], int]:
    """Messages at the rate, whatever the earlier ones do."""

    async def one(at: float) -> float:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        return await asyncio.to_thread(send, port, secret)

    began = time.monotonic()
    times = [began + number / RATE for number in range(int(seconds * RATE))]
    results = await asyncio.gather(*(one(at) for at in times), return_exceptions=True)
    return [each for each in results if isinstance(each, float)], sum(not isinstance(each, float) for each in results)


def measure(house: House, kind: str, seconds: float, secrets: tuple[str, str]) -> Measured:
    """One phase; `alone` has no strangers."""
    before = house.log.stat().st_size
    load = None
    if kind != "alone":
        argv = ["-m", "tests.strangers.loads", kind, str(house.smtp_port), str(seconds), TENANT, secrets[1]]
        load = subprocess.Popen([sys.executable, *argv])
    try:
        taken, failed = asyncio.run(steady(house.smtp_port, secrets[0], seconds))
    finally:
        if load is not None:
            load.kill()
            load.wait()
    return Measured(kind, taken, failed, house.log.stat().st_size - before)


def drill(house: House, sink: Sink, seconds: float, kinds: tuple[str, ...] = KINDS) -> tuple[list[Measured], int]:
    """The phases, and how many of the honest messages that got a 250 never came to the upstream."""
    secrets = furnish(house, sink)
    for _ in range(WARM_UP):
        send(house.smtp_port, secrets[0])
    phases = [measure(house, kind, seconds, secrets) for kind in ("alone", *kinds)]
    accepted = WARM_UP + sum(len(each.seconds) for each in phases)

    def arrived() -> int:
        return sum(b"Subject: honest" in arrival.content for arrival in list(sink.arrivals))

    with contextlib.suppress(AssertionError):
        wait_until(lambda: arrived() >= accepted, seconds=60)
    return phases, max(0, accepted - arrived())
