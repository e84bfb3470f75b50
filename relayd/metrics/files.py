"""The directory in which workers count. Its files belong to one run of the supervisor.

What a dead worker has counted stays counted, or sums would fall; but in one file for all the dead, or a worker that
dies again and again would fill the disk.
"""

import json
import logging
import mmap
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

log = logging.getLogger(__name__)

FILE_OCTETS = 256 * 1024
# Stands for all the dead in the files' names; no process has this id.
_DEAD = 0


class AllocatedDict(MmapedDict):
    """A file of counts whose room is really there: writing to a part of a mapped file that the disk has no room for
    kills the process (SIGBUS). Where there is no room it counts in memory alone, and says so.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            with Path(filename).open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, max(FILE_OCTETS, file.tell()))
        except OSError as error:
            self._say(filename, error)
            filename = f"/proc/self/fd/{_new_memory_file(0)}"
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + 64 > self._capacity:
            self._grow(self._capacity * 2)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self, capacity: int) -> None:
        try:
            os.posix_fallocate(self._f.fileno(), 0, capacity)
        except OSError as error:
            self._say(self._fname, error)
            self._f.close()
            descriptor = _new_memory_file(capacity)
            os.pwrite(descriptor, self._m[: self._capacity], 0)
            self._f = os.fdopen(descriptor, "r+b")
        self._m.close()
        self._m = mmap.mmap(self._f.fileno(), capacity)
        self._capacity = capacity

    @staticmethod
    def _say(filename: str, error: OSError) -> None:
        log.warning(
            "%s: %s. The metrics page misses what this process counts: make room there, then restart relayd",
            filename,
            error.strerror or error,
        )


def count_in_allocated_files() -> None:
    """Have the metrics of this process use them. Before its first metric."""
    values.MmapedDict = AllocatedDict  # type: ignore[attr-defined]


def _new_memory_file(octets: int) -> int:
    """The descriptor of a file that is on no disk."""
    descriptor = os.memfd_create("metrics")
    os.ftruncate(descriptor, octets)
    return descriptor


def prepare_directory(path: Path) -> None:
    """Make it if need be and clear what an earlier run has left. Before the first worker starts."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in path.glob("*.db"):
        each.unlink()


def forget_worker(path: Path, pid: int) -> None:
    """Drop a dead worker's gauges and keep its counts. Only once it is dead: it could still count otherwise.

    Raises OSError where there is no room for them; try again later.
    """
    for gauges in path.glob(f"gauge_*_{pid}.db"):
        gauges.unlink()
    for kind in ("counter", "histogram"):
        left = path / f"{kind}_{pid}.db"
        if left.exists():
            _add(left, path / f"{kind}_{_DEAD}.db")
            left.unlink()


def workers_families(path: Path) -> Iterable[Metric]:
    """The sums over all workers, living and dead."""
    # A worker that is just starting has made its file and not yet filled it.
    files = [str(each) for each in path.glob("*.db") if each.stat().st_size]
    families: Iterable[Metric] = MultiProcessCollector.merge(files)
    return families


def _add(left: Path, total: Path) -> None:
    with total.open("ab") as file:
        # Room for the case that it has none of these keys.
        os.posix_fallocate(file.fileno(), 0, max(FILE_OCTETS, file.tell(), left.stat().st_size + _used(total)))
    sums = MmapedDict(str(total))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(left)):
            json.loads(key)
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
    except (RuntimeError, ValueError, struct.error):
        pass  # the disk was full or it died in the middle: the rest cannot be read
    finally:
        sums.close()


def _used(path: Path) -> int:
    with path.open("rb") as file:
        return int.from_bytes(file.read(4), sys.byteorder)
