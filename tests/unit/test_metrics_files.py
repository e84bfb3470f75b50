"""A full disk costs figures, never a process: what is written to a mapped file has its room before."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.metrics.files import forget_worker, workers_families
from tests.peers.small_disk import CannotMount, SmallDisk, small_disk

# A worker that counts, grows its files and goes on counting.
WORKER = """
import os, sys
from prometheus_client import CollectorRegistry, Counter
from relayd.metrics import own_meter
own_meter()
print("begun", flush=True)
sys.stdin.readline()
many = Counter("many", "Many.", ["label"], registry=CollectorRegistry())
for number in range(20_000):
    many.labels(f"a label of some length {number}").inc()
print(sum(child._value.get() for child in many._metrics.values()), flush=True)
"""


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    try:
        with small_disk(4) as disk:
            yield disk
    except CannotMount as error:
        if os.environ.get("RELAYD_REQUIRE_PEERS"):
            raise
        pytest.skip(f"cannot mount a small filesystem: {error}")


def start(directory: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
    )


@pytest.mark.parametrize("leave_octets", [0, 4096, 100_000, 300_000, 1_000_000])
def test_a_worker_on_a_full_disk_goes_on_counting_in_memory(disk: SmallDisk, leave_octets: int) -> None:
    disk.fill(leave_octets=leave_octets)
    worker = start(disk.path)
    out, err = worker.communicate("on\n", timeout=60)
    assert (worker.returncode, out) == (0, "begun\n20000.0\n")
    assert "No space left on device. The metrics page misses what this process counts" in err
    list(workers_families(disk.path))


def test_a_disk_that_fills_up_later_is_told_once_and_kills_nobody(disk: SmallDisk) -> None:
    worker = start(disk.path)
    assert worker.stdout and worker.stdout.readline() == "begun\n"
    disk.fill()
    out, err = worker.communicate("on\n", timeout=60)
    assert (worker.returncode, out) == (0, "20000.0\n")
    assert err.count("misses what this process counts") == 1
    for gauges in disk.path.glob("gauge_*.db"):
        gauges.unlink()
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        forget_worker(disk.path, worker.pid)
    disk.clear()
    before = {family.name: len(family.samples) for family in workers_families(disk.path)}
    forget_worker(disk.path, worker.pid)
    assert before == {family.name: len(family.samples) for family in workers_families(disk.path)}


def test_with_room_all_counts_are_on_the_page(disk: SmallDisk) -> None:
    worker = start(disk.path)
    _, err = worker.communicate("on\n", timeout=60)
    assert (worker.returncode, err) == (0, "")
    (many,) = [family for family in workers_families(disk.path) if family.name == "many"]
    assert sum(sample.value for sample in many.samples) == 20_000
