"""The slow drill: one message a minute through a dead first upstream, its return, and a message every three seconds.

By default the drill moves the database's clock by a minute; with `real_time` it waits. Before each message the drill
reads the breaker of the first upstream: the breaker says which way the message must go.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relayd.embedded.lifetime import die_with_parent
from tests.conftest import FreshDatabase
from tests.crash.journal import read_journal
from tests.crash.ledger import Verdict, compare
from tests.crash.load import Load
from tests.crash.machine import steady_ports
from tests.crash.snapshot import Snapshot, take_snapshot
from tests.e2e.house import House, wait_until
from tests.failover.drill import ask, furnish, live_entries, moved_clock
from tests.failover.sink import SinkProcess

MINUTE = 60.0
OPEN_SECONDS = 150.0  # the breaker's pause: two messages a minute apart fall into it
TRICKLE_SECONDS = 3.0
PATIENCE_SECONDS = 60.0
PROMISED_SECONDS = 5.0
# After a moved clock or a message, the workers poll and tell the database what has failed.
SETTLING_SECONDS = 1.0
# A message that is accepted between a worker's look for a probe and its claim leaves without a probe. That is rare.
MISSES_ALLOWED = 1

BREAKER = """
SELECT state, extract(epoch FROM retry_at - relayd_now())::float8 AS due_in_seconds
  FROM upstream_breakers k JOIN email_configurations u ON u.id = k.upstream_id WHERE u.name = 'first'
"""
ENTRY = """
SELECT q.status, q.retry_count AS spent,
       (SELECT count(*) FROM email_delivery_logs g JOIN email_configurations u ON u.id = g.upstream_id
         WHERE g.entry_id = q.id AND g.event = 'sending' AND u.name = 'first') AS tries
  FROM email_queue q WHERE q.recipient_address = $1
"""


@dataclass(frozen=True)
class Step:
    """One message: how things were before it, and what became of it. `went`: the upstream that took it in time."""

    phase: str
    number: int
    first_works: bool
    breaker: str
    is_pause_over: bool
    tries: int  # attempts at the first upstream
    went: str | None
    seconds: float
    spent: int
    breaker_after: str

    @property
    def is_probe(self) -> bool:
        """Whether this message must try the first upstream because its breaker's pause is over."""
        return self.breaker != "closed" and self.is_pause_over

    @property
    def is_missed_probe(self) -> bool:
        return self.is_probe and self.tries == 0 and self.went == "second"

    @property
    def faults(self) -> list[str]:
        """What did not go as it must."""
        tries = 1 if self.breaker == "closed" or self.is_probe else 0
        goal = "first" if tries and self.first_works else "second"
        found = []
        if self.went is None:
            found.append(f"it did not arrive within {PROMISED_SECONDS:.0f} s")
        elif self.went != goal:
            found.append(f"it went through {self.went}, not {goal}")
        if self.tries != tries:
            found.append(f"it was tried {self.tries} times at first, not {tries}")
        if self.spent > 1:
            found.append(f"it spent {self.spent} attempts, not 1")
        if self.is_probe and self.breaker_after != (after := "closed" if self.first_works else "open"):
            found.append(f"the breaker was {self.breaker_after} after its probe, not {after}")
        return found


