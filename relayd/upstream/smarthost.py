"""Provider `smtp_relay`: hand messages to another SMTP server over connections that are kept and reused."""

import asyncio
import ssl
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from relayd.mail.envelope import Transmission
from relayd.rules.outcome import Outcome, Stage
from relayd.upstream.addresses import HostAddress
from relayd.upstream.connection import Connection
from relayd.upstream.handshake import make_tls_context, open_connection
from relayd.upstream.pool import Pool
from relayd.upstream.settings import SmarthostSettings, Timeouts
from relayd.upstream.transaction import transact
from relayd.upstream.verdict import Unfit, judge_exception

__all__ = ["Identity", "Smarthost", "SmarthostSettings", "Timeouts"]


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a connection is opened, where that depends on the mail. None: as the settings say."""

    ehlo_name: str | None = None
    username: str | None = None
    token_subject: str | None = None

    def applied(self, settings: SmarthostSettings) -> SmarthostSettings:
        """The settings of such a connection."""
        return replace(
            settings,
            ehlo_name=self.ehlo_name or settings.ehlo_name,
            username=self.username or settings.username,
            token_subject=self.token_subject or settings.token_subject,
        )


def always_the_same(transmission: Transmission) -> Identity:
    """For a server that does not care whose mail it is."""
    return Identity()


class Smarthost:
    def __init__(
        self,
        settings: SmarthostSettings,
        *,
        identify: Callable[[Transmission], Identity] = always_the_same,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`identify` says as whom a connection for this mail is opened. Raises Unfit where nobody fits."""
        self._settings = settings
        self._identify = identify
        self._tls: ssl.SSLContext | None = None
        self._trouble: dict[HostAddress, float] = {}
        self._pool = Pool(
            self._open,
            max_connections=settings.max_connections,
            max_messages_per_connection=settings.max_messages_per_connection,
            idle_seconds=settings.idle_seconds,
            clock=clock,
        )

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        """One outcome for each recipient, in their order. Raises CancelledError alone.

        Waits while all connections are busy. Cancelled, it closes its connection at once, and `transmission.reached`
        says how far it came.
        """
        transmission.reached.stage = Stage.CONNECT
        try:
            identity = self._identify(transmission)
        except Unfit as error:
            return (judge_exception(Stage.LOCAL, error),) * len(transmission.recipients)
        connection = await self._pool.acquire(identity)
        while isinstance(connection, Connection):
            try:
                outcomes = await transact(connection, transmission)
            except BaseException:
                transmission.reached.stage = connection.stage
                self._pool.discard(connection)
                raise
            if outcomes is not None:
                self._pool.release(connection)
                return outcomes
            connection = await self._pool.replace(connection)
        return (connection,) * len(transmission.recipients)

    async def close(self) -> None:
        """Close idle connections; a delivery under way ends first, then its connection is closed too. One that has no
        connection yet ends at once, untried."""
        await self._pool.close()
        if self._settings.tokens is not None:
            await self._settings.tokens.close()

    async def _open(self, identity: Hashable) -> Connection | Outcome:
        if self._tls is None and self._settings.tls != "none":
            try:
                self._tls = await asyncio.to_thread(make_tls_context, self._settings)
            except Unfit as error:
                return judge_exception(Stage.CONNECT, error)
        assert isinstance(identity, Identity)
        return await open_connection(identity.applied(self._settings), self._tls, trouble=self._trouble)
