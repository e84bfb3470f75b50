"""An honest app at a steady rate on a real node, alone and beside strangers: what it waits, and what the log grows."""

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from relayd.control.client import ControlClient, path_of
from tests.e2e.house import House, wait_until
from tests.peers.sink import Sink

KINDS = ("refused", "logins", "slow", "tenant")
LOGIN = "app"
TENANT = "tenant"
WARM_UP_SECONDS = 5.0  # the first few messages wait for caches and connections


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


def measure(house: House, kind: str, seconds: float, secrets: tuple[str, str]) -> Measured:
    """One phase; `alone` has no strangers."""
    before = house.log.stat().st_size
    load = None
    if kind != "alone":
        argv = ["-m", "tests.strangers.loads", kind, str(house.smtp_port), str(seconds), TENANT, secrets[1]]
        load = subprocess.Popen([sys.executable, *argv])
    try:
        # A process of its own: what the sink does must not keep it waiting.
        argv = ["-m", "tests.strangers.app", str(house.smtp_port), str(seconds), LOGIN, secrets[0]]
        taken, failed = json.loads(subprocess.run([sys.executable, *argv], check=True, stdout=subprocess.PIPE).stdout)
    finally:
        if load is not None:
            load.kill()
            load.wait()
    return Measured(kind, taken, failed, house.log.stat().st_size - before)


def drill(house: House, sink: Sink, seconds: float, kinds: tuple[str, ...] = KINDS) -> tuple[list[Measured], int]:
    """The phases, and how many of the honest messages that got a 250 never came to the upstream."""
    secrets = furnish(house, sink)
    warm_up = measure(house, "alone", WARM_UP_SECONDS, secrets)
    phases = [measure(house, kind, seconds, secrets) for kind in ("alone", *kinds)]
    accepted = sum(len(each.seconds) for each in [warm_up, *phases])

    def arrived() -> int:
        return sum(b"Subject: honest" in arrival.content for arrival in list(sink.arrivals))

    with contextlib.suppress(AssertionError):
        wait_until(lambda: arrived() >= accepted, seconds=60)
    return phases, max(0, accepted - arrived())
