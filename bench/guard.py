"""A parent that outlives the work and cleans up after it, however the work ends: processes, and a directory.

The kernel's promise that a child dies with its parent does not hold for programs that change their user, as Postfix
and rspamd do. The guard is killed, the work is told to end; the work is killed, the guard ends what it had started.
"""

import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from bench import process
from relayd.embedded.lifetime import die_with_parent

# As a shell tells of Ctrl-C.
INTERRUPTED = 130
# What Ctrl-C, kill and a closed terminal send.
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def guarded(work: Callable[[Path], int], directory: Path) -> int:
    """Do the work in a process of its own, with a new directory below `directory`. Its exit code, or 1 if it has none.

    In `work` the signals that end a program raise KeyboardInterrupt, once; then the code is INTERRUPTED.
    """
    process.become_subreaper()
    scratch = Path(tempfile.mkdtemp(prefix="rb-", dir=directory))
    # Other users have to get through: Postfix's, Postgres's, smtp-sink's.
    scratch.chmod(0o711)
    try:
        return _wait_for(_fork(work, scratch))
    finally:
        _clean(scratch)


def _fork(work: Callable[[Path], int], scratch: Path) -> int:
    sys.stdout.flush()
    end_with_guard = die_with_parent(signal.SIGTERM)
    # Not a moment without them: a signal that came between would leave the other half alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    child = os.fork()
    if child == 0:
        for number in _ENDINGS:
            signal.signal(number, _interrupt)
        end_with_guard()
        _work(work, scratch)
    # From a terminal the signal reaches both of us; then the second is ignored.
    for number in _ENDINGS:
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
    return child


def _work(work: Callable[[Path], int], scratch: Path) -> NoReturn:
    code = 1
    try:
        try:
            process.become_subreaper()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDINGS)
            code = work(scratch)
        except KeyboardInterrupt:
            sys.stderr.write("bench: told to end; everything that it started is stopped\n")
            code = INTERRUPTED
        except BaseException:
            traceback.print_exc()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        # The guard does the same; it may be gone.
        _clean(scratch)
    finally:
        # Whatever happens: this half never returns into the guard's.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _interrupt(*_: object) -> None:
    # Not SIG_IGN: Python makes an OSError of a signal that had come already, and children would inherit it.
    for number in _ENDINGS:
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


def _wait_for(child: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else 1


def _clean(scratch: Path) -> None:
    process.sweep()
    shutil.rmtree(scratch, ignore_errors=True)
