"""Start and end processes of the bench's own. Each dies with the bench, and none is ended but by its pid.

The bench is a subreaper: what its children leave behind becomes its child, so that `sweep` finds it at the end.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import proc
from bench.errors import BenchError
from bench.loopback import loopback
from relayd.embedded.lifetime import die_with_parent

START_SECONDS = 30.0
_STOP_SECONDS = 40.0
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """From now on orphans among our descendants become our children. Linux only, as the bench is."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(
    arguments: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Run it in a session of its own, so that Ctrl-C reaches the bench alone, which ends the others in order."""
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "RELAYD_DUMPABLE": "1", **(environment or {})},
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )


def stop(process: "subprocess.Popen[bytes] | None") -> None:
    """SIGTERM to it, SIGKILL to whatever of its tree does not follow. Harmless when it has ended."""
    if process is None or process.poll() is not None:
        return
    family = proc.descendants(process.pid)
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # What it did not end has become our child; a number that is somebody else's by now has not.
    ours = {each.pid for each in proc.descendants(os.getpid()) if each.parent == os.getpid()}
    for child in family:
        if child.pid in ours:
            _end(child.pid)


def run(arguments: Sequence[str], *, log: Path, seconds: float = 60.0) -> None:
    """A command that ends by itself. Raises BenchError with its last words when it fails or takes too long."""
    process = start(arguments, log=log)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{arguments[0]} did not end within {seconds:.0f} s") from None
    finally:
        stop(process)
    if code != 0:
        raise BenchError(f"{' '.join(arguments)} failed: {last_words(log)}")


def wait_for_port(address: str, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return once something listens there; BenchError when the process ends first or time runs out."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((loopback(address), port), timeout=5):
            return
        time.sleep(0.05)
    raise BenchError(f"{process.args!r} does not listen on port {port}: {last_words(log)}")


def wait_for_path(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """As wait_for_port, for a Unix socket."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if path.is_socket():
            return
        time.sleep(0.05)
    raise BenchError(f"{process.args!r} made no socket: {last_words(log)}")


def last_words(log: Path) -> str:
    """The end of a log, for a message."""
    text = log.read_text(errors="replace").strip() if log.exists() else ""
    return " | ".join(text.splitlines()[-5:]) or "it said nothing"


def sweep() -> None:
    """Kill every descendant that is left, by pid, and reap it. After an orderly end there is none."""
    while left := proc.descendants(os.getpid()):
        for each in left:
            _end(each.pid)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        # Not a child yet if its parent still lives; the next sweep finds it.
        os.waitpid(pid, 0)
