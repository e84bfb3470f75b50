"""A trial of an upstream, step by step: what came of each, how long it took, and what mends it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from relayd.errors import RelaydError
from relayd.mail.address import Address
from relayd.upstream.verdict import clean

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried: as far as RCPT, or with `is_sending` a small message that arrives. `upstream` is its name."""

    upstream: str
    reverse_path: Address
    recipient: Address
    is_sending: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One step that was taken. `cure` says what to change, where it failed."""

    name: str
    is_ok: bool
    seconds: float
    result: str
    details: tuple[str, ...] = ()
    cure: str | None = None


class StepFailed(RelaydError):
    """Ends the trial. Its text is the step's result."""

    def __init__(self, result: str, cure: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(result)
        self.cure = cure
        self.details = details


@dataclass(slots=True)
class Report:
    """What a step under way has to tell."""

    result: str = "ok"
    details: list[str] = field(default_factory=list)


class Progress:
    """The steps so far."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.steps: list[Step] = []
        self._clock = clock

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[Report]:
        """Take one step. Raise StepFailed within it if it fails; any other exception but a cancel is a bug."""
        report, began = Report(), self._clock()
        failure: StepFailed | None = None
        try:
            yield report
        except StepFailed as error:
            failure = error
            raise
        except asyncio.CancelledError:
            failure = StepFailed("not done in the time that a test has", "try again; the upstream may be slow just now")
            raise
        except Exception as error:
            _log.exception("step %s of a test failed", name)
            failure = StepFailed(f"internal error: {type(error).__name__}", "relayd's log has the details")
            raise failure from None
        finally:
            result, cure = (str(failure), failure.cure) if failure else (report.result, None)
            details = (*report.details, *(failure.details if failure else ()))
            step = Step(name, failure is None, self._clock() - began, clean(result), tuple(map(clean, details)), cure)
            self.steps.append(step)


class Probe(Protocol):
    """Knows how one upstream is tried."""

    async def run(self, trial: Trial, progress: Progress) -> None:
        """Take the steps, in `progress`. Raises StepFailed at the first that fails."""
        ...


async def try_out(probe: Probe, trial: Trial, *, seconds: float, clock: Callable[[], float]) -> tuple[Step, ...]:
    """The steps that were taken; the last one failed, or none did. Takes no more than `seconds`."""
    progress = Progress(clock)
    try:
        async with asyncio.timeout(seconds):
            await probe.run(trial, progress)
    except (StepFailed, TimeoutError):
        pass  # The last step tells it.
    return tuple(progress.steps)
