"""Provider `smtp_relay`: hand messages to another SMTP server over connections that are kept and reused."""

import asyncio
import ssl
import time
from collections.abc import Callable

from relayd.mail.envelope import Transmission
from relayd.rules.outcome import Outcome, Stage
from relayd.upstream.connection import Connection
from relayd.upstream.handshake import make_tls_context, open_connection
from relayd.upstream.pool import Pool
from relayd.upstream.settings import SmarthostSettings, Timeouts
from relayd.upstream.transaction import transact
from relayd.upstream.verdict import Unfit, judge_exception

__all__ = ["Smarthost", "SmarthostSettings", "Timeouts"]


class Smarthost:
    def __init__(self, settings: SmarthostSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._tls: ssl.SSLContext | None = None
        self._pool = Pool(
            self._open,
            max_connections=settings.max_connections,
            max_messages_per_connection=settings.max_messages_per_connection,
            idle_seconds=settings.idle_seconds,
            clock=clock,
        )

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        """One outcome for each recipient, in their order. Raises CancelledError alone.

        Waits while all connections are busy. Cancelled, it closes its connection at once; whether the message went
        is then unknown to the caller, who must treat it as the uncertain window.
        """
        connection = await self._pool.acquire()
        while isinstance(connection, Connection):
            try:
                outcomes = await transact(connection, transmission)
            except BaseException:
                self._pool.discard(connection)
                raise
            if outcomes is not None:
                self._pool.release(connection)
                return outcomes
            connection = await self._pool.replace(connection)
        return (connection,) * len(transmission.recipients)

    async def close(self) -> None:
        """Close idle connections; a delivery under way ends first, then its connection is closed too."""
        await self._pool.close()

    async def _open(self) -> Connection | Outcome:
        if self._tls is None and self._settings.tls != "none":
            try:
                self._tls = await asyncio.to_thread(make_tls_context, self._settings)
            except Unfit as error:
                return judge_exception(Stage.CONNECT, error)
        return await open_connection(self._settings, self._tls)
