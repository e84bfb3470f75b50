"""The listening sockets of one process, from start to drain.

Connections are accepted here rather than by `create_server`: accepting pauses when no file descriptor is left, a TLS
handshake counts as a connection, and a new certificate serves the next connection on every socket.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from relayd.intake.reports import ReportDoor
from relayd.rules.events import Event
from relayd.rules.session_events import Ending
from relayd.submission.connection import tls_failed
from relayd.submission.connection_slots import ConnectionSlots
from relayd.submission.door import Door, Verifier
from relayd.submission.limits import SessionLimits
from relayd.submission.login_guard import LoginGuard
from relayd.submission.service import Service
from relayd.submission.session import Session

logger = logging.getLogger(__name__)

BACKLOG = 512
ACCEPT_AT_ONCE = 64
ACCEPT_RETRY_SECONDS = 0.5
_HANDSHAKE = "TLS handshake"
GOODBYE_SECONDS = 1.0


class Mode(StrEnum):
    """When TLS begins on a socket: when the client asks, or before the greeting."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A bound socket that listens already, and when TLS begins on it."""

    socket: socket.socket
    mode: Mode


class Listener:
    """Serves SMTP on inherited sockets. It owns them from `start` on."""

    def __init__(
        self,
        *,
        sockets: Sequence[ListeningSocket],
        door: Door,
        verifier: Verifier,
        emit: Callable[[Event], None],
        limits: SessionLimits,
        tls_context: ssl.SSLContext | None,
        hostname: str,
        allow_plaintext_auth: bool = False,
        reports: ReportDoor | None = None,
        login_guard: LoginGuard | None = None,
        slots: ConnectionSlots | None = None,
    ) -> None:
        if tls_context is None and any(each.mode is Mode.IMPLICIT for each in sockets):
            raise ValueError("a socket with implicit TLS needs a certificate")
        self._sockets = sockets
        self._paused: dict[int, asyncio.TimerHandle] = {}
        self._is_short_of_files = False
        self._arriving: set[asyncio.Task[None]] = set()
        self._service = Service(
            door=door,
            verifier=verifier,
            emit=emit,
            limits=limits,
            hostname=hostname,
            tls_context=tls_context,
            allow_plaintext_auth=allow_plaintext_auth,
            reports=reports,
            login_guard=login_guard,
            slots=slots,
        )

    @property
    def connections(self) -> int:
        """Sessions that are open."""
        return len(self._service.guests)

    @property
    def accepting(self) -> int:
        """Messages that have come in whole and have no reply yet."""
        return len(self._service.accepting)

    async def start(self) -> None:
        """Serve."""
        for each in self._sockets:
            each.socket.setblocking(False)
            each.socket.listen(BACKLOG)
            self._watch(each)

    def set_tls_context(self, tls_context: ssl.SSLContext) -> None:
        """Use another certificate from the next handshake on."""
        self._service.tls_context = tls_context

    async def drain(self, timeout_seconds: float) -> bool:
        """Close the sockets, let messages under way finish, then end what is left. True if nothing was left."""
        await self.stop_accepting()
        for guest in tuple(self._service.guests):
            guest.begin_drain()
        if await self._is_emptied(timeout_seconds):
            return True
        for guest in tuple(self._service.guests):
            guest.end()
        await self._is_emptied(GOODBYE_SECONDS)
        for guest in tuple(self._service.guests):
            guest.abort()
        return False

    async def stop_accepting(self) -> None:
        """Close the sockets; sessions that are open go on. Harmless when done already."""
        self._service.is_draining = True
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            descriptor = each.socket.fileno()
            if descriptor >= 0:
                loop.remove_reader(descriptor)
            if timer := self._paused.pop(descriptor, None):
                timer.cancel()
        handshakes = [task for task in self._arriving if task.get_name() == _HANDSHAKE]
        for task in handshakes:
            task.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)
        for each in self._sockets:
            each.socket.close()

    def _watch(self, listening: ListeningSocket) -> None:
        self._paused.pop(listening.socket.fileno(), None)
        asyncio.get_running_loop().add_reader(listening.socket, self._accept, listening)

    def _accept(self, listening: ListeningSocket) -> None:
        """Take connections that wait, a few at a time: sessions that are open must get their turn."""
        for _ in range(ACCEPT_AT_ONCE):
            try:
                connection, peername = listening.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            if self._is_short_of_files:
                self._is_short_of_files = False
                logger.warning("connections are accepted again")
            connection.setblocking(False)
            self._begin(listening.mode, connection, peername)

    def _pause(self, listening: ListeningSocket, error: OSError) -> None:
        """Out of file descriptors, most likely: wait for sessions to end instead of asking again and again."""
        if not self._is_short_of_files:
            self._is_short_of_files = True
            logger.error(
                "connections wait, since none can be accepted: %s. Lower submission.max_connections or raise the limit "
                "of open files (LimitNOFILE= in the unit)",
                error.strerror or error,
            )
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening.socket)
        self._paused[listening.socket.fileno()] = loop.call_later(ACCEPT_RETRY_SECONDS, self._watch, listening)

    def _begin(self, mode: Mode, connection: socket.socket, peername: object) -> None:
        loop = asyncio.get_running_loop()
        session = Session(self._service, loop)
        if mode is Mode.STARTTLS:
            arriving = loop.create_task(self._connect(session, connection))
        elif session.admit(peername) is None:
            arriving = loop.create_task(self._shake_hands(session, connection), name=_HANDSHAKE)
            arriving.add_done_callback(partial(self._end_handshake, session, connection))
        else:
            connection.close()
            return
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arriving.discard)

    async def _connect(self, session: Session, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: session, connection)
        except OSError:
            connection.close()  # it is gone already

    async def _shake_hands(self, session: Session, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        limits = self._service.limits
        try:
            await loop.connect_accepted_socket(
                lambda: session,
                connection,
                ssl=self._service.tls_context,
                ssl_handshake_timeout=limits.tls_handshake_seconds,
                ssl_shutdown_timeout=limits.linger_seconds,
            )
        except OSError as error:
            self._service.emit(tls_failed(session.peer, error))

    def _end_handshake(self, session: Session, connection: socket.socket, handshake: asyncio.Task[None]) -> None:
        if not session.is_served:
            connection.close()
            session.leave(Ending.DRAINED if handshake.cancelled() else Ending.TLS_FAILED)

    async def _is_emptied(self, timeout_seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._service.emptied(), timeout_seconds)
        except TimeoutError:
            return False
        return True
