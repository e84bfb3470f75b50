"""Named places where a test may kill this process, or another one just then. Inert unless RELAYD_FAILPOINTS is set.

`RELAYD_FAILPOINTS=settle-before:3` kills this process with SIGKILL when it reaches `settle-before` the third time.
`settle-before:3:QUIT:/run/postmaster.pid` sends SIGQUIT to the process that the file names, at every third visit; this
process stays where it is until that one is gone, so that its next step finds it gone. Several are joined by commas.
"""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LONGEST_HOLD_SECONDS = 5.0


@dataclass
class _Failpoint:
    every: int
    signal: signal.Signals
    pid_file: Path | None
    visits: int = 0


@cache
def _armed() -> dict[str, _Failpoint]:
    items = (item.split(":", 3) for item in os.environ.get("RELAYD_FAILPOINTS", "").split(",") if item)
    return {name: _failpoint(*how) for name, *how in items}


def reach(name: str) -> None:
    """Kill if a test has armed `name` and this is the visit that it named."""
    armed = _armed()
    if name in armed:
        _visit(armed[name])


def reach_soon(name: str) -> None:
    """As `reach`, in the loop's next round: what the caller sends now has left, and its answer was not heard."""
    if name in _armed():
        asyncio.get_running_loop().call_soon(reach, name)


def _failpoint(every: str = "1", number: str = "KILL", pid_file: str = "") -> _Failpoint:
    return _Failpoint(int(every), signal.Signals[f"SIG{number}"], Path(pid_file) if pid_file else None)


def _visit(point: _Failpoint) -> None:
    point.visits += 1
    if point.visits % point.every:
        return
    if point.pid_file is None:
        os.kill(os.getpid(), point.signal)
        return
    try:
        victim = int(point.pid_file.read_text().split(maxsplit=1)[0])
        os.kill(victim, point.signal)
    except (OSError, IndexError):
        return  # it is gone already, and nobody has started another yet
    give_up_at = time.monotonic() + LONGEST_HOLD_SECONDS
    while _is_alive(victim) and time.monotonic() < give_up_at:
        time.sleep(0.001)


def _is_alive(pid: int) -> bool:
    try:
        # A zombie is gone: its parent may be slow to say so.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
