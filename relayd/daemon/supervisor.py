"""The supervisor: owns the sockets, the workers, the control socket, the HTTP endpoint and the chores.

`run` is the daemon's life: check, take the name, take back what a dead predecessor held, listen, start the workers,
serve until told to stop, drain.
"""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from relayd import __version__, maillog, metrics
from relayd.config.settings import Settings
from relayd.control.route import House
from relayd.control.server import ControlServer
from relayd.daemon import node, notify, sockets
from relayd.daemon.chores import chores
from relayd.daemon.crew import Crew
from relayd.daemon.gmail import Lookers
from relayd.daemon.house_terms import publishing, resolver, tiers
from relayd.daemon.http import HttpEndpoint
from relayd.daemon.keyring import Keyring
from relayd.daemon.orders import Secrets
from relayd.daemon.probes import Probes
from relayd.daemon.readiness import ReadinessCheck
from relayd.daemon.reload import merge
from relayd.daemon.report_chores import report_chores
from relayd.daemon.reporting import emit
from relayd.daemon.sockets import ListeningSocket
from relayd.daemon.storage import open_database
from relayd.daemon.takeback import TakeBack
from relayd.daemon.terms import connection_timeouts, verdicts
from relayd.daemon.tokens import token_source
from relayd.errors import RelaydError
from relayd.rules.warm_up import Schedule
from relayd.store.nodes import APPLICATION
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upkeep import runner
from relayd.upstream.tokens import TokenSource

log = logging.getLogger(__name__)

CONNECTIONS = 8
NOTIFY_SECONDS = 5.0


