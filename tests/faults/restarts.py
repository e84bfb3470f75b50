"""Restart Postgres under load, again and again."""

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.ledger import Verdict
from tests.e2e.house import free_port
from tests.faults.trial import trial
from tests.peers.postgres_server import PostgresServer, stop_all


@dataclass(frozen=True)
class Restart:
    """One of them. `seconds`: from its being there again to mail being acknowledged."""

    how: signal.Signals
    seconds: float


def restarts(
    ways: Sequence[signal.Signals],
    directory: Path,
    state: Path,
    *,
    major: int | None = None,
    rate: float = 100.0,
    **sections: Any,
) -> Iterator[Restart | Verdict]:
    """Each restart as it is done, and last the verdict on all of them."""
    server = PostgresServer(state, free_port(), major=major)
    try:
        server.initialise()
        server.start()
        with trial(server.dsn, server.password, directory, rate=rate, **sections) as running:
            for how in ways:
                server.stop(how)
                running.wait_for_refusals()
                server.start()
                began = time.monotonic()
                running.wait_for_mail()
                yield Restart(how, time.monotonic() - began)
            yield running.verdict(server)
    finally:
        stop_all([server])
