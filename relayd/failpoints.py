"""Named places where a test may kill the process. Inert unless RELAYD_FAILPOINTS is set.

`RELAYD_FAILPOINTS=settle-before:3` kills this process with SIGKILL when it reaches `settle-before` the third time.
"""

import os
import signal
from functools import cache


@cache
def _armed() -> dict[str, int]:
    pairs = (item.partition(":") for item in os.environ.get("RELAYD_FAILPOINTS", "").split(",") if item)
    return {name: int(count or 1) for name, _, count in pairs}


def reach(name: str) -> None:
    """Die here with SIGKILL if a test has armed `name` and this is the visit that it named."""
    armed = _armed()
    if name not in armed:
        return
    armed[name] -= 1
    if armed[name] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