class Supervisor:
    """One node. Its `run` returns when it has drained after SIGTERM or SIGINT."""

    def __init__(
        self,
        settings: Settings,
        keys: Secrets,
        *,
        reread: Callable[[], tuple[Settings, Secrets]] | None,
        provision_for: str | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._reread = reread
        self._provision_for = provision_for
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._hangup = asyncio.Event()
        self._crew: Crew | None = None
        self._telling: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve. Raises RelaydError when it cannot start."""
        settings = self._settings
        maillog.configure(level=settings.log.level, format=settings.log.format, stream=sys.stdout)
        metrics_directory = _make_directories(settings.control.socket)
        async with AsyncExitStack() as stack:
            database = await open_database(
                settings.database, self._keys.database_password, name=APPLICATION, connections=CONNECTIONS
            )
            self._database = database
            stack.push_async_callback(database.close)
            for warning in await database.check():
                log.warning("%s", warning)
            listening, http_sockets = self._listen(stack)
            await stack.enter_async_context(node.sole_bearer(database, settings.node))
            self._keyring = keyring = Keyring(database, settings.node, self._keys.seal())
            # First told, then checked: a rotation that begins between the two has waited, or is noticed.
            await keyring.tell()
            await keyring.check(keyring.seal)
            for warning in await node.networks_without_client(database, settings.trusted_networks):
                log.warning("%s", warning)
            self._take_back = take_back = TakeBack(
                database, self._keys.seal(), settings, metrics_directory, wake=self._wake
            )
            await take_back.from_predecessors()
            readiness = ReadinessCheck(database)
            stack.push_async_callback(readiness.close)
            self._crew = crew = Crew(
                settings,
                self._keys,
                listening,
                metrics_directory=metrics_directory,
                provision_for=self._provision_for,
                on_death=take_back.from_worker,
                on_refusal=readiness.suspect,
            )
            self._control = await self._open_control(database, stack)
            # Only now is the place beside the socket ours: until then its counts may be those of a relayd that lives.
            metrics.prepare_directory(metrics_directory)
            page = metrics.MetricsPage(metrics_directory, database, node=crew.node_state, meter=metrics.own_meter())
            http = HttpEndpoint(
                sockets=http_sockets,
                metrics_page=page,
                readiness=lambda: readiness.ask(
                    workers=crew.ready, is_refusing=crew.is_refusing, key_fits=keyring.fits
                ),
            )
            await http.start()
            stack.push_async_callback(http.close)
            lookers = Lookers(database, self._tokens)
            stack.push_async_callback(lookers.close)
            every = [
                *chores(database, take_back, lookers, settings, self._wake),
                *report_chores(database, self._keys.seal, self._tokens, settings),
            ]
            upkeep = asyncio.create_task(runner.run(database, every))
            stack.push_async_callback(_cancel, upkeep)
            watching = asyncio.create_task(keyring.watch(crew.node_state.note_key))
            stack.push_async_callback(_cancel, watching)
            stack.push_async_callback(self._stop_telling)
            self._catch_signals()
            try:
                await crew.start()
                self._announce(listening)
                await self._serve()
            finally:
                notify.notify(STOPPING="1", STATUS="draining")
                await crew.drain(self._settings.delivery.drain_seconds)
        log.info("stopped")

    def _listen(self, stack: AsyncExitStack) -> tuple[list[ListeningSocket], list[socket.socket]]:
        submission, http = self._settings.submission, self._settings.http
        listening = sockets.listen(submission.listen, submission.listen_implicit_tls)
        for each in listening:
            stack.callback(each.socket.close)
        if any(each.mode == "implicit" for each in listening) and submission.tls_certificate is None:
            raise RelaydError("systemd passed a socket for implicit TLS; set submission.tls_certificate and tls_key")
        return listening, [sockets.bind(http.listen)] if http.listen else []

    async def _open_control(self, database: Database, stack: AsyncExitStack) -> ControlServer:
        settings = self._settings
        control = ControlServer(
            self._house(database),
            socket_path=settings.control.socket,
            mode=int(settings.control.mode, 8),
            group=settings.control.group,
        )
        await control.start()
        stack.push_async_callback(control.close)
        return control

    def _house(self, database: Database) -> House:
        settings, seal = self._settings, self._keys.seal()
        assert self._take_back
        return House(
            database=database,
            seal=seal,
            wake=self._wake,
            version=__version__,
            node=settings.node,
            workers=lambda: self._crew.ready if self._crew else 0,
            publishing=publishing(settings),
            tiers=tiers(settings),
            schedule=Schedule.parse(settings.warm_up.schedule),
            release_spread_seconds=settings.delivery.release_spread_seconds,
            verdicts=verdicts(settings),
            emit=emit,
            probe_of=Probes(
                database, seal, hostname=settings.hostname, emit=emit, timeouts=connection_timeouts(settings)
            ).of,
            bouncer=self._take_back.bouncer,
            resolver=resolver(settings),
        )

    def _tokens(self, record: UpstreamRecord) -> TokenSource:
        assert self._database
        return token_source(record, self._keys.seal(), self._database, emit, time.monotonic)

    def _wake(self) -> None:
        if self._crew:
            self._crew.wake()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)

    def _announce(self, listening: Sequence[ListeningSocket]) -> None:
        addresses = ", ".join(each.address for each in listening)
        log.info("relayd %s: node %s listens on %s", __version__, self._settings.node, addresses)
        notify.notify(READY="1", STATUS=f"listening on {addresses}")
        self._on_ready()

    async def _serve(self) -> None:
        """Until told to stop: reload when asked to, and tell systemd all the while that we live."""
        living = asyncio.create_task(_show_life())
        try:
            while not self._stop.is_set():
                if self._hangup.is_set():
                    self._hangup.clear()
                    await self._reload()
                waits = [asyncio.ensure_future(event.wait()) for event in (self._stop, self._hangup)]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
        finally:
            await _cancel(living)

    async def _reload(self) -> None:
        """Take a new configuration, or keep the old one and say why."""
        assert self._crew
        if self._reread is None:
            log.warning("SIGHUP: nothing to reload in development mode")
            return
        notify.reloading()
        try:
            wanted, keys = self._reread()
            settings, needs_restart = merge(self._settings, wanted)
            await self._exchange(settings, keys)
        except (RelaydError, OSError) as error:
            log.error("reload refused, everything stays as it was:\n%s", error)
        else:
            maillog.configure(level=settings.log.level, format=settings.log.format, stream=sys.stdout)
            log.info("reloaded")
            if needs_restart:
                log.warning("not reloaded, these need a restart: %s", ", ".join(needs_restart))
        notify.notify(READY="1")

    async def _exchange(self, settings: Settings, keys: Secrets) -> None:
        """Workers with these, then the rest of the house. Raises RelaydError, and then everything is as it was."""
        assert self._crew
        keyring, seal = self._keyring, keys.seal()
        is_rekeyed = seal.key_ids != keyring.seal.key_ids
        if is_rekeyed:
            await keyring.check(seal)
            # While there are workers of both kinds, this node has only what both of them have.
            await keyring.tell(only_with=seal)
        try:
            await self._crew.exchange(settings, keys)
        except RelaydError:
            if is_rekeyed:
                await keyring.tell()
            raise
        self._settings, self._keys = settings, keys
        keyring.take(seal)
        self._take_back.exchange(seal, settings)
        self._control.exchange(self._house(self._database))
        if is_rekeyed:
            if self._telling is not None:
                self._telling.cancel()
            self._telling = asyncio.create_task(self._tell_keys_when_alone(), name="tell keys")

    async def _stop_telling(self) -> None:
        if self._telling is not None:
            await _cancel(self._telling)

    async def _tell_keys_when_alone(self) -> None:
        assert self._crew
        await self._crew.predecessors_gone()
        await self._keyring.tell_at_last()


async def _show_life() -> None:
    # Beside the work: a reload may take longer than the watchdog waits. A blocked loop still shows.
    watchdog = notify.watchdog_seconds()
    pause = min(watchdog / 3, NOTIFY_SECONDS) if watchdog else NOTIFY_SECONDS
    while True:
        notify.notify(WATCHDOG="1")
        await asyncio.sleep(pause)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _make_directories(control_socket: Path) -> Path:
    """Make the control socket's directory and, beside the socket, one for the workers' metrics."""
    directory = control_socket.with_suffix(".metrics")
    try:
        control_socket.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise RelaydError(f"control.socket: cannot make {directory}: {error.strerror}; choose another path") from error
    return directory
