"""CPU seconds of Postgres: of some of its processes, or of all. Robust where the machine is shared; times are not."""

from pathlib import Path

_PROC = Path("/proc")


def of_processes(pids: list[int]) -> float:
    """CPU seconds that these have used so far."""
    return sum(_seconds(pid) for pid in pids)


def of_server(postmaster: int) -> float:
    """CPU seconds of the postmaster, of its processes, and of those of them that have ended."""
    children = (_PROC / f"{postmaster}/task/{postmaster}/children").read_text().split()
    return _seconds(postmaster) + _ended_children(postmaster) + of_processes([int(child) for child in children])


def _seconds(pid: int) -> float:
    # Nanoseconds on a CPU; /proc/PID/stat counts in hundredths of a second.
    try:
        return int((_PROC / f"{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _ended_children(pid: int) -> float:
    # The name may hold blanks; what follows it does not. Fields 16 and 17, in hundredths of a second.
    fields = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / 100