@dataclass(frozen=True)
class Told:
    """How it went. `shown`: consecutive_failures of the first upstream after each message that it failed, in `status`
    and in `upstream list`; None where the last failure or its time was missing. `failures`: how many open a breaker.
    """

    failures: int
    steps: tuple[Step, ...]
    shown: tuple[tuple[int | None, int | None], ...]
    opened: tuple[bool, ...]  # whether the breaker was open after so many failures, each time that the upstream died
    verdict: Verdict

    @property
    def failed_promises(self) -> list[str]:
        """What was promised and did not hold; empty if all is well."""
        broken = [
            f"{step.phase}, message {step.number}: {fault}"
            for step in self.steps
            if not step.is_missed_probe
            for fault in step.faults
        ]
        if self._missed > MISSES_ALLOWED:
            broken.append(f"{self._missed} messages after the pause of the breaker did not try the first upstream")
        if not all(self.opened):
            broken.append(f"the breaker is not open after {self.failures} failures a minute apart")
        if self.shown != tuple((count, count) for count in range(1, self.failures + 1)):
            broken.append(f"status and upstream list do not show each failure and when it was: {self.shown}")
        if not any(step.is_probe and step.went == "first" for step in self._trickle):
            broken.append("no message of those every 3 s brought the first upstream back")
        if not self.verdict.is_clean or self.verdict.delivered != len(self.steps) or self.verdict.doubted:
            broken.append(f"not every message arrived exactly once: {self.verdict}")
        return broken

    @property
    def is_well(self) -> bool:
        return not self.failed_promises

    def __str__(self) -> str:
        took_over = sum(step.tries == 1 and step.went == "second" for step in self.steps)
        around = sum(step.tries == 0 and step.went == "second" for step in self.steps)
        probes = [step for step in self.steps if step.is_probe and step.tries]
        brought_back = sum(step.went == "first" for step in probes)
        in_time = sum(step.went is not None for step in self.steps)
        slowest = max(step.seconds for step in self.steps)
        return (
            f"{len(self.steps)} messages: {in_time} arrived in time, the slowest after {slowest:.2f} s;"
            f" {took_over} went on through second at once,"
            f" {around} went straight to second; {len(probes)} probes, {brought_back} brought first back,"
            f" {self._missed} missed; {self.verdict}"
        )

    @property
    def _missed(self) -> int:
        return sum(step.is_missed_probe for step in self.steps)

    @property
    def _trickle(self) -> list[Step]:
        return [step for step in self.steps if step.phase == TRICKLE]


DEAD = "first is dead"
DEAD_AGAIN = "first dies again during the pause"
BACK = "first is back"
TRICKLE = "one message every 3 s"


def run(
    database: FreshDatabase, directory: Path, *, failures: int = 5, trickle: int = 10, real_time: bool = False
) -> Told:
    """`failures` in a row open the breaker; `trickle` messages come every three seconds."""
    ports = steady_ports(2)
    first, second = (SinkProcess(port, directory / f"arrivals-{port}") for port in ports)
    house = House(
        database.dsn,
        database.password,
        breaker={"failures": failures, "open_seconds": OPEN_SECONDS, "open_longest_seconds": 4 * OPEN_SECONDS},
        delivery={"first_retry_seconds": 60, "longest_retry_seconds": 600},
    )
    house.before_exec = die_with_parent(signal.SIGKILL)
    try:
        house.migrate()
        second.start()
        house.start()
        furnish(house, *ports)
        drill = _Drill(database, house, first, second, directory / "journal", real_time=real_time)
        _play(drill, failures, trickle)
        wait_until(lambda: drill.is_queue_empty(), seconds=PATIENCE_SECONDS, every=1, what="an empty queue")
        snapshot: Snapshot = ask(database, lambda connection: take_snapshot(connection))
        assert house.stop() == 0
        verdict = compare(read_journal(drill.journal), first.arrivals() + second.arrivals(), snapshot)
        return Told(failures, tuple(drill.steps), tuple(drill.shown), tuple(drill.opened), verdict)
    finally:
        house.close()
        first.kill()
        second.kill()


def _play(drill: "_Drill", failures: int, trickle: int) -> None:
    """Nothing listens at the first upstream when this begins."""
    drill.each_minute(DEAD, failures, then=drill.read_shown)
    drill.opened.append(drill.breaker()[0] == "open")
    drill.each_minute(DEAD, 2)

    drill.start_first()
    drill.kill_first()
    drill.let_pause_end()
    drill.send(DEAD_AGAIN)
    drill.each_minute(DEAD_AGAIN, 1)

    drill.start_first()
    drill.each_minute(BACK, 1)
    drill.let_pause_end()
    drill.send(BACK)
    drill.each_minute(BACK, 3)

    drill.kill_first()
    drill.each_minute(DEAD, failures)
    drill.opened.append(drill.breaker()[0] == "open")
    drill.start_first()
    drill.let_pause_end(but=trickle * TRICKLE_SECONDS / 3)
    for _ in range(trickle):
        drill.send(TRICKLE)
        time.sleep(TRICKLE_SECONDS - SETTLING_SECONDS)


