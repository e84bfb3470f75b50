"""Kill workers under load, and let new ones fail to start: no file descriptor, no memory, no process left."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.crash.kills import CONNECTIONS, LONGEST_SECONDS_A_KILL, RATE, Series
from tests.crash.scene import Scene, mixed
from tests.e2e.house import wait_until

WORKERS = 2
# All workers serve again so soon after a shortage has ended.
RECOVERY_SECONDS = 30.0
SHORTAGE_SECONDS = 5.0
PIDS_CGROUPS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))


def shortages(kills: int, failed_starts: int, dice: random.Random) -> Series:
    """So many kills of workers at random; in `failed_starts` of them the new worker cannot start for a while."""
    began = time.monotonic()
    complaints: list[str] = []
    done, failed, slowest = 0, dict.fromkeys(KINDS, 0), 0.0
    with Scene(processes=WORKERS) as scene:
        scene.start()
        with scene.load(rate=RATE, connections=CONNECTIONS, recipient=mixed):
            wait_until(lambda: _all_serve(scene), what="all workers")
            while done < kills and not complaints and time.monotonic() - began < 60 + kills * LONGEST_SECONDS_A_KILL:
                # As many as there still must be, spread over the kills that are left.
                if dice.random() < (failed_starts - sum(failed.values())) / (kills - done):
                    kind = dice.choice(list(KINDS))
                    failed[kind] += 1
                    killed, problems = _fail_start(scene, kind, dice)
                    complaints += problems
                else:
                    kind = "shortage"
                    killed = _kill_worker(scene, dice)
                done += 1
                lifted = time.monotonic()
                try:
                    wait_until(partial(_all_serve, scene, killed), seconds=RECOVERY_SECONDS)
                except AssertionError:
                    complaints.append(f"no {kind}: after {RECOVERY_SECONDS:g} s not all workers serve")
                slowest = max(slowest, time.monotonic() - lifted)
                time.sleep(dice.uniform(0, 1))
        if complaints:
            complaints += [line for line in scene.house.log_text().splitlines() if "attempt_ended" not in line][-30:]
        scene.drain()
        verdict = scene.verdict()
    each = ", ".join(f"{count} x no {kind}" for kind, count in failed.items())
    note = f"starts that failed: {each}; all workers served again within {slowest:.1f} s"
    seconds = time.monotonic() - began
    return Series("shortages", "worker", kills, done, verdict, seconds, tuple(complaints), (note,))


def _fail_start(scene: Scene, kind: str, dice: random.Random) -> tuple[int, list[str]]:
    assert scene.house.process
    before = _failed_starts(scene)
    with KINDS[kind](scene.house.process.pid, dice):
        killed = _kill_worker(scene, dice)
        with suppress(AssertionError):
            wait_until(lambda: _failed_starts(scene) > before, seconds=2 * SHORTAGE_SECONDS)
        time.sleep(dice.uniform(0, SHORTAGE_SECONDS))
    return killed, [] if _failed_starts(scene) > before else [f"no {kind}: no start failed"]


def _kill_worker(scene: Scene, dice: random.Random) -> int:
    pid = dice.choice(scene.house.worker_pids())
    os.kill(pid, signal.SIGKILL)
    return pid


def _failed_starts(scene: Scene) -> int:
    log = scene.house.log_text()
    return log.count("event=worker_died") - log.count("it was killed by SIGKILL")


def _all_serve(scene: Scene, killed: int = 0) -> bool:
    try:
        return killed not in scene.house.worker_pids() and scene.house.metric("relayd_workers") == WORKERS
    except OSError:  # an HTTP error is one
        return False


@contextmanager
def _no_file_descriptor(pid: int, dice: random.Random) -> Iterator[None]:
    used = len(os.listdir(f"/proc/{pid}/fd"))
    with _limit(pid, resource.RLIMIT_NOFILE, used + dice.randint(0, 1)):
        yield


@contextmanager
def _no_memory(pid: int, dice: random.Random) -> Iterator[None]:
    """Of address space: too little for a new Python, and no more for the supervisor itself."""
    with _limit(pid, resource.RLIMIT_AS, dice.randint(5, 60) * 1024 * 1024):
        yield


@contextmanager
def _no_process(pid: int, dice: random.Random) -> Iterator[None]:
    """By a control group: root's own limit of processes binds nobody."""
    parent = next(each for each in PIDS_CGROUPS if (each / "cgroup.procs").exists())
    group = parent / f"relayd-{pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text((group / "pids.current").read_text())
        yield
    finally:
        for each in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (parent / "cgroup.procs").write_text(each)
        group.rmdir()


@contextmanager
def _limit(pid: int, which: int, soft: int) -> Iterator[None]:
    former = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (soft, former[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, which, former)


KINDS: dict[str, Callable[[int, random.Random], AbstractContextManager[None]]] = {
    "file descriptor": _no_file_descriptor,
    "memory": _no_memory,
    "process": _no_process,
}
