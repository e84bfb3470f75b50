"""Kill the worker, the supervisor or Postgres, at a failpoint or at any moment, under load, many times over."""

import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.crash.ledger import Verdict
from tests.crash.machine import alive_among
from tests.crash.scene import Scene, mixed

# In the order in which a message passes them. docs/testing.md says where each one is.
FAILPOINTS = (
    "data-read",
    "enqueue-before",
    "enqueue-sent",
    "enqueue-committed",
    "enqueue-reply",
    "claimed",
    "start-sent",
    "attempt-started",
    "upstream-data-before",
    "upstream-dot-before",
    "upstream-dot-after",
    "attempt-ended",
    "settle-before",
    "settle-bounce",
    "settle-commit",
    "settle-sent",
    "settle-bounce-sent",
    "settle-after",
)
RATE = 80.0
CONNECTIONS = 8
LOOK_SECONDS = 0.01
# A series that comes to nothing must end too.
LONGEST_SECONDS_A_KILL = 15.0


class Victim(StrEnum):
    WORKER = "worker"
    SUPERVISOR = "supervisor"
    POSTGRES = "postgres"


@dataclass(frozen=True)
class Series:
    """What so many kills of one kind came to."""

    failpoint: str
    victim: str
    wanted: int
    kills: int
    verdict: Verdict
    seconds: float
    complaints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        """What is wrong; none if it went as it must."""
        few = [f"only {self.kills} of {self.wanted} took place"] if self.kills < self.wanted else []
        idle = ["nothing was acknowledged: there was no load"] if not self.verdict.acknowledged else []
        return [*few, *idle, *self.complaints, *self.verdict.lines()]


def at_failpoint(
    failpoint: str, victim: Victim, kills: int, dice: random.Random, environment: Mapping[str, str] | None = None
) -> Series:
    """One node, killed so often just there; at the end what it has is drained and the ledger read."""
    began = time.monotonic()
    with Scene(environment) as scene:
        # What furnishes the node passes no failpoint.
        scene.start(RELAYD_FAILPOINTS=_arm(scene, failpoint, victim, dice))
        with scene.load(rate=RATE, connections=CONNECTIONS, recipient=mixed):
            watch = _Watch(scene)
            give_up_at = time.monotonic() + 30 + kills * LONGEST_SECONDS_A_KILL
            while watch.deaths < kills and time.monotonic() < give_up_at:
                if watch.look():
                    scene.start(RELAYD_FAILPOINTS=_arm(scene, failpoint, victim, dice))
                time.sleep(LOOK_SECONDS)
        watch.look()
        scene.drain()
        return Series(failpoint, victim, kills, watch.deaths, scene.verdict(), time.monotonic() - began)


def at_random(kills: int, dice: random.Random, limit: str = "unlimited") -> Series:
    """Whoever, whenever. With a `limit` most of the load stays in the queue, and not one more may leave it."""
    began = time.monotonic()
    with Scene(limit=limit) as scene:
        scene.start()
        with scene.load(rate=RATE, connections=CONNECTIONS, recipient=mixed):
            watch = _Watch(scene)
            give_up_at = time.monotonic() + 30 + kills * LONGEST_SECONDS_A_KILL
            while watch.deaths < kills and time.monotonic() < give_up_at:
                time.sleep(dice.uniform(0, 1))
                _kill(scene, dice.choice(list(Victim)), dice)
                if watch.look():
                    scene.start()
        scene.drain()
        verdict = scene.verdict()
    is_limited = limit != "unlimited"
    complaints = ("the limit was never reached",) if is_limited and not verdict.queued else ()
    return Series(f"random, {limit}", "any", kills, watch.deaths, verdict, time.monotonic() - began, complaints)


class _Watch:
    """Counts the dead and restarts Postgres; the supervisor sees to its workers itself."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._workers: set[int] = set()
        self.deaths = 0

    def look(self) -> bool:
        """True if the node has to be started again."""
        if not self._scene.has_postgres:
            self.deaths += 1 + self._scene.start_postgres()
        if not self._scene.is_running:
            self.deaths += 1
            self._workers.clear()
            return True
        living = alive_among(self._workers)
        self.deaths += len(self._workers - living)
        self._workers = living | set(_workers(self._scene))
        return False


def _kill(scene: Scene, victim: Victim, dice: random.Random) -> None:
    match victim:
        case Victim.WORKER:
            workers = _workers(scene)
            if workers:
                os.kill(dice.choice(workers), signal.SIGKILL)
        case Victim.SUPERVISOR:
            assert scene.house.process
            scene.house.process.kill()
            scene.house.process.wait()
        case Victim.POSTGRES:
            scene.stop_postgres_at_once()


def _workers(scene: Scene) -> list[int]:
    try:
        return scene.house.worker_pids()
    except FileNotFoundError:
        return []  # the supervisor has just died


def _arm(scene: Scene, failpoint: str, victim: Victim, dice: random.Random) -> str:
    # Bounces are fewer than messages.
    every = dice.randint(1, 4) if "bounce" in failpoint else dice.randint(5, 25)
    match victim:
        case Victim.WORKER:
            return f"{failpoint}:{every}"
        case Victim.SUPERVISOR:
            return f"{failpoint}:{every}:KILL:{scene.supervisor_pid_file}"
        case Victim.POSTGRES:
            return f"{failpoint}:{every}:QUIT:{scene.postmaster_pid_file}"
