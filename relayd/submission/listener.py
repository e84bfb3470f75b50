"""The listening sockets of one process, from start to drain.

Implicit TLS is begun by the session, not by `create_server`: so a handshake counts as a connection, and a new
certificate serves the next connection on every socket.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relayd.rules.events import Event
from relayd.submission.connection import Mode
from relayd.submission.door import Door, Verifier
from relayd.submission.limits import SessionLimits
from relayd.submission.service import Service
from relayd.submission.session import Session

BACKLOG = 512
GOODBYE_SECONDS = 1.0


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
    ) -> None:
        if tls_context is None and any(each.mode is Mode.IMPLICIT for each in sockets):
            raise ValueError("a socket with implicit TLS needs a certificate")
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self._service = Service(
            door=door,
            verifier=verifier,
            emit=emit,
            limits=limits,
            hostname=hostname,
            tls_context=tls_context,
            allow_plaintext_auth=allow_plaintext_auth,
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
            server = await loop.create_server(
                lambda mode=each.mode: Session(self._service, mode, loop),  # type: ignore[misc]
                sock=each.socket,
                backlog=BACKLOG,
            )
            self._servers.append(server)

    def set_tls_context(self, tls_context: ssl.SSLContext) -> None:
        """Use another certificate from the next handshake on."""
        self._service.tls_context = tls_context

    async def drain(self, timeout_seconds: float) -> bool:
        """Close the sockets, let messages under way finish, then end what is left. True if nothing was left."""
        for server in self._servers:
            server.close()
        self._service.is_draining = True
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

    async def _is_emptied(self, timeout_seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._service.emptied(), timeout_seconds)
        except TimeoutError:
            return False
        return True
