"""`relayd …` in a process of its own that has no need to load anything: it is forked off one that has.

A new interpreter would add a quarter of a second, and more than a second to a start that fails. What goes on serving
is started as users start it.
"""

import asyncio
import multiprocessing
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 60.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.preloaded"])


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str


def run(argv: Sequence[str], *, stdin: str = "", environment: Mapping[str, str] | None = None) -> Ran:
    """Run it to its end. `environment` is added to ours."""
    with tempfile.TemporaryDirectory(prefix="relayd-") as directory:
        streams = [Path(directory, name) for name in ("in", "out", "err")]
        streams[0].write_bytes(stdin.encode())
        process = _context.Process(
            target=_command,
            args=(list(argv), {**os.environ, **(environment or {})}, Path.cwd(), *streams),
            daemon=True,
        )
        process.start()
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"relayd {' '.join(argv)} took longer than {_SECONDS:.0f} s")
        code = process.exitcode
        process.close()
        return Ran(code, *(stream.read_bytes().decode() for stream in streams[1:]))


async def run_beside(argv: Sequence[str], *, stdin: str = "", environment: Mapping[str, str] | None = None) -> Ran:
    """The same, while the loop goes on."""
    return await asyncio.to_thread(run, argv, stdin=stdin, environment=environment)


def run_in_terminal(argv: Sequence[str], *, answer: str, environment: Mapping[str, str] | None = None) -> Ran:
    """Run it in a terminal and type the answer to its question; "" closes the input. `out` is all that was shown."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode() or b"\x04")
        process = subprocess.Popen(
            [sys.executable, "-m", "relayd", *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "COLUMNS": "100", "TERM": "xterm", **(environment or {})},
        )
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # so the kernel says that nobody writes any more
            while chunk := os.read(ours, 65536):
                seen += chunk
        return Ran(process.wait(_SECONDS), seen.decode(), "")
    finally:
        os.close(ours)


def _command(
    argv: list[str], environment: dict[str, str], directory: Path, given: Path, output: Path, errors: Path
) -> None:
    from relayd.cli import main

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    for descriptor, path in enumerate((given, output, errors)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    # As an interpreter opens them at its start: those here were opened before the fork.
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = os.fdopen(0, encoding=encoding, closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding=encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)
    sys.argv = ["relayd", *argv]
    main()
