"""A trial of an upstream, step by step: what came of each, how long it took, and what mends it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from relayd.errors import RelaydError
from relayd.mail.address import Address
from relayd.upstream.verdict import clean

NOT_DONE = "not done in the time that a test has"
NOT_DONE_CURE = "try again; the upstream may be slow just now"

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
    """One step that was taken. `cure`: what to change, where it failed; `warning`: what is wrong although it works."""

    name: str
    is_ok: bool
    seconds: float
    result: str
    details: tuple[str, ...] = ()
    cure: str | None = None
    warning: str | None = None


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
    warning: str | None = None


class Progress:
    """The steps so far, and since when the one under way is."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.steps: list[Step] = []
        self.clock = clock
        self._under_way: tuple[str, float] | None = None

    def begin(self, name: str) -> float:
        """That step is under way, since now."""
        now = self.clock()
        self._under_way = name, now
        return now

    def end(self) -> None:
        """None is."""
        self._under_way = None

    @property
    def under_way(self) -> tuple[str, float] | None:
        """The step that is waited for, and for how many seconds."""
        if self._under_way is None:
            return None
        name, began = self._under_way
        return name, self.clock() - began

    def add(
        self,
        name: str,
        seconds: float,
        result: str,
        *,
        cure: str | None = None,
        details: Iterable[str] = (),
        warning: str | None = None,
    ) -> None:
        """One that was taken; with a cure one that failed."""
        shown = tuple(map(clean, details))
        self.steps.append(Step(name, cure is None, seconds, clean(result), shown, cure, warning))

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[Report]:
        """Take one step. Raise StepFailed within it if it fails; any other exception but a cancel is a bug."""
        report, began = Report(), self.begin(name)
        failure: StepFailed | None = None
        try:
            yield report
        except StepFailed as error:
            failure = error
            raise
        except asyncio.CancelledError:
            failure = StepFailed(NOT_DONE, NOT_DONE_CURE)
            raise
        except Exception as error:
            _log.exception("step %s of a test failed", name)
            failure = StepFailed(f"internal error: {type(error).__name__}", "relayd's log has the details")
            raise failure from None
        finally:
            result, cure = (str(failure), failure.cure) if failure else (report.result, None)
            details = (*report.details, *(failure.details if failure else ()))
            self.end()
            self.add(name, self.clock() - began, result, cure=cure, details=details, warning=report.warning)


class Probe(Protocol):
    """Knows how one upstream is tried."""

    async def run(self, trial: Trial, progress: Progress) -> None:
        """Take the steps, in `progress`. Raises StepFailed at the first that fails."""
        ...


async def try_out(probe: Probe, trial: Trial, progress: Progress, *, seconds: float) -> None:
    """Take the steps, in `progress`: the last one failed, or none did. Takes no more than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await probe.run(trial, progress)
    except (StepFailed, TimeoutError):
        pass  # The last step tells it.
