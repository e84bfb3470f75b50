"""Try the capture upstream: can its Maildir be written to."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from relayd.rules.outcome import Sent
from relayd.upstream.capture import Capture
from relayd.upstream.probe import Sign, signed, trial_transmission
from relayd.upstream.steps import Progress, StepFailed, Trial

_CURE = "let relayd's user write there, or choose another place: relayd upstream set {upstream} --directory PATH"


class CaptureProbe:
    """`directory` is the Maildir."""

    def __init__(self, directory: Path, *, hostname: str, now: Callable[[], datetime], sign: Sign) -> None:
        self._directory = directory
        self._hostname = hostname
        self._now = now
        self._sign = sign

    async def run(self, trial: Trial, progress: Progress) -> None:
        """Steps `directory` and, when sending, `sign` and `data`."""
        async with progress.step("directory") as report:
            try:
                await asyncio.to_thread(_write, self._directory)
            except OSError as error:
                text = f"{error.strerror}: {error.filename or self._directory}"
                raise StepFailed(text, _CURE.format(upstream=trial.upstream)) from None
            report.result = f"mail is kept in {self._directory}; nothing leaves this machine"
        if not trial.is_sending:
            return
        transmission = trial_transmission(trial, self._hostname, self._now())
        transmission = await signed(progress, self._sign, trial, transmission)
        async with progress.step("data") as report:
            (outcome,) = await Capture(self._directory).deliver(transmission)
            if not isinstance(outcome, Sent):
                raise StepFailed(outcome.cause.text, _CURE.format(upstream=trial.upstream))
            report.result = outcome.cause.text


def _write(directory: Path) -> None:
    for part in ("tmp", "new", "cur"):
        (directory / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory / part, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied", str(directory / part))
    with tempfile.NamedTemporaryFile(dir=directory / "tmp", prefix="relayd-test-"):
        pass
