"""CPU seconds that trees of processes have used between two moments, by the names of their processes.

Short-lived processes count too: who waits for them carries their time. Per name that time is under "ended".
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from bench import proc


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the trees have used until now: by part (as in `roots`), the living processes."""

    parts: Mapping[str, Mapping[int, tuple[str, proc.Process]]]


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds by part, and within the parts by process name."""

    by_part: dict[str, float]
    by_name: dict[str, float]


def snapshot(roots: Mapping[str, int]) -> Snapshot:
    """Read all trees. `roots`: the top process of each part, by the part's name; parts may be nested."""
    return Snapshot({part: {each.pid: (_name(each), each) for each in proc.tree(root)} for part, root in roots.items()})


def spent(before: Snapshot, after: Snapshot) -> Spent:
    """What was used between the two. A part's figure is exact to the clock's ticks."""
    by_part = {}
    by_name: defaultdict[str, float] = defaultdict(float)
    for part, now in after.parts.items():
        then = before.parts.get(part, {})
        by_part[part] = _total(now) - _total(then)
        for pid, (name, process) in now.items():
            old = then[pid][1] if pid in then else None
            by_name[f"{part}: {name}"] += process.own_seconds - (old.own_seconds if old else 0.0)
            by_name[f"{part}: ended"] += process.reaped_seconds - (old.reaped_seconds if old else 0.0)
        for pid, (_, process) in then.items():
            if pid not in now:
                # Its whole life has gone to whoever waited for it; what was before the first snapshot is not ours.
                by_name[f"{part}: ended"] -= process.own_seconds + process.reaped_seconds
    return Spent(by_part, dict(sorted(by_name.items(), key=lambda item: -item[1])))


def _total(processes: Mapping[int, tuple[str, proc.Process]]) -> float:
    return sum(process.own_seconds + process.reaped_seconds for _, process in processes.values())


def _name(process: proc.Process) -> str:
    title = proc.title(process.pid)
    if title.startswith("postgres: "):
        role = title.removeprefix("postgres: ")
        return "backend" if "[local]" in role else re.split(r"\s\s|\s$|\d", role)[0].strip()
    if process.name.startswith("python"):
        return "supervisor" if " serve" in title else "worker"
    return process.name
