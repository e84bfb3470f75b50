"""Whose Postgres it is and how long it lives: the lock on its directory, death with its parent, the pid file."""

import ctypes
import errno
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

from relayd.errors import RelaydError

_PR_SET_PDEATHSIG = 1


class DirectoryLock:
    """Held until released or until this process ends, however it ends. A second holder is refused with our pid."""

    def __init__(self, path: Path, state_directory: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode().strip()
            os.close(self._descriptor)
            if error.errno != errno.EWOULDBLOCK:
                raise
            raise RelaydError(
                f"already running on this state directory (pid {holder}): {state_directory};"
                " stop it first, or choose another --state"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """For Popen's `preexec_fn`: the kernel sends the child `death_signal` when the thread that spawned it ends."""
    # Loaded here, in the parent: after the fork no lock is safe to take.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    expected = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != expected:
            # It ended before we asked.
            os._exit(1)

    return ask_kernel


def running_postmaster(data: Path) -> int | None:
    """The pid of a Postgres that runs on `data`, by its pid file. In doubt it runs: its data is at stake."""
    try:
        pid = int((data / "postmaster.pid").read_text().split(maxsplit=1)[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    status = _status_of(pid)
    if status.get("Name") not in ("postgres", "postmaster") or status.get("State", "Z").startswith("Z"):
        # Gone, or the number belongs to something else by now.
        return None
    try:
        return pid if Path(f"/proc/{pid}/cwd").readlink() == data else None
    except FileNotFoundError:
        return None
    except OSError:
        return pid


def _status_of(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
