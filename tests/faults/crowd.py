"""Take every connection that Postgres has, under load, and give them back."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.crash.ledger import Verdict
from tests.e2e.house import free_port
from tests.faults.trial import trial
from tests.peers.postgres_server import PostgresServer, stop_all

THROW_OUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'relayd %'"
SLOTS = "SELECT current_setting('max_connections')::int"


class Crowd:
    """Connections that do nothing. `throwing_out`: relayd has none then, else it keeps those that it holds."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._held: list[asyncpg.Connection[asyncpg.Record]] = []

    def enter(self, *, throwing_out: bool) -> None:
        self._loop.run_until_complete(self._enter(throwing_out))

    def leave(self) -> None:
        self._loop.run_until_complete(self._leave())

    def close(self) -> None:
        self.leave()
        self._loop.close()

    async def _enter(self, throwing_out: bool) -> None:
        await self._take_all()
        # Counted by what we hold: who is just being let in has a place and no name yet.
        slots = await self._held[0].fetchval(SLOTS)
        while throwing_out and len(self._held) < slots:
            await self._held[0].fetchval(THROW_OUT)
            await self._take_all()

    async def _take_all(self) -> None:
        while True:
            try:
                self._held.append(
                    await asyncpg.connect(self._server.dsn, password=self._server.password, timeout=10, ssl=False)
                )
            except asyncpg.TooManyConnectionsError:
                return

    async def _leave(self) -> None:
        for connection in self._held:
            await connection.close()
        self._held.clear()


@dataclass(frozen=True)
class Crowding:
    """One of them. `accepted` while no connection was free; `seconds` from there being some to mail being accepted."""

    throwing_out: bool
    accepted: int
    seconds: float


def crowdings(
    rounds: list[bool],
    directory: Path,
    state: Path,
    *,
    major: int | None = None,
    rate: float = 100.0,
    **sections: Any,
) -> Iterator[Crowding | Verdict]:
    """Each crowding as it is over, and last the verdict on all of them. A round says whether relayd is thrown out."""
    server = PostgresServer(state, free_port(), major=major, max_connections="30")
    crowd = Crowd(server)
    try:
        server.initialise()
        server.start()
        with trial(server.dsn, server.password, directory, rate=rate, **sections) as running:
            for throwing_out in rounds:
                crowd.enter(throwing_out=throwing_out)
                before = running.load.acknowledged
                if throwing_out:
                    running.wait_for_refusals()
                else:
                    running.wait_for_mail(100)
                accepted = running.load.acknowledged - before
                began = time.monotonic()
                crowd.leave()
                running.wait_for_mail()
                yield Crowding(throwing_out, accepted, time.monotonic() - began)
            yield running.verdict(server)
    finally:
        crowd.close()
        stop_all([server])
