"""What the kernel says of processes: /proc read once for all of them. CPU time in seconds, memory in octets."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `reaped_seconds` is what its ended and waited-for children, and theirs, have used."""

    pid: int
    parent: int
    name: str
    own_seconds: float
    reaped_seconds: float


def descendants(root: int) -> list[Process]:
    """All below `root`, without it."""
    children = defaultdict(list)
    for process in _all():
        children[process.parent].append(process)
    found = list(children[root])
    for process in found:
        found += children[process.pid]
    return found


def tree(root: int) -> list[Process]:
    """`root`, if it lives, and all below it."""
    own = _read(root)
    return ([own] if own else []) + descendants(root)


def pss_octets(root: int) -> int:
    """The proportional set sizes of a tree, summed: pages that are shared count once."""
    total = 0
    for process in tree(root):
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total * 1024


def title(pid: int) -> str:
    """What it is called in `ps`: the role of a Postgres backend is there alone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _all() -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := _read(int(entry.name))):
            yield process


def _read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name is in parentheses and may hold anything, parentheses too.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    user, system, reaped_user, reaped_system = (int(field) * _TICK_SECONDS for field in fields[11:15])
    return Process(pid, int(fields[1]), head.partition("(")[2], user + system, reaped_user + reaped_system)
