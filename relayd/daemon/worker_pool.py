"""The workers of a node: started, replaced when they die or hang, exchanged on reload, drained at the end."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from relayd.config.settings import Settings
from relayd.daemon.orders import Orders, Secrets
from relayd.daemon.reporting import emit
from relayd.daemon.sockets import ListeningSocket
from relayd.daemon.worker_process import READY_SECONDS, WorkerProcess
from relayd.errors import RelaydError
from relayd.rules.login_failures import LoginFailures
from relayd.rules.relay_events import WorkerDied
from relayd.submission.connection_slots import ConnectionSlots
from relayd.submission.login_guard import LoginGuard

log = logging.getLogger(__name__)

BURIAL_SECONDS = 5.0
WATCH_SECONDS = 1.0
# What to wait before the next start, by how many workers of one place died in a row.
BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
# A worker that served for so long begins a new row.
SERVED_SECONDS = 30.0


class WorkerPool:
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
        self._login_failures = LoginFailures(time.monotonic)
        self._login_guard = LoginGuard(self._login_failures)
        self._slots = ConnectionSlots()
        self._workers: list[WorkerProcess] = []
        # Those of `_workers`, those that an exchange starts, and those that drain.
        self._living: set[WorkerProcess] = set()
        self._serial = 0
        # By place: how many have ended in a row, and when the next one may start.
        self._deaths: dict[int, int] = {}
        self._start_at: dict[int, float] = {}
        self._has_news = asyncio.Event()
        self._is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._tending: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> int:
        """How many workers the settings want."""
        return self._settings.processes

    @property
    def ready(self) -> int:
        """How many workers accept mail."""
        return sum(worker.is_ready for worker in self._workers)

    @property
    def is_alive(self) -> bool:
        """Whether a worker lives: one that starts, or whose event loop turns."""
        return any(worker.is_alive for worker in self._workers)

    @property
    def is_refusing(self) -> bool:
        """Whether one of them could not queue a message a moment ago."""
        return any(worker.is_refusing for worker in self._workers)

    async def start(self) -> None:
        """Start them all. Raises RelaydError if the first ones cannot start."""
        self._workers = self._new(self._settings, self._keys)
        self._tending = asyncio.create_task(self._tend(), name="tend workers")
        await _all_ready(self._workers)

    async def exchange(self, settings: Settings, keys: Secrets) -> None:
        """Replace every worker by one with new settings; the old ones end what they have begun.

        Raises RelaydError if the new ones cannot start: they are gone then, and the old ones still work.
        """
        new = self._new(settings, keys)
        try:
            await _all_ready(new)
        except BaseException:
            for worker in new:
                worker.is_draining = True
                worker.kill()
            await asyncio.gather(*(worker.ended() for worker in new))
            raise
        old, self._workers = self._workers, new
        self._settings, self._keys = settings, keys
        self._deaths.clear()
        self._start_at.clear()
        for worker in old:
            worker.is_draining = True
            self._spawn(worker.drain(settings.delivery.drain_seconds))
        # Until then a new connection may still meet an old worker, and be told 421.
        await asyncio.gather(*(worker.accepts_no_more() for worker in old))

    async def predecessors_gone(self) -> None:
        """Wait until all workers that were exchanged have ended."""
        await asyncio.gather(*(worker.ended() for worker in self._living if worker.is_draining))

    def wake(self) -> None:
        """Something may be due."""
        for worker in self._workers:
            worker.wake()

    async def drain(self, seconds: float) -> None:
        """End them all, at most a little after `seconds`."""
        self._is_stopping = True
        await asyncio.gather(*(worker.drain(seconds) for worker in self._workers))
        if self._tending is not None:
            self._tending.cancel()
        if self._tasks:
            # Without Postgres nothing can be taken back now; the next start does it.
            _, unended = await asyncio.wait(self._tasks, timeout=BURIAL_SECONDS)
            for task in unended:
                task.cancel()
            await asyncio.gather(*unended, return_exceptions=True)

    def _new(self, settings: Settings, keys: Secrets) -> list[WorkerProcess]:
        return [self._new_worker(index, settings, keys) for index in range(settings.processes)]

    def _new_worker(self, index: int, settings: Settings, keys: Secrets) -> WorkerProcess:
        self._serial += 1
        orders = Orders(
            settings=settings,
            secrets=keys,
            claimant=f"{settings.node}/{self.incarnation}/{self._serial}",
            index=index,
            sockets=tuple((each.socket.fileno(), each.mode) for each in self._sockets),
            connection_slots=self._slots.descriptor,
            provision_for=self._provision_for,
            login_failures=self._login_failures.rows(),
        )
        worker = WorkerProcess(
            orders,
            metrics_directory=self._metrics_directory,
            on_end=self._on_end,
            on_refusal=self._on_refusal,
            on_login=self._note_login,
        )
        self._living.add(worker)
        return worker

    async def _tend(self) -> None:
        """Kill workers that hang and replace those that have ended. What fails now is tried again."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(min([WATCH_SECONDS, *(at - began for at in self._start_at.values())])):
                    await self._has_news.wait()
            self._has_news.clear()
            # If this process stood still, what the workers have said meanwhile is not read yet.
            stood_still = loop.time() - began > 3 * WATCH_SECONDS
            try:
                for worker in list(self._living):
                    if stood_still:
                        worker.excuse_silence()
                    else:
                        worker.kill_if_overdue()
                await self._replace_ended()
            except Exception:
                log.exception("cannot look after the workers; relayd tries again in %g s", WATCH_SECONDS)
                await asyncio.sleep(WATCH_SECONDS)

    async def _replace_ended(self) -> None:
        workers = self._workers
        for place, worker in enumerate(workers):
            index = worker.orders.index
            is_due = self._start_at.get(index, 0) <= asyncio.get_running_loop().time()
            if worker.has_ended and not worker.is_draining and is_due:
                successor = self._new_worker(index, self._settings, self._keys)
                self._start_at.pop(index, None)
                workers[place] = successor
                await successor.start()
                if self._is_stopping or self._workers is not workers:
                    return

    def _note_login(self, source: WorkerProcess, message: dict[str, Any]) -> None:
        """Count a login that failed or succeeded, for workers to come, and tell the other workers."""
        self._login_guard.hear(message["kind"], message["peer"], message["key"])
        for worker in self._living:
            if worker is not source:
                worker.pass_on(message)

    def _on_end(self, worker: WorkerProcess) -> None:
        self._living.discard(worker)
        index = worker.orders.index
        is_ours = worker in self._workers and not (self._is_stopping or worker.is_draining)
        if is_ours:
            deaths = 0 if worker.ready_seconds > SERVED_SECONDS else self._deaths.get(index, 0)
            self._deaths[index] = deaths + 1
            pause = BACKOFF_SECONDS[min(deaths, len(BACKOFF_SECONDS) - 1)]
            self._start_at[index] = asyncio.get_running_loop().time() + pause
            self._has_news.set()
        if worker.pid:
            self._slots.release_all_of(worker.pid)
            # Beside the successor's start: while Postgres is away nothing is taken back, but there is a 451 to say.
            self._spawn(self._on_death(worker.orders.claimant, worker.pid))
        if is_ours:
            emit(WorkerDied(worker.orders.claimant, worker.pid, worker.end.kind, worker.end.reason))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _all_ready(workers: list[WorkerProcess]) -> None:
    """Start workers and wait until all are ready. Raises RelaydError when one is not."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await asyncio.gather(*(worker.start() for worker in workers))
            for worker in workers:
                await worker.started_or_ended()
    except TimeoutError:
        raise RelaydError(f"a worker was not ready within {READY_SECONDS:.0f} s; its log lines above say why") from None
    for worker in workers:
        if worker.has_ended:
            raise RelaydError(f"a worker did not start: {worker.end.reason}")
