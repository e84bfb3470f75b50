"""Read a file that holds a secret. One that everybody on the machine may open is refused: what it held is known by now.

As ssh and Postgres do with private keys; the group may be let in, since a service's own group is how files are shared.
"""

import os
import stat
from pathlib import Path

from relayd.errors import RelaydError

LONGEST_OCTETS = 65536


def read_secret(path: Path) -> bytes:
    """What is in it. Raises RelaydError, which begins with the path. A pipe or a terminal has no mode to judge."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o007:
                raise RelaydError(f"{path} is open to everybody on this machine; run: chmod o= {path}")
            content = file.read(LONGEST_OCTETS + 1)
    except OSError as error:
        raise RelaydError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LONGEST_OCTETS:
        raise RelaydError(f"{path} is too long for a secret")
    return content
