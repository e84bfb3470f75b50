"""The directory in which workers count. Its files belong to one run of the supervisor.

What a dead worker has counted stays counted, or sums would fall; but in one file for all the dead, or a worker that
dies again and again would fill the disk.
"""

import json
import struct
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

# Stands for all the dead in the files' names; no process has this id.
_DEAD = 0


def prepare_directory(path: Path) -> None:
    """Make it if need be and clear what an earlier run has left. Before the first worker starts."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in path.glob("*.db"):
        each.unlink()


def forget_worker(path: Path, pid: int) -> None:
    """Drop a dead worker's gauges and keep its counts. Only once it is dead: it could still count otherwise."""
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
    sums = MmapedDict(str(total))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(left)):
            json.loads(key)
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
    except (RuntimeError, ValueError, struct.error):
        pass  # the disk was full or it died in the middle: the rest cannot be read
    finally:
        sums.close()
