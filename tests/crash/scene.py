"""One node on its own Postgres, a sink and a load: what a crash needs, and what the ledger reads afterwards.

Postgres runs with fsync and synchronous_commit on, and its WAL writer almost asleep: an immediate stop then loses every
commit that nobody waited for, as a loss of power would, rather than the few of the last 200 ms. The data may lie in
memory: a process that is killed takes nothing with it that it had written to a file.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from relayd.embedded import EmbeddedPostgres
from relayd.embedded.lifetime import die_with_parent
from relayd.errors import RelaydError
from relayd.store import migrate
from relayd.store.connection import Connection
from tests.conftest import FreshDatabase, state_directory_of_its_own, wanted_major
from tests.crash.journal import read_journal
from tests.crash.ledger import Verdict, compare
from tests.crash.load import Load
from tests.crash.machine import Loop, steady_ports
from tests.crash.recorder import Recorder, read_arrivals
from tests.crash.snapshot import take_snapshot
from tests.e2e.conftest import furnish
from tests.e2e.house import House, is_alive, wait_until

ROOT = Path(__file__).parents[2]
DRAIN_SECONDS = 10.0
EMPTY_SECONDS = 60.0
# Commits that wait for nobody stay in memory for long.
SLEEPY_WAL_WRITER = ("ALTER SYSTEM SET wal_writer_delay = '10s'", "ALTER SYSTEM SET wal_writer_flush_after = '64MB'")
# What is not done, but for what waits for its mailbox's limit and for nothing else.
LIVE = """
SELECT count(*) FROM email_queue q JOIN mailbox_lanes l ON l.id = q.lane_id
 WHERE q.status IN ('pending', 'sending') OR (q.status = 'queued' AND l.blocked_until <= relayd_now())
