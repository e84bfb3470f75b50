"""What the sessions of one listener share: whom to ask, the caps on connections, the messages being accepted."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from relayd.errors import StoreUnavailable
from relayd.intake.reports import IncomingReport, ReportDoor
from relayd.mail.reply import Reply
from relayd.rules.events import Event
from relayd.rules.peer_network import peer_network
from relayd.rules.session_events import Cap
from relayd.submission.connection_slots import ConnectionSlots
from relayd.submission.door import Door, Submission, Verifier
from relayd.submission.limits import SessionLimits
from relayd.submission.login_guard import LoginGuard
from relayd.submission.refusal_pace import RefusalPace
from relayd.submission.replies import TRY_LATER
from relayd.submission.room import Room

logger = logging.getLogger(__name__)


class Guest(Protocol):
    """A session, as far as a shutdown is concerned."""

    def begin_drain(self) -> None:
        """Say goodbye at the next moment at which no message is under way."""
        ...

    def end(self) -> None:
        """Say goodbye even in the middle of a message, unless it is being accepted."""
        ...

    def abort(self) -> None:
        """Drop the connection."""
        ...


class Service:
    """Shared by all sessions. Counts connections, so a session is admitted once and released once."""

    def __init__(
        self,
        *,
        door: Door,
        verifier: Verifier,
        emit: Callable[[Event], None],
        limits: SessionLimits,
        hostname: str,
        tls_context: ssl.SSLContext | None,
        allow_plaintext_auth: bool,
        reports: ReportDoor | None = None,
        login_guard: LoginGuard | None = None,
        slots: ConnectionSlots | None = None,
    ) -> None:
        self.door = door
        self.verifier = verifier
        self.emit = emit
        self.limits = limits
        self.hostname = hostname
        self.tls_context = tls_context
        self.allow_plaintext_auth = allow_plaintext_auth
        self.reports = reports
        self.login_guard = login_guard or LoginGuard()
        self.refusal_pace = RefusalPace(time.monotonic, limits.refusal_delay_seconds)
        self.guests: dict[Guest, int] = {}
        self.accepting: set[asyncio.Task[Reply]] = set()
        self.is_draining = False
        self.room = Room(limits.max_held_octets)
        self._slots = slots or ConnectionSlots()
        self._left = asyncio.Event()

    def admit(self, guest: Guest, peer: str) -> Cap | None:
        """None and a place, or the cap that is reached."""
        if self.is_draining:
            return Cap.DRAINING
        slot = self._slots.take(
            peer_network(peer), most=self.limits.max_connections, most_per_peer=self.limits.max_connections_per_peer
        )
        if isinstance(slot, Cap):
            return slot
        self.guests[guest] = slot
        return None

    def release(self, guest: Guest) -> None:
        """Give an admitted session's place back."""
        self._slots.release(self.guests.pop(guest))
        self._left.set()

    async def accept(self, submission: Submission) -> Reply:
        """Hand a message to the door. Once begun it settles, even if the session that asked is cancelled."""
        return await self._to_its_end(self.door.accept(submission))

    async def accept_report(self, report: IncomingReport) -> Reply:
        """Hand a report to its door, on the same terms."""
        assert self.reports is not None
        return await self._to_its_end(self.reports.accept(report))

    async def emptied(self) -> None:
        """Wait until no session is left and every message under way has settled."""
        while self.guests:
            self._left.clear()
            await self._left.wait()
        while self.accepting:
            await asyncio.wait(set(self.accepting))

    async def _to_its_end(self, accepting: Coroutine[Any, Any, Reply]) -> Reply:
        settling = asyncio.create_task(self._settle(accepting))
        self.accepting.add(settling)
        settling.add_done_callback(self.accepting.discard)
        return await asyncio.shield(settling)

    async def _settle(self, accepting: Coroutine[Any, Any, Reply]) -> Reply:
        try:
            return await accepting
        except StoreUnavailable:
            return TRY_LATER
        except Exception:
            logger.exception("accepting a message failed; the client was told to try again later")
            return TRY_LATER


def peer_address(peername: object) -> str:
    """The IP address of a socket's peer name; an IPv4 address however it is mapped, no scope."""
    if not isinstance(peername, tuple) or not peername:
        return "unknown"
    address = str(peername[0]).partition("%")[0]
    return address.removeprefix("::ffff:") if "." in address else address
