"""Keep this process's memory to itself: no core file, and no look into it by others of the same user.

It holds keys, passwords and mail. RELAYD_DUMPABLE=1 leaves it open, for a debugger or a profiler.
"""

import ctypes
import os
import resource

OVERRIDE = "RELAYD_DUMPABLE"
_PR_SET_DUMPABLE = 4


def close_memory() -> None:
    """Call it first thing in every process: an exec opens the memory again."""
    if os.environ.get(OVERRIDE) == "1":
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit alone does not keep a core from a program that the kernel hands it to (core_pattern with a pipe).
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