"""


def mixed(number: int) -> str:
    """Recipients of which one in eight is refused for good, and another one once."""
    return f"{ {3: 'refused', 6: 'deferred'}.get(number % 8, 'm') }{number}@example.net"


class Scene:
    """Use as a context manager. `start` the node, let `load` run, break things, then ask for the `verdict`."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        processes: int = 2,
        limit: str = "unlimited",
        **delivery: Any,
    ) -> None:
        self._environment = dict(environment or {})
        self._processes = processes
        self._limit = limit
        self._delivery = delivery
        self._journals: list[Path] = []
        self._is_furnished = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relayd-crash-")))
            state = stack.enter_context(state_directory_of_its_own())
            self.postgres = stack.enter_context(EmbeddedPostgres(state, major=wanted_major()))
            self.postmaster_pid_file = state / "postgres" / "data" / "postmaster.pid"
            self.supervisor_pid_file = self.directory / "supervisor.pid"
            self.database = FreshDatabase(self.postgres.dsn, self.postgres.password)
            self.ask(_set_up)
            self.sink = stack.enter_context(Recorder(self.directory / "arrivals"))
            smtp_port, http_port = steady_ports(2)
            self.house = House(
                self.postgres.dsn,
                self.postgres.password,
                processes=self._processes,
                submission={"listen": [f"127.0.0.1:{smtp_port}"]},
                http={"listen": f"127.0.0.1:{http_port}"},
                log={"level": "warning"},
                delivery={
                    "first_retry_seconds": 0.2,
                    "longest_retry_seconds": 1,
                    "drain_seconds": DRAIN_SECONDS,
                    **self._delivery,
                },
            )
            self.house.smtp_port, self.house.http_port = smtp_port, http_port
            # However this harness ends, it leaves nobody behind.
            self.house.before_exec = die_with_parent(signal.SIGKILL)
            stack.callback(self.house.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # The node.

    @property
    def is_running(self) -> bool:
        process = self.house.process
        return process is not None and process.poll() is None

    def start(self, **environment: str) -> None:
        """Start the node; the first time with a client, a mailbox and the sink for an upstream.

        Postgres may be dying just now, of a kill that came before; then it is started again, and the node after it.
        """
        environment = {**self._environment, **environment}
        path = environment.get("PYTHONPATH") or os.environ.get("PYTHONPATH")
        # The seeds and the failpoints are this tree's, whatever else is installed.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [path, str(ROOT)]))
        while not self._has_started(environment):
            wait_until(
                lambda: not self.has_postgres, seconds=5, what=f"a reason for\n{self.house.log_text()[-3000:]}\n"
            )
            self.start_postgres()
        if not self._is_furnished:
            self._is_furnished = True
            furnish(self.house, self.sink.port, limit=self._limit)
            # There to stay: a seed that loses commits is to lose messages, not the mailbox that they come from.
            self.ask(lambda connection: connection.execute("CHECKPOINT"))

    def _has_started(self, environment: Mapping[str, str]) -> bool:
        """True too if a failpoint came before it was ready: whoever watches sees it dead."""
        self.house.spawn(**environment)
        process = self.house.process
        assert process
        self.supervisor_pid_file.write_text(str(process.pid))
        return self.house.notifications.wait_for("READY=1", 60, process) or process.wait(60) == -signal.SIGKILL

    def load(self, **settings: Any) -> Load:
        """A load with a journal of its own; use it as a context manager."""
        journal = self.directory / f"journal-{len(self._journals)}"
        first = len(self._journals) * 1_000_000 + 1
        self._journals.append(journal)
        return Load(self.house.smtp_port, journal, first=first, **settings)

    # Its Postgres.

    def stop_postgres_at_once(self) -> None:
        """As a failure of power would, without a last word to the disk."""
        os.kill(self.postgres.pid, signal.SIGQUIT)

    @property
    def has_postgres(self) -> bool:
        return is_alive(self.postgres.pid)

    def start_postgres(self) -> int:
        """Start it again after it has died; returns how often it died anew meanwhile."""
        deaths = 0
        while True:
            self.postgres.stop()
            try:
                self.postgres.start()
            except RelaydError:
                deaths += 1
                if deaths > 20:
                    raise
            else:
                return deaths

    def ask(self, question: Callable[[Connection], Coroutine[Any, Any, Any]]) -> Any:
        """Put a question to the database, on a connection outside relayd."""

        async def answer() -> Any:
            connection = await self.database.connect()
            try:
                return await question(connection)
            finally:
                await connection.close()

        with Loop() as loop:
            return loop.do(answer())

    # The end.

    def live(self) -> int:
        """Entries that are not done yet and could be."""
        return int(self.ask(lambda connection: connection.fetchval(LIVE)))

    def drain(self) -> None:
        """Let a node without failpoints end what there is."""
        if self.house.process:
            # Not a drain: at a failpoint that is still armed it would hardly come to its end.
            self.house.kill()
        if not self.has_postgres:
            self.start_postgres()
        self.start()
        self.empty()

    def empty(self) -> None:
        """Wait until the queue is empty; what is not done within a minute is for the ledger to name."""
        with suppress(AssertionError):
            wait_until(lambda: self.live() == 0, seconds=EMPTY_SECONDS)

    def verdict(
        self, *, nobody_died: bool = False, nothing_lapsed: bool = False, patience_seconds: float = 2.0
    ) -> Verdict:
        """The ledger of everything that this scene has seen."""
        snapshot = self.ask(lambda connection: take_snapshot(connection, patience_seconds=patience_seconds))
        return compare(
            read_journal(*self._journals),
            read_arrivals(self.directory / "arrivals"),
            snapshot,
            nobody_died=nobody_died,
            nothing_lapsed=nothing_lapsed,
        )


async def _set_up(connection: Connection) -> None:
    await migrate.up(connection, directory=migrate.find_directory())
    for statement in SLEEPY_WAL_WRITER:
        await connection.execute(statement)
    await connection.execute("SELECT pg_reload_conf()")
