"""One worker process as the supervisor sees it: spawned, told its orders, watched to its end."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from relayd.daemon import notify
from relayd.daemon.channel import Channel
from relayd.daemon.orders import Orders
from relayd.embedded.lifetime import die_with_parent

REFUSAL_SECONDS = 10.0


class WorkerProcess:
    """Owns the process from `start` on."""

    def __init__(
        self,
        orders: Orders,
        *,
        metrics_directory: Path,
        on_end: Callable[["WorkerProcess"], None],
        on_refusal: Callable[[], None],
    ) -> None:
        self.orders = orders
        self.ready = asyncio.Event()
        self.failure: str | None = None
        self.is_draining = False
        self._metrics_directory = metrics_directory
        self._on_end = on_end
        self._on_refusal = on_refusal
        self._refused_at: float | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._watching: asyncio.Task[None] | None = None
        self._deaf = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process's id, 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._ended.is_set()

    @property
    def is_refusing(self) -> bool:
        """Whether it could not queue a message a moment ago. For a moment only: without mail nothing more is heard."""
        if self._refused_at is None or self.has_ended:
            return False
        return asyncio.get_running_loop().time() - self._refused_at < REFUSAL_SECONDS

    async def start(self) -> None:
        """Spawn it. Must be called from the main thread: the worker dies with the thread that made it."""
        ours, theirs = socket.socketpair()
        descriptors = [descriptor for descriptor, _ in self.orders.sockets]
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
        self._channel.send("orders", **self.orders.to_json())
        self._watching = asyncio.create_task(self._watch(), name=f"worker {self.orders.claimant}")
        if self.is_draining:
            self.kill()  # it was told to end before it could hear anything

    def wake(self) -> None:
        """Something may be due."""
        if self._channel and not self.has_ended:
            self._channel.send("wake")

    async def drain(self, seconds: float, *, grace_seconds: float = 2.0) -> None:
        """Let it end what is under way; after that time it is killed."""
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
            self._process.kill()

    async def accepts_no_more(self) -> None:
        """Wait until it has let go of the listening sockets, or is gone."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._deaf, self._ended)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def ended(self) -> None:
        """Wait until it is gone."""
        await self._ended.wait()

    async def started_or_ended(self) -> bool:
        """Wait until it is ready (True) or has ended before that."""
        waits = [asyncio.ensure_future(self.ready.wait()), asyncio.ensure_future(self._ended.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self.ready.is_set()

    async def _watch(self) -> None:
        assert self._channel and self._process
        async for message in self._channel.messages():
            match message["kind"]:
                case "ready":
                    self.ready.set()
                case "draining":
                    self._deaf.set()
                case "refusing":
                    self._refused_at = asyncio.get_running_loop().time()
                    self._on_refusal()
                case "queueing":
                    self._refused_at = None
                case "failed":
                    self.failure = message["reason"]
        await self._process.wait()
        self._channel.close()
        self._ended.set()
        self._on_end(self)


def _environment(metrics_directory: Path) -> dict[str, str]:
    # With systemd only the supervisor speaks.
    kept = {name: value for name, value in os.environ.items() if name not in notify.VARIABLES}
    # Set before the worker's first import: prometheus_client reads it then and never again.
    return {**kept, "PROMETHEUS_MULTIPROC_DIR": str(metrics_directory)}
