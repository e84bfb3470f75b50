"""One worker process as the supervisor sees it: started, given its orders, watched to its end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relayd.daemon import notify
from relayd.daemon.channel import Channel
from relayd.daemon.orders import Orders
from relayd.embedded.lifetime import die_with_parent
from relayd.rules.relay_events import WorkerEnd
from relayd.submission import login_guard

REFUSAL_SECONDS = 10.0
# How long a worker may take until it is ready, and how long its event loop may stand still afterwards.
READY_SECONDS = 60.0
SILENT_SECONDS = 20.0
# A worker that has said nothing for so long is not counted as ready. It says something every second.
UNHEARD_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended, and why in words."""

    kind: WorkerEnd
    reason: str


class WorkerProcess:
    """Owns the process from `start` on. A process that cannot be started has ended."""

    def __init__(
        self,
        orders: Orders,
        *,
        metrics_directory: Path,
        on_end: Callable[["WorkerProcess"], None],
        on_refusal: Callable[[], None],
        on_login: Callable[["WorkerProcess", dict[str, Any]], None],
    ) -> None:
        self.orders = orders
        self.is_draining = False
        self._metrics_directory = metrics_directory
        self._on_end = on_end
        self._on_refusal = on_refusal
        self._on_login = on_login
        self._failure: str | None = None
        self._killed_for: End | None = None
        self._end: End | None = None
        self._refused_at: float | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._accepts_no_more = asyncio.Event()
        self._ended = asyncio.Event()
        self._started_at = self._heard_at = self._ready_at = asyncio.get_running_loop().time()

    @property
    def pid(self) -> int:
        """The process's id, 0 if it never started."""
        return self._process.pid if self._process else 0

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._ended.is_set()

    @property
    def is_ready(self) -> bool:
        """Whether it accepts mail: it has started, lives, and its event loop turns."""
        return self._ready.is_set() and not self.has_ended and self._silence() < UNHEARD_SECONDS

    @property
    def is_alive(self) -> bool:
        """Whether it still may come to accept mail, or does."""
        return self._process is not None and not self.has_ended and self._overdue() is None

    @property
    def ready_seconds(self) -> float:
        """How long ago it became ready, 0 if it never did."""
        return asyncio.get_running_loop().time() - self._ready_at if self._ready.is_set() else 0.0

    @property
    def end(self) -> End:
        """How it ended. Only once it has."""
        assert self._end is not None
        return self._end

    @property
    def is_refusing(self) -> bool:
        """Whether it could not queue a message a moment ago. For a moment only: without mail nothing more is heard."""
        if self._refused_at is None or self.has_ended:
            return False
        return asyncio.get_running_loop().time() - self._refused_at < REFUSAL_SECONDS

    async def start(self) -> None:
        """Start the process. Must be called from the main thread: the worker dies with the thread that made it.

        Never raises for what the system lacks (files, memory, processes): the worker then has ended.
        """
        try:
            await self._spawn()
        except (OSError, MemoryError, subprocess.SubprocessError) as error:
            # No file descriptor, memory or process left: the next try may find some.
            self.kill()
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            self._set_ended(End(WorkerEnd.NOT_STARTED, f"its process cannot be started: {reason}"))
            return
        except BaseException:
            self.kill()
            self._set_ended(End(WorkerEnd.NOT_STARTED, "its start was cut off"))
            raise
        if self.is_draining:
            self.kill()  # it was told to end before it could hear anything

    def wake(self) -> None:
        """Something may be due."""
        if self._channel and not self.has_ended:
            self._channel.send("wake")

    def pass_on(self, message: dict[str, Any]) -> None:
        """What another worker has said."""
        if self._channel and not self.has_ended:
            self._channel.send(**message)

    async def drain(self, seconds: float, *, grace_seconds: float = 2.0) -> None:
        """Let it end what it has begun; after that time it is killed."""
        self.is_draining = True
        if self._channel and not self.has_ended:
            self._channel.send("drain", seconds=seconds)
            try:
                async with asyncio.timeout(seconds + grace_seconds):
                    await self._ended.wait()
            except TimeoutError:
                self.kill()
        await self._ended.wait()

    def kill(self) -> None:
        """End it at once."""
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def kill_if_overdue(self) -> None:
        """Kill a worker that does not become ready, or whose event loop stands still."""
        overdue = self._overdue()
        if overdue is not None and self._process is not None and not self.has_ended:
            self._killed_for = self._killed_for or overdue
            self.kill()

    def excuse_silence(self) -> None:
        """Begin to wait anew: the supervisor itself could not listen."""
        now = asyncio.get_running_loop().time()
        self._heard_at = now
        if not self._ready.is_set():
            self._started_at = now

    async def accepts_no_more(self) -> None:
        """Wait until it has let go of the listening sockets, or is gone."""
        await _first_of(self._accepts_no_more, self._ended)

    async def ended(self) -> None:
        """Wait until it is gone."""
        await self._ended.wait()

    async def started_or_ended(self) -> bool:
        """Wait until it is ready (True) or has ended before that."""
        await _first_of(self._ready, self._ended)
        return not self.has_ended

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        descriptors = [self.orders.connection_slots, *(descriptor for descriptor, _ in self.orders.sockets)]
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "relayd.daemon.worker",
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), *descriptors],
                    # From its first moment it holds the listening sockets: it must not outlive us in them.
                    preexec_fn=die_with_parent(signal.SIGKILL),
                    env=_environment(self._metrics_directory),
                )
            self._channel = await Channel.open(ours)
        except BaseException:
            ours.close()
            raise
        self._started_at = asyncio.get_running_loop().time()
        self._channel.send("orders", **self.orders.to_json())
        self._watching = asyncio.create_task(self._watch(), name=f"worker {self.orders.claimant}")

    async def _watch(self) -> None:
        assert self._channel and self._process
        try:
            await self._listen(self._channel)
        except Exception as error:
            # Out of memory, or a bug: a worker that nobody hears must not live on.
            self._killed_for = self._killed_for or End(WorkerEnd.SILENT, f"its channel broke: {error!r}")
            self.kill()
        code = await self._process.wait()
        self._channel.close()
        self._set_ended(self._killed_for or _end_of(code, self._failure))

    async def _listen(self, channel: Channel) -> None:
        async for message in channel.messages():
            self._heard_at = asyncio.get_running_loop().time()
            match message["kind"]:
                case "ready":
                    self._ready_at = self._heard_at
                    self._ready.set()
                case "draining":
                    self._accepts_no_more.set()
                case "refusing":
                    self._refused_at = self._heard_at
                    self._on_refusal()
                case "queueing":
                    self._refused_at = None
                case login_guard.FAILED | login_guard.SUCCEEDED:
                    self._on_login(self, message)
                case "failed":
                    self._failure = message["reason"]

    def _set_ended(self, end: End) -> None:
        self._end = end
        self._ended.set()
        self._on_end(self)

    def _silence(self) -> float:
        return asyncio.get_running_loop().time() - self._heard_at

    def _overdue(self) -> End | None:
        """Why it is to be killed, None if it is in time."""
        if self._ready.is_set():
            if self._silence() < SILENT_SECONDS:
                return None
            return End(WorkerEnd.SILENT, f"its event loop has stood still for {SILENT_SECONDS:.0f} s")
        if asyncio.get_running_loop().time() - self._started_at < READY_SECONDS:
            return None
        return End(WorkerEnd.NOT_READY, f"it was not ready within {READY_SECONDS:.0f} s")


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _end_of(code: int, failure: str | None) -> End:
    if failure is not None:
        return End(WorkerEnd.EXIT, failure)
    if code >= 0:
        return End(WorkerEnd.EXIT, f"it exited with code {code}; its log lines above say why")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return End(WorkerEnd.SIGNAL, f"it was killed by {name}")


def _environment(metrics_directory: Path) -> dict[str, str]:
    # With systemd only the supervisor speaks.
    kept = {name: value for name, value in os.environ.items() if name not in notify.VARIABLES}
    # Set before the worker's first import: prometheus_client reads it then and never again.
    return {**kept, "PROMETHEUS_MULTIPROC_DIR": str(metrics_directory)}
