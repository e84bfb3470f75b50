"""The supervisor: owns the sockets, the workers, the control socket, the HTTP endpoint and the chores.

The top function reads as the daemon's life: check -> lock the node's name -> take back what a dead predecessor held ->
listen -> start the workers -> ready -> serve until told to stop -> drain.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relayd import __version__, maillog, metrics
from relayd.config.settings import Settings
from relayd.control.route import House, Publishing
from relayd.control.server import ControlServer
from relayd.daemon import notify, sockets
from relayd.daemon.crew import Crew
from relayd.daemon.http import HttpEndpoint, Readiness
from relayd.daemon.orders import Secrets
from relayd.daemon.reload import Reloaded, differences
from relayd.daemon.storage import open_database
from relayd.daemon.worker import emit, retry_policy
from relayd.delivery.settler import Ended, Settler
from relayd.errors import RelaydError, StoreUnavailable
from relayd.intake.bounce import Bouncer
from relayd.intake.signer import Signer
from relayd.mail.address import Address
from relayd.rules.outcome import Outcome
from relayd.store import locks, sealcheck
from relayd.store.clock import DatabaseClock
from relayd.store.leases import LapsedClaim
from relayd.store.pool import Database
from relayd.upkeep import runner
from relayd.upkeep.prune import prune
from relayd.upkeep.reclaim import reclaim
from relayd.upkeep.runner import Chore
from relayd.upkeep.wake_lanes import wake_lanes

log = logging.getLogger(__name__)

NODE_LOCK_SECONDS = 10.0
CONNECTIONS = 8


class Supervisor:
    """One node. `run` returns when it has drained after a signal."""

    def __init__(
        self,
        settings: Settings,
        keys: Secrets,
        *,
        reload: Callable[[], tuple[Settings, Secrets]] | None,
        provision_for: str | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._reload_settings = reload
        self._provision_for = provision_for
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._hangup = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises RelaydError if it cannot start."""
        settings = self._settings
        maillog.configure(level=settings.log.level, format=settings.log.format)
        async with AsyncExitStack() as stack:
            self._database = await open_database(
                settings.database, self._keys.database_password, name="relayd supervisor", connections=CONNECTIONS
            )
            stack.push_async_callback(self._database.close)
            for warning in await self._database.check():
                log.warning("%s", warning)
            await self._check_seal()
            listening = sockets.listen(settings.submission.listen, settings.submission.listen_implicit_tls)
            for each in listening:
                stack.callback(each.socket.close)
            http_sockets = [sockets.bind(settings.http.listen)] if settings.http.listen else []
            await stack.enter_async_context(self._node_name())
            self._crew = self._make_crew(listening)
            self._settler = self._make_settler()
            await self._reclaim(dead=[f"{_pattern(settings.node)}/%"], living=[])
            control = self._make_control()
            await control.start()
            stack.push_async_callback(control.close)
            page = metrics.MetricsPage(self._metrics_directory(), self._database)
            http = HttpEndpoint(sockets=http_sockets, metrics_page=page, readiness=self._readiness)
            await http.start()
            stack.push_async_callback(http.close)
            chores = asyncio.create_task(runner.run(self._database, self._chores()), name="upkeep")
            stack.callback(chores.cancel)
            self._catch_signals()
            await self._crew.start()
            stack.callback(notify.notify, STATUS="stopped")
            self._announce(listening)
            await self._until_stopped()
            notify.notify(STOPPING="1", STATUS="draining")
            log.info("draining for at most %.0f s", self._settings.delivery.drain_seconds)
            await self._crew.drain(self._settings.delivery.drain_seconds)
            await self._settler.drain()
        log.info("stopped")
