"""The workers of a node: started, replaced when they die, exchanged on reload, drained at the end."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from relayd.config.settings import Settings
from relayd.daemon.orders import Orders, Secrets
from relayd.daemon.process import WorkerProcess
from relayd.daemon.reporting import emit
from relayd.daemon.sockets import ListeningSocket
from relayd.errors import RelaydError
from relayd.metrics import NodeState
from relayd.rules.relay_events import WorkerDied

log = logging.getLogger(__name__)

READY_SECONDS = 60.0
BURIAL_SECONDS = 5.0
BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)


class Crew:
    """`processes` workers, whatever happens to them."""

    def __init__(
        self,
        settings: Settings,
        keys: Secrets,
        sockets: list[ListeningSocket],
        *,
        metrics_directory: Path,
        provision_for: str | None,
        on_death: Callable[[str, int], Coroutine[Any, Any, None]],
        on_refusal: Callable[[], None],
    ) -> None:
        self.incarnation = secrets.token_hex(4)
        self._settings = settings
        self._keys = keys
        self._sockets = sockets
        self._metrics_directory = metrics_directory
        self._provision_for = provision_for
        self._on_death = on_death
        self._on_refusal = on_refusal
        self._workers: list[WorkerProcess] = []
        self._leaving: list[WorkerProcess] = []
        self._serial = 0
        self.node_state = NodeState(workers_wanted=settings.processes)
        self._deaths = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> int:
        """How many workers accept mail."""
        return sum(worker.ready.is_set() and not worker.has_ended for worker in self._workers)

    @property
    def is_refusing(self) -> bool:
        """Whether one of them could not queue a message a moment ago."""
        return any(worker.is_refusing for worker in self._workers)

    async def start(self) -> None:
        """Start them all. Raises RelaydError if the first ones cannot start."""
        self._workers = [self._new(index) for index in range(self._settings.processes)]
        await asyncio.gather(*(worker.start() for worker in self._workers))
        for worker in self._workers:
            await self._expect_ready(worker)
        self._count()

    async def exchange(self, settings: Settings, keys: Secrets) -> None:
        """Replace every worker by one with new settings; the old ones end what they have begun.

        Raises RelaydError, with the old workers still at work, if the new ones cannot start.
        """
        old_settings, old_keys = self._settings, self._keys
        self._settings, self._keys = settings, keys
        new = [self._new(index) for index in range(settings.processes)]
        await asyncio.gather(*(worker.start() for worker in new))
        try:
            for worker in new:
                await self._expect_ready(worker)
        except RelaydError:
            self._settings, self._keys = old_settings, old_keys
            for worker in new:
                worker.is_draining = True
                worker.kill()
            raise
        old, self._workers = self._workers, new
        self.node_state.workers_wanted = settings.processes
        self._count()
        self._leaving = [worker for worker in (*self._leaving, *old) if not worker.has_ended]
        for worker in old:
            worker.is_draining = True
            self._spawn(worker.drain(settings.delivery.drain_seconds))
        # Until then a new connection may still meet an old worker, and be told 421.
        await asyncio.gather(*(worker.accepts_no_more() for worker in old))

    async def predecessors_gone(self) -> None:
        """Wait until all workers that were exchanged have ended."""
        await asyncio.gather(*(worker.ended() for worker in self._leaving))

    def wake(self) -> None:
        """Something may be due."""
        for worker in self._workers:
            worker.wake()

    async def drain(self, seconds: float) -> None:
        """End them all, at most a little after `seconds`."""
        self._stopping = True
        await asyncio.gather(*(worker.drain(seconds) for worker in self._workers))
        if self._tasks:
            # Without Postgres nothing can be taken back now; the next start does it.
            _, unended = await asyncio.wait(self._tasks, timeout=BURIAL_SECONDS)
            for task in unended:
                task.cancel()
            await asyncio.gather(*unended, return_exceptions=True)

    def _new(self, index: int) -> WorkerProcess:
        self._serial += 1
        orders = Orders(
            settings=self._settings,
            secrets=self._keys,
            claimant=f"{self._settings.node}/{self.incarnation}/{self._serial}",
            index=index,
            sockets=tuple((each.socket.fileno(), each.mode) for each in self._sockets),
            provision_for=self._provision_for,
        )
        return WorkerProcess(
            orders, metrics_directory=self._metrics_directory, on_end=self._on_end, on_refusal=self._on_refusal
        )

    async def _expect_ready(self, worker: WorkerProcess) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                if await worker.started_or_ended():
                    return
        except TimeoutError:
            worker.kill()
        raise RelaydError(worker.failure or "a worker did not start; its log lines above say why")

    def _on_end(self, worker: WorkerProcess) -> None:
        self._spawn(self._bury(worker))

    async def _bury(self, worker: WorkerProcess) -> None:
        self._count()
        # Beside the successor's start: while Postgres is away nothing is taken back, but there is a 451 to say.
        self._spawn(self._on_death(worker.orders.claimant, worker.pid))
        if self._stopping or worker.is_draining or worker not in self._workers:
            return
        emit(WorkerDied(worker.orders.claimant, worker.pid))
        await asyncio.sleep(BACKOFF_SECONDS[min(self._deaths, len(BACKOFF_SECONDS) - 1)])
        self._deaths += 1
        if self._stopping or worker not in self._workers:
            return
        successor = self._new(worker.orders.index)
        self._workers[self._workers.index(worker)] = successor
        await successor.start()
        if await successor.started_or_ended():
            self._deaths = 0
        self._count()

    def _count(self) -> None:
        self.node_state.workers_ready = self.ready

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
