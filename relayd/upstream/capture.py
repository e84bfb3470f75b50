"""Provider `capture`: deliver into a Maildir that any mail reader opens. Nothing leaves the machine.

A file in `new/` is complete and on disk: it is written and synced in `tmp/` first, then renamed.
"""

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from relayd.mail.envelope import Transmission
from relayd.rules.outcome import Cause, Outcome, Sent, Stage
from relayd.upstream.verdict import judge_exception


class Capture:
    def __init__(self, directory: Path, *, wall_clock: Callable[[], float] = time.time) -> None:
        """`directory` is the Maildir itself; it and its parts are made when first needed."""
        self._directory = directory
        self._wall_clock = wall_clock
        self._deliveries = itertools.count(1)

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        """One file for the whole transmission; all recipients share its outcome. Raises CancelledError alone."""
        outcome = await asyncio.to_thread(self._write, transmission)
        return (outcome,) * len(transmission.recipients)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _write(self, transmission: Transmission) -> Outcome:
        name = self._unique_name(transmission)
        unfinished = self._directory / "tmp" / name
        stage = Stage.DATA
        try:
            for part in ("tmp", "new", "cur"):
                (self._directory / part).mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_synced(unfinished, _captured(transmission))
            # From the rename on a reader may see it: a failing sync of the directory leaves a doubt.
            unfinished.rename(self._directory / "new" / name)
            stage = Stage.DOT
            _sync(self._directory / "new")
        except OSError as error:
            if stage is Stage.DATA:
                _remove(unfinished)
            return judge_exception(stage, error)
        return Sent(Cause(Stage.DOT, f"captured as {name}"), name)

    def _unique_name(self, transmission: Transmission) -> str:
        """The Maildir convention: seconds, what is unique in this host, the host; here with the queue id in it."""
        seconds, fraction = divmod(self._wall_clock(), 1)
        unique = f"M{int(fraction * 1_000_000):06d}P{os.getpid()}Q{next(self._deliveries)}_{transmission.queue_id}"
        host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
        return f"{int(seconds)}.{unique}.{host}"


def _captured(transmission: Transmission) -> bytes:
    """The message as a delivery agent leaves it: envelope on top (RFC 5321 4.4), lines ended by LF."""
    lines = [f"Return-Path: <{transmission.reverse_path or ''}>"]
    for recipient in transmission.recipients:
        lines += [f"X-Original-To: {recipient}", f"Delivered-To: {recipient}"]
    envelope = "".join(f"{line}\n" for line in lines).encode()
    return envelope + transmission.content.replace(b"\r\n", b"\n")


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # What stays in tmp/ is no message; readers and delivery agents clean it up after 36 hours.
