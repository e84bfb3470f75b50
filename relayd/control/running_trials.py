"""The trials of upstreams that run, and those whose result nobody has fetched yet. In this process's memory."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from relayd.errors import Refusal
from relayd.upstream.steps import Progress

MOST = 100


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """One trial: what is tried, its steps so far, and the task that takes them."""

    id: str
    upstream: str
    to: str
    sender: str
    progress: Progress
    task: asyncio.Task[None]

    async def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most so long."""
        await asyncio.wait({self.task}, timeout=seconds)
        return self.task.done()


class RunningTrials:
    """By id. The oldest give way when there are too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._trials: dict[str, RunningTrial] = {}

    def begin(
        self, upstream: str, to: str, sender: str, progress: Progress, work: Coroutine[Any, Any, None]
    ) -> RunningTrial:
        """Have the work done, whoever waits for it."""
        while len(self._trials) >= MOST:
            self._trials.pop(next(iter(self._trials))).task.cancel()
        id = secrets.token_urlsafe(16)
        self._trials[id] = RunningTrial(id, upstream, to, sender, progress, asyncio.create_task(work))
        return self._trials[id]

    def find(self, id: str, upstream: str) -> RunningTrial:
        """Raises Refusal for one that is not under way."""
        trial = self._trials.get(id)
        if trial is None or trial.upstream != upstream:
            raise Refusal("no such trial is under way here", hint=f"begin another: relayd upstream test {upstream}")
        return trial

    def forget(self, trial: RunningTrial) -> None:
        """The caller has fetched the whole result."""
        self._trials.pop(trial.id, None)
