"""The listening sockets of one process, from start to drain.

Connections with implicit TLS are accepted here rather than by `create_server`, so that a handshake under way counts
as a connection, and a new certificate serves the next connection on every socket.
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
from relayd.submission.door import Door, Verifier
from relayd.submission.limits import SessionLimits
from relayd.submission.service import Service
from relayd.submission.session import Session

logger = logging.getLogger(__name__)

BACKLOG = 512
ACCEPT_RETRY_SECONDS = 0.5  # out of file descriptors, most likely
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
    ) -> None:
        if tls_context is None and any(each.mode is Mode.IMPLICIT for each in sockets):
            raise ValueError("a socket with implicit TLS needs a certificate")
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self._acceptors: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._service = Service(
            door=door,
            verifier=verifier,
            emit=emit,
            limits=limits,
            hostname=hostname,
            tls_context=tls_context,
            allow_plaintext_auth=allow_plaintext_auth,
            reports=reports,
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
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            if each.mode is Mode.IMPLICIT:
                each.socket.setblocking(False)
                each.socket.listen(BACKLOG)
                self._acceptors.append(loop.create_task(self._accept_encrypted(each.socket)))
            else:
                factory = partial(Session, self._service, loop)
                self._servers.append(await loop.create_server(factory, sock=each.socket, backlog=BACKLOG))

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
        for server in self._servers:
            server.close()
        ended = self._acceptors + list(self._handshakes)
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        for each in self._sockets:
            each.socket.close()

    async def _accept_encrypted(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peername = await loop.sock_accept(listening)
            except OSError as error:
                logger.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            session = Session(self._service, loop)
            if session.admit(peername) is not None:
                connection.close()
                continue
            handshake = loop.create_task(self._shake_hands(session, connection))
            self._handshakes.add(handshake)
            handshake.add_done_callback(partial(self._end_handshake, session, connection))

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
        self._handshakes.discard(handshake)
        if not session.is_served:
            connection.close()
            session.leave(Ending.DRAINED if handshake.cancelled() else Ending.TLS_FAILED)

    async def _is_emptied(self, timeout_seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._service.emptied(), timeout_seconds)
        except TimeoutError:
            return False
        return True