class _Drill:
    def __init__(
        self,
        database: FreshDatabase,
        house: House,
        first: SinkProcess,
        second: SinkProcess,
        journal: Path,
        *,
        real_time: bool,
    ) -> None:
        self._database = database
        self._house = house
        self._sinks = {"first": first, "second": second}
        self._first_works = False
        self._real_time = real_time
        self.journal = journal
        self.steps: list[Step] = []
        self.shown: list[tuple[int | None, int | None]] = []
        self.opened: list[bool] = []

    def start_first(self) -> None:
        self._sinks["first"].start()
        self._first_works = True

    def kill_first(self) -> None:
        self._sinks["first"].kill()
        self._first_works = False

    def each_minute(self, phase: str, messages: int, then: Callable[[], None] = lambda: None) -> None:
        """Each message one minute after what was before it."""
        for _ in range(messages):
            self._let_pass(MINUTE)
            self.send(phase)
            then()

    def let_pause_end(self, but: float = -1.0) -> None:
        """Until the breaker may be tried again, or `but` so many seconds."""
        _, due_in_seconds = self.breaker()
        if due_in_seconds > but:
            self._let_pass(due_in_seconds - but)

    def breaker(self) -> tuple[str, float]:
        """Of the first upstream: its state, and in how many seconds a probe may begin."""
        row = ask(self._database, lambda connection: connection.fetchrow(BREAKER))
        return (row["state"], row["due_in_seconds"] or 0.0) if row else ("closed", 0.0)

    def read_shown(self) -> None:
        """What an operator sees."""
        status = self._house.json("status")["queue"]["upstreams"]
        listed = self._house.json("upstream", "list")["items"]
        self.shown.append((_failures_of_first(status), _failures_of_first(listed)))

    def is_queue_empty(self) -> bool:
        """Lets waiting mail become due, for what was deferred."""
        if ask(self._database, live_entries) == 0:
            return True
        ask(self._database, moved_clock(10 * MINUTE))
        return False

    def send(self, phase: str) -> None:
        """One message, and what became of it."""
        state, due_in_seconds = self.breaker()
        if state != "closed" and abs(due_in_seconds) < 0.5:
            # Too close to say on which side the workers see it.
            time.sleep(1)
            state, due_in_seconds = self.breaker()
        number = len(self.steps) + 1
        with Load(self._house.smtp_port, self.journal, connections=1, first=number, most=1) as load:
            load.wait()
        accepted = time.monotonic()
        went = self._wait_for(number)
        seconds = time.monotonic() - accepted
        time.sleep(SETTLING_SECONDS)
        entry = ask(self._database, lambda connection: connection.fetchrow(ENTRY, f"m{number}@example.net"))
        self.steps.append(
            Step(
                phase=phase,
                number=number,
                first_works=self._first_works,
                breaker=state,
                is_pause_over=due_in_seconds <= 0,
                tries=entry["tries"],
                went=went,
                seconds=seconds,
                spent=entry["spent"],
                breaker_after=self.breaker()[0],
            )
        )

    def _wait_for(self, number: int) -> str | None:
        end = time.monotonic() + PROMISED_SECONDS
        while time.monotonic() < end:
            for name, sink in self._sinks.items():
                if any(arrival.number == number for arrival in sink.arrivals()):
                    return name
            time.sleep(0.02)
        return None

    def _let_pass(self, seconds: float) -> None:
        if self._real_time:
            time.sleep(seconds)
        else:
            ask(self._database, moved_clock(seconds))
            time.sleep(SETTLING_SECONDS)


def _failures_of_first(rows: list[dict[str, Any]]) -> int | None:
    (row,) = [row for row in rows if row["name"] == "first"]
    return row["consecutive_failures"] if row["last_failure"] and row["last_failed_at"] else None
