"""A relayd under load on a database that somebody is about to harm, and the ledger of it afterwards."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from relayd.store import migrate
from relayd.store.connection import Connector
from relayd.store.dsn import parse_dsn
from tests.crash.journal import read_journal
from tests.crash.ledger import Verdict, compare
from tests.crash.load import Load
from tests.crash.recorder import Recorder, read_arrivals
from tests.crash.snapshot import Snapshot, take_snapshot
from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until
from tests.peers.postgres_server import PostgresServer, run

# More than the load has connections: what was under way when the harm was done is answered by then.
SURELY_NEW = 20


class Trial:
    """A node, its sink, and the load on it. What it was told is in the files of `directory`."""

    def __init__(self, house: House, sink: Recorder, load: Load, directory: Path) -> None:
        self.house = house
        self.sink = sink
        self.load = load
        self._directory = directory

    def wait_for_mail(self, count: int = SURELY_NEW, *, seconds: float = 60.0) -> float:
        """Seconds until so many more are acknowledged."""
        began = time.monotonic()
        wanted = self.load.acknowledged + count
        wait_until(lambda: self.load.acknowledged >= wanted, seconds=seconds, what="mail being accepted")
        return time.monotonic() - began

    def wait_for_refusals(self, count: int = 5, *, seconds: float = 60.0) -> None:
        """Until so many more are refused."""
        wanted = self.load.refused + count
        wait_until(lambda: self.load.refused >= wanted, seconds=seconds, what="refusals")

    def is_ready(self) -> bool:
        """What /readyz says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.house.http_port}/readyz", timeout=30):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code != 503

    def verdict(self, server: PostgresServer, *, seconds: float = 90.0) -> Verdict:
        """End the load, let the queue run empty, stop the node, and compare."""
        self.load.stop()
        wait_until(lambda: not _live(server), seconds=seconds, what="an empty queue")
        assert self.house.stop(60) == 0
        verdict = compare(
            read_journal(self._directory / "journal"),
            read_arrivals(self._directory / "arrivals"),
            run(_snapshot(server)),
        )
        # What is refused on the way is asked to come again, and told nothing of the cause.
        codes = {handed.code for handed in read_journal(self._directory / "journal")} - {0, 250}
        if codes - {451, 421}:
            verdict.faults["reply"].append(f"refused with {sorted(codes)}")
        return verdict


@contextmanager
def trial(
    dsn: str, password: str, directory: Path, *, rate: float = 100.0, connections: int = 8, **sections: Any
) -> Iterator[Trial]:
    """`sections` are of the node's configuration."""
    settings: dict[str, Any] = {"delivery": {"poll_seconds": 0.2, "first_retry_seconds": 0.5}, **sections}
    house = House(dsn, password, **settings)
    try:
        run(_migrate(dsn, password))
        house.start()
        with Recorder(directory / "arrivals") as sink:
            furnish(house, sink.port)
            with Load(house.smtp_port, directory / "journal", connections=connections, rate=rate) as load:
                running = Trial(house, sink, load, directory)
                running.wait_for_mail()
                yield running
    except BaseException as error:
        error.add_note(f"the node's log ends:\n{house.log_text()[-3000:]}")
        raise
    finally:
        house.close()


async def _migrate(dsn: str, password: str) -> None:
    connection = await Connector(parse_dsn(dsn, password)).connect()
    await migrate.up(connection, directory=migrate.find_directory())
    await connection.close()


def _live(server: PostgresServer) -> bool:
    try:
        rows = server.execute("SELECT FROM email_queue WHERE status IN ('pending', 'queued', 'sending') LIMIT 1")
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return True
    return bool(rows)


async def _snapshot(server: PostgresServer) -> Snapshot:
    connection = await server.connect()
    try:
        return await take_snapshot(connection)
    finally:
        await connection.close()
