"""A small filesystem of its own, in memory, that a test may fill. Only root may mount one."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = b"\xff" * 65536


class CannotMount(Exception):
    """This process may not mount a filesystem; the text says why."""


class SmallDisk:
    """A mounted filesystem. `fill` leaves no octet; `clear` takes back only what `fill` has put there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, leave_octets: int = 0) -> None:
        """Leave so little room."""
        with self._ballast.open("ab", buffering=0) as ballast:
            while self.free_octets() > leave_octets:
                try:
                    ballast.write(_CHUNK[: max(1, self.free_octets() - leave_octets)])
                except OSError:
                    return

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def free_octets(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Raises CannotMount."""
    path = Path(tempfile.mkdtemp(prefix="relayd-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "relayd-test", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        path.rmdir()
        raise CannotMount("there is no program mount") from None
    if done.returncode != 0:
        path.rmdir()
        raise CannotMount(done.stderr.strip())
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: whoever still has a file open there keeps the filesystem, not its place.
        subprocess.run(["umount", "-l", str(path)], check=True)
        path.rmdir()
