"""Keep a smarthost's connections: a cap on them, reuse while they are fresh, a polite end.

A connection is reused only for the identity it was opened as; the cap holds over all of them, and one that idles as
somebody else makes room. It counts against the cap from before it is opened until after it is closed, so that the
upstream never sees more of them than was promised.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable

from relayd.rules.outcome import Cause, Outcome, Postponed, Scope, Stage
from relayd.upstream.connection import Connection

Open = Callable[[Hashable], Awaitable[Connection | Outcome]]


class Pool:
    def __init__(
        self,
        open_connection: Open,
        *,
        max_connections: int,
        max_messages_per_connection: int,
        idle_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._open_connection = open_connection
        self._max_connections = max_connections
        self._max_messages = max_messages_per_connection
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._live = 0
        self._idle: list[Connection] = []
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._chores: set[asyncio.Task[None]] = set()
        self._opening: set[asyncio.Future[Connection | Outcome]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def acquire(self, identity: Hashable = None) -> Connection | Outcome:
        """The freshest idle connection, or a new one, or why there is none. Waits while the cap is reached."""
        while True:
            self._retire()
            if (connection := self._take_idle(identity)) is not None:
                return connection
            if self._live < self._max_connections:
                self._live += 1
                return await self._open(identity)
            self._make_room()
            await self._change()

    async def replace(self, connection: Connection) -> Connection | Outcome:
        """A new connection in the place of one that turned out to be dead."""
        connection.abort()
        return await self._open(connection.identity)

    def release(self, connection: Connection) -> None:
        """Take back what acquire() gave. What is left to say to the upstream is said in the background."""
        if not connection.is_usable:
            self.discard(connection)
        elif self._is_closed or connection.transactions >= self._max_messages:
            self._start(self._leave(connection))
        elif connection.in_transaction:
            self._start(self._reset(connection))
        else:
            self._keep(connection)

    def discard(self, connection: Connection) -> None:
        """Close at once and forget."""
        connection.abort()
        self._forget()

    async def close(self) -> None:
        """Say goodbye to idle connections. Those in use are closed as they come back; those that are being opened are
        given up, since a greeting may take minutes."""
        self._is_closed = True
        for opening in self._opening:
            opening.cancel()
        if self._sweep is not None:
            self._sweep.cancel()
        self._retire()
        while self._chores:
            await asyncio.wait(self._chores)
        # An aborted transport closes its socket in the next turns of the loop.
        await asyncio.sleep(0)

    async def _open(self, identity: Hashable) -> Connection | Outcome:
        connection: Connection | Outcome | None = None
        opening = asyncio.ensure_future(self._open_connection(identity))
        self._opening.add(opening)
        try:
            connection = await opening
            if isinstance(connection, Connection):
                connection.identity = identity
            return connection
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # close() has given it up, nobody the delivery.
            return Postponed(
                Scope.MESSAGE, Cause(Stage.LOCAL, "not tried: the server had not greeted yet, or not let us in"), 0
            )
        finally:
            self._opening.discard(opening)
            if not isinstance(connection, Connection):
                self._forget()

    def _take_idle(self, identity: Hashable) -> Connection | None:
        for place in reversed(range(len(self._idle))):
            if self._idle[place].identity == identity:
                return self._idle.pop(place)
        return None

    def _make_room(self) -> None:
        """Part with the connection that has idled longest: nobody who waits here can use it."""
        if self._idle:
            self._start(self._leave(self._idle.pop(0)))

    def _keep(self, connection: Connection) -> None:
        connection.idle_since = self._clock()
        self._idle.append(connection)
        self._wake()
        self._schedule_sweep()

    def _forget(self) -> None:
        self._live -= 1
        self._wake()

    def _retire(self) -> None:
        """Part with idle connections that are dead or stale."""
        stale_since = self._clock() - self._idle_seconds
        kept = []
        for connection in self._idle:
            if not connection.is_usable:
                self.discard(connection)
            elif self._is_closed or connection.idle_since <= stale_since:
                self._start(self._leave(connection))
            else:
                kept.append(connection)
        self._idle = kept

    def _schedule_sweep(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._idle_seconds, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweep = None
        self._retire()
        if self._idle:
            self._schedule_sweep()

    async def _leave(self, connection: Connection) -> None:
        try:
            await connection.quit()
        finally:
            self._forget()

    async def _reset(self, connection: Connection) -> None:
        try:
            await connection.reset()
        except BaseException:
            self.discard(connection)
            raise
        self.release(connection)

    def _start(self, chore: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # Woken and cancelled at once: the turn goes to the next in line.
            if waiter.done() and not waiter.cancelled():
                self._wake()
            raise

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
