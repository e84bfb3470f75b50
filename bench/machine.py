"""What the results were measured on and with. Neither names of hosts nor paths: they say nothing to a reader."""

import os
import platform
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import relayd
from bench.errors import BenchError
from relayd.embedded.programs import find_programs

_KERNEL_MEMORY = re.compile(r"^MemTotal:\s+(\d+) kB$", re.MULTILINE)
_CPU_MODEL = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
_IN_MEMORY = ("tmpfs", "ramfs", "zram")


def describe(directory: Path) -> dict[str, str]:
    """For the results: names and values, in the order in which they are shown."""
    memory = _KERNEL_MEMORY.search(Path("/proc/meminfo").read_text())
    model = _CPU_MODEL.search(Path("/proc/cpuinfo").read_text())
    return {
        "CPU": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores",
        "Memory": f"{int(memory[1]) / 1024**2:.0f} GB" if memory else "unknown",
        "Disk of queue and database": disk(directory),
        "System": f"{_debian()}, Linux {platform.release()}",
        "relayd": relayd.__version__,
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "PostgreSQL": _postgres(),
        **{name: _package(name) for name in ("postfix", "opendkim", "rspamd")},
    }


def disk(directory: Path) -> str:
    """The file system and kind of device below `directory`. BenchError if that is memory: nothing would be durable."""
    device, kind = max(_mounts_above(directory.resolve()))[1:]
    if kind in _IN_MEMORY:
        raise BenchError(f"{directory} is in memory ({kind}); name a directory on a disk with --directory")
    name = Path(device).name
    if name.startswith(("vd", "xvd")):
        # What a virtual disk says of itself is made up.
        return f"{kind} on a virtual disk"
    number = directory.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    # A partition's device is below its disk's.
    rotational = [path for path in (block / "queue/rotational", block.parent / "queue/rotational") if path.exists()]
    if not rotational:
        return f"{kind} on a disk"
    spins = rotational[0].read_text().strip() == "1"
    return f"{kind} on a {'rotational' if spins else 'solid-state'} disk"


def _mounts_above(directory: Path) -> Iterator[tuple[int, str, str]]:
    """(length of the mount point, device, kind of file system); the longest is the one that counts."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, point, kind = line.split()[:3]
        if directory.is_relative_to(point):
            yield len(point), device, kind


def _debian() -> str:
    release = platform.freedesktop_os_release()
    return release.get("PRETTY_NAME", "Linux")


def _postgres() -> str:
    done = subprocess.run([find_programs().postgres, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.rpartition(" ")[2].strip() or "unknown"


def _package(name: str) -> str:
    done = subprocess.run(["dpkg-query", "-Wf", "${Version}", name], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
