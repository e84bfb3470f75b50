"""Let the way to Postgres fall silent under load: nothing comes back, and nothing says that it is broken."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relayd.daemon.worker_process import REFUSAL_SECONDS
from tests.crash.ledger import Verdict
from tests.e2e.house import free_port, wait_until
from tests.faults.trial import trial
from tests.peers.postgres_server import PostgresServer, stop_all
from tests.peers.proxy import Proxy


@dataclass(frozen=True)
class Silence:
    """One of them. `unanswered`: clients that heard nothing and gave up. `was_ready`: what /readyz said meanwhile."""

    seconds: float
    unanswered: int
    was_ready: bool


def silences(
    rounds: int,
    directory: Path,
    state: Path,
    *,
    major: int | None = None,
    rate: float = 100.0,
    **sections: Any,
) -> Iterator[Silence | Verdict]:
    """Each silence as it is over, and last the verdict on all of them."""
    server = PostgresServer(state, free_port(), major=major)
    try:
        server.initialise()
        server.start()
        with Proxy(server.port) as proxy:
            dsn = server.dsn.replace(server.host, f"127.0.0.1:{proxy.port}")
            with trial(dsn, server.password, directory, rate=rate, **sections) as running:
                for _ in range(rounds):
                    proxy.fall_silent()
                    # As many as there are connections.
                    running.wait_for_refusals(8)
                    was_ready = running.is_ready()
                    proxy.speak()
                    seconds = running.wait_for_mail()
                    # The other worker may not have had a message since it last refused one.
                    wait_until(running.is_ready, seconds=REFUSAL_SECONDS + 5.0, what="/readyz to agree")
                    yield Silence(seconds, running.load.unanswered, was_ready)
                yield running.verdict(server)
    finally:
        stop_all([server])
