"""For each seeded bug the run that must catch it, and the fault that it must be caught by.

Where chance would take long, the interleaving is directed: by a failpoint, by a reply that the sink keeps back, by a
lock that a claim must wait for.
"""

import contextlib
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relayd.store import lanes, locks
from tests.crash import kills
from tests.crash.kills import Victim
from tests.crash.ledger import Verdict
from tests.crash.machine import Loop
from tests.crash.scene import Scene
from tests.e2e.house import wait_until

Run = Callable[[Mapping[str, str]], Verdict]

KILLS = 1
# How long a thing that is not to happen is given to happen.
NEVER_SECONDS = 8.0
DOUBTS = "SELECT count(*) FROM email_delivery_logs WHERE event = 'uncertain'"
LEAP = "UPDATE relayd_state SET clock_offset = interval '2000 seconds'"


@dataclass(frozen=True)
class Seeded:
    """A seed, the kind of fault that gives it away, and the run in which it does."""

    seed: str
    caught_by: str
    run: Run

    def unseeded(self) -> Verdict:
        """The run as it is: nothing may be wrong."""
        return self.run({})

    def seeded(self) -> Verdict:
        """The run with the bug in every process of relayd."""
        return self.run({"RELAYD_SEED": self.seed, "PYTHONPATH": str(Path(__file__).with_name("seeds"))})


def _killed(failpoint: str, victim: Victim) -> Run:
    def killed(environment: Mapping[str, str]) -> Verdict:
        series = kills.at_failpoint(failpoint, victim, KILLS, random.Random(failpoint), environment)
        if series.kills < KILLS:
            series.verdict.faults["harness"].append(f"only {series.kills} kills took place")
        return series.verdict

    return killed


def _lease_given_away(environment: Mapping[str, str]) -> Verdict:
    """The clock leaps past the lease while the sink keeps the reply back; then the reply comes after all."""
    with Scene(environment, processes=1, first_retry_seconds=5, longest_retry_seconds=5) as scene:
        held = _hold(scene)
        scene.start()
        _hand_in_one(scene)
        wait_until(lambda: scene.sink.delivered == 1, what="the attempt")
        scene.ask(lambda connection: connection.execute(LEAP))
        wait_until(lambda: _count_doubts(scene), what="the doubt")
        held.clear()
        wait_until(lambda: scene.live() == 0, what="an empty queue")
        return scene.verdict(nobody_died=True)


def _slow_upstream(environment: Mapping[str, str]) -> Verdict:
    """The sink takes its time, though far less than an attempt may."""
    with Scene(environment, processes=1) as scene:
        held = _hold(scene)
        scene.start()
        _hand_in_one(scene)
        wait_until(lambda: scene.sink.delivered == 1, what="the attempt")
        _within(NEVER_SECONDS, lambda: _count_doubts(scene))
        held.clear()
        wait_until(lambda: scene.live() == 0, what="an empty queue")
        return scene.verdict(nobody_died=True, nothing_lapsed=True)


# Every claim waits here, after its snapshot and before its first lock, while somebody else holds lock 1.
GATE = """
CREATE OR REPLACE FUNCTION relayd_now() RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF current_query() LIKE '%mailbox_lanes%SKIP LOCKED%' THEN
    PERFORM pg_advisory_xact_lock_shared(1);
  END IF;
  RETURN clock_timestamp() + (SELECT clock_offset FROM relayd_state);
END
$$
"""
CLOSE, OPEN = "SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted AND mode = $1"
LANE = "SELECT id FROM mailbox_lanes WHERE class = 'mail'"
# A wake that finds the lane due leaves it as it is; but it has locked it, and that can be seen too.
LANE_VERSION = "SELECT xmin::text || ' ' || xmax::text FROM mailbox_lanes WHERE class = 'mail'"
LANE_IS_DUE = "SELECT runnable_at <= relayd_now() FROM mailbox_lanes WHERE class = 'mail'"


def _claim_with_an_old_snapshot(environment: Mapping[str, str]) -> Verdict:
    """A message is taken, and its lane woken, between a claim's snapshot and its lock of the lane."""
    with Scene(environment, processes=1) as scene, Loop() as loop:
        keeper, other, observer = (loop.do(scene.database.connect()) for _ in range(3))
        # No chore may mend what goes wrong.
        upkeep = locks.held(observer, locks.UPKEEP)
        assert loop.do(upkeep.__aenter__())
        loop.do(observer.execute(GATE))

        def waiting(mode: str) -> bool:
            return bool(loop.do(observer.fetchval(WAITING, mode)))

        scene.start()
        # The first claim of a day looks twice.
        _hand_in_one(scene)
        wait_until(lambda: scene.live() == 0, what="the first message")

        loop.do(keeper.execute(CLOSE))
        wait_until(lambda: waiting("ShareLock"), what="a claim at the gate")
        loop.do(lanes.wake(observer, [loop.do(observer.fetchval(LANE))]))
        # This claim saw no lane. Let it pass, and the gate be shut again before another one comes.
        shutting = loop.start(other.execute(CLOSE))
        wait_until(lambda: waiting("ExclusiveLock"), what="the gate's next keeper")
        loop.do(keeper.execute(OPEN))
        loop.do(shutting)
        wait_until(lambda: waiting("ShareLock"), what="the claim that sees the lane, and nothing in it")
        assert loop.do(observer.fetchval(LANE_IS_DUE))

        version = loop.do(observer.fetchval(LANE_VERSION))
        _hand_in_one(scene)
        wait_until(lambda: loop.do(observer.fetchval(LANE_VERSION)) != version, what="the wake")
        loop.do(other.execute(OPEN))
        _within(NEVER_SECONDS, lambda: scene.live() == 0)
        verdict = scene.verdict(nobody_died=True, nothing_lapsed=True)
        loop.do(upkeep.__aexit__(None, None, None))
        for connection in (keeper, other, observer):
            loop.do(connection.close())
        return verdict


def _hold(scene: Scene) -> threading.Event:
    """While it is set, the sink keeps its replies back."""
    held = threading.Event()
    held.set()
    scene.sink.is_holding = lambda arrival: held.is_set()
    return held


def _hand_in_one(scene: Scene) -> None:
    with scene.load(most=1, connections=1) as load:
        load.wait()


def _count_doubts(scene: Scene) -> int:
    return int(scene.ask(lambda connection: connection.fetchval(DOUBTS)))


def _within(seconds: float, condition: Callable[[], Any]) -> None:
    """Wait for it, and go on without it."""
    with contextlib.suppress(AssertionError):
        wait_until(condition, seconds=seconds)


SEEDED = (
    Seeded("acknowledge-before-commit", "lost", _killed("enqueue-before", Victim.WORKER)),
    Seeded("no-wait-for-the-disk", "lost", _killed("enqueue-reply", Victim.POSTGRES)),
    Seeded("drop-late-results", "unlogged", _lease_given_away),
    Seeded("short-lease", "needless doubt", _slow_upstream),
    Seeded("refund-doubts", "usage", _killed("upstream-dot-after", Victim.WORKER)),
    Seeded("bounce-on-its-own", "bounce", _killed("settle-bounce", Victim.WORKER)),
    Seeded("idle-by-an-old-look", "stuck", _claim_with_an_old_snapshot),
)


def run_seed(number: int) -> tuple[Verdict, Verdict]:
    """The run of this seed, without it and with it."""
    return SEEDED[number].unseeded(), SEEDED[number].seeded()
