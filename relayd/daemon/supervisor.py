"""The supervisor: owns the sockets, the workers, the control socket, the HTTP endpoint and the chores.

`run` is the daemon's life: check, take the name, take back what a dead predecessor held, listen, start the workers,
serve until told to stop, drain.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from relayd import __version__, metrics
from relayd.config.settings import Settings
from relayd.control.pending_logins import PendingLogins
from relayd.control.route import House, Reloaded
from relayd.control.server import ControlServer
from relayd.daemon import node, notify, sockets
from relayd.daemon.chores import chores
from relayd.daemon.gmail import Lookers
from relayd.daemon.house_terms import publishing, resolver, tiers
from relayd.daemon.http import HttpEndpoint
from relayd.daemon.keyring import Keyring
from relayd.daemon.orders import Secrets
from relayd.daemon.probes import Probes
from relayd.daemon.readiness import ReadinessCheck
from relayd.daemon.reload import changed_keys, merge
from relayd.daemon.report_chores import report_chores
from relayd.daemon.reporting import Log, emit
from relayd.daemon.sockets import ListeningSocket
from relayd.daemon.storage import open_database
from relayd.daemon.takeback import TakeBack
from relayd.daemon.terms import connection_timeouts, verdicts
from relayd.daemon.threads import start_threads
from relayd.daemon.tokens import token_source
from relayd.daemon.worker_pool import WorkerPool
from relayd.errors import RelaydError
from relayd.metrics import NodeState
from relayd.rules.warm_up import Schedule
from relayd.seal import Seal
from relayd.store.nodes import APPLICATION
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upkeep import runner
from relayd.upkeep.runner import Chore
from relayd.upstream.tokens import TokenSource

log = logging.getLogger(__name__)

CONNECTIONS = 8
NOTIFY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a reload builds anew in the supervisor."""

    recovery: TakeBack
    lookers: Lookers
    house: House
    chores: Sequence[Chore]


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
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[Reloaded]] = set()
        self._logins = PendingLogins()
        self._workers: WorkerPool | None = None
        self._telling: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve. Raises RelaydError when it cannot start."""
        settings = self._settings
        start_threads()
        self._log = Log()
        self._log.configure(settings)
        sockets.raise_file_limit(settings.submission.max_connections)
        metrics_directory = _make_directories(settings.control.socket)
        async with AsyncExitStack() as stack:
            database = await open_database(
                settings.database, self._keys.database_password, name=APPLICATION, connections=CONNECTIONS
            )
            self._database = database
            stack.push_async_callback(database.close)
            for warning in [*settings.warnings(), *await database.check()]:
                log.warning("%s", warning)
            listening, http_sockets = self._listen(stack)
            await stack.enter_async_context(node.sole_bearer(database, settings.node))
            self._keyring = keyring = Keyring(database, settings.node, self._keys.seal())
            # First told, then checked: a rotation that begins between the two has waited, or is noticed.
            await keyring.tell()
            await keyring.check(keyring.seal)
            for warning in await node.networks_without_client(database, settings.trusted_networks):
                log.warning("%s", warning)
            self._metrics_directory = metrics_directory
            self._parts = self._build(settings, self._keys)
            stack.push_async_callback(self._close_parts)
            await self._parts.recovery.from_predecessors()
            readiness = ReadinessCheck(database)
            stack.push_async_callback(readiness.close)
            self._workers = workers = WorkerPool(
                settings,
                self._keys,
                listening,
                metrics_directory=metrics_directory,
                provision_for=self._provision_for,
                on_death=lambda claimant, pid: self._parts.recovery.from_worker(claimant, pid),
                on_refusal=readiness.suspect,
            )
            self._control = await self._open_control(stack)
            # Only now is the place beside the socket ours: until then its counts may be those of a relayd that lives.
            metrics.prepare_directory(metrics_directory)
            node_state = NodeState(workers_ready=lambda: workers.ready, workers_wanted=lambda: workers.wanted)
            page = metrics.MetricsPage(metrics_directory, database, node=node_state, meter=metrics.own_meter())
            http = HttpEndpoint(
                sockets=http_sockets,
                metrics_page=page,
                readiness=lambda: readiness.ask(
                    workers=workers.ready, is_refusing=workers.is_refusing, key_fits=keyring.fits
                ),
            )
            await http.start()
            stack.push_async_callback(http.close)
            self._upkeep = asyncio.create_task(runner.run(database, self._parts.chores))
            stack.push_async_callback(self._stop_upkeep)
            watching = asyncio.create_task(keyring.watch(node_state.note_key))
            stack.push_async_callback(_cancel, watching)
            stack.push_async_callback(self._stop_telling)
            self._catch_signals()
            try:
                await workers.start()
                self._announce(listening)
                await self._serve()
            finally:
                notify.notify(STOPPING="1", STATUS="draining")
                await workers.drain(self._settings.delivery.drain_seconds)
        log.info("stopped")

    def _listen(self, stack: AsyncExitStack) -> tuple[list[ListeningSocket], list[socket.socket]]:
        submission, http = self._settings.submission, self._settings.http
        listening = sockets.listen(submission.listen, submission.listen_implicit_tls)
        for each in listening:
            stack.callback(each.socket.close)
        if any(each.mode == "implicit" for each in listening) and submission.tls_certificate is None:
            raise RelaydError("systemd passed a socket for implicit TLS; set submission.tls_certificate and tls_key")
        return listening, [sockets.bind(http.listen)] if http.listen else []

    async def _open_control(self, stack: AsyncExitStack) -> ControlServer:
        settings = self._settings
        control = ControlServer(
            self._parts.house,
            socket_path=settings.control.socket,
            mode=int(settings.control.mode, 8),
            group=settings.control.group,
        )
        await control.start()
        stack.push_async_callback(control.close)
        return control

    def _build(self, settings: Settings, keys: Secrets) -> _Parts:
        """Everything in this process that settings and keys decide, for the start and for each reload."""
        database, seal = self._database, keys.seal()
        tokens = partial(_tokens, database, seal)
        recovery = TakeBack(database, seal, settings, self._metrics_directory, wake=self._wake)
        lookers = Lookers(database, tokens)
        house = House(
            database=database,
            seal=seal,
            wake=self._wake,
            version=__version__,
            node=settings.node,
            workers=lambda: self._workers.ready if self._workers else 0,
            publishing=publishing(settings),
            tiers=tiers(settings),
            schedule=Schedule.parse(settings.warm_up.schedule),
            release_spread_seconds=settings.delivery.release_spread_seconds,
            verdicts=verdicts(settings),
            emit=emit,
            probe_of=Probes(
                database, seal, hostname=settings.hostname, emit=emit, timeouts=connection_timeouts(settings)
            ).of,
            logins=self._logins,
            bouncer=recovery.bouncer,
            resolver=resolver(settings),
            reload=None if self._reread is None else self._reload_for_control,
        )
        every = [
            *chores(database, recovery, lookers, settings, self._wake),
            *report_chores(database, seal, tokens, settings),
        ]
        return _Parts(recovery, lookers, house, every)

    async def _close_parts(self) -> None:
        await self._parts.lookers.close()

    def _wake(self) -> None:
        if self._workers:
            self._workers.wake()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._begin_reload)

    def _announce(self, listening: Sequence[ListeningSocket]) -> None:
        addresses = ", ".join(each.address for each in listening)
        log.info("relayd %s: node %s listens on %s", __version__, self._settings.node, addresses)
        notify.notify(READY="1", STATUS=f"listening on {addresses}")
        self._on_ready()

    async def _serve(self) -> None:
        """Until told to stop. Tells systemd all the while that the node lives."""
        assert self._workers
        living = asyncio.create_task(_show_life(self._workers))
        try:
            await self._stop.wait()
        finally:
            await self._stop_reloading()
            await _cancel(living)

    def _begin_reload(self) -> asyncio.Task[Reloaded]:
        """Reload, after those reloads that have begun before."""
        task = asyncio.create_task(self._reload(), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reload_ended)
        return task

    def _reload_ended(self, task: asyncio.Task[Reloaded]) -> None:
        self._reloads.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, (RelaydError, OSError)):
            log.error("reload failed, everything stays as it was", exc_info=error)

    async def _reload_for_control(self) -> Reloaded:
        # Shielded: a client that hangs up must not cut a reload off in the middle.
        return await asyncio.shield(self._begin_reload())

    async def _reload(self) -> Reloaded:
        """Take a new configuration. Raises RelaydError or OSError when it is refused; nothing has changed then."""
        async with self._reloading:
            if self._reread is None:
                log.warning("SIGHUP: nothing to reload in development mode")
                return Reloaded((), ())
            notify.reloading()
            try:
                wanted, keys = self._reread()
                running = self._settings
                settings, needs_restart = merge(running, wanted)
                changed = changed_keys(running, settings)
                if keys.seal().key_ids != self._keyring.seal.key_ids:
                    changed.append("sealing keys")
                await self._exchange(settings, keys)
            except (RelaydError, OSError) as error:
                log.error("reload refused, everything stays as it was:\n%s", error)
                raise
            else:
                self._log.configure(settings)
                log.info("reloaded; changed: %s", ", ".join(changed) or "no setting")
                if needs_restart:
                    log.warning("not reloaded, these need a restart: %s", ", ".join(needs_restart))
                return Reloaded(changed, needs_restart)
            finally:
                self._log.flush()
                notify.notify(READY="1")

    async def _exchange(self, settings: Settings, keys: Secrets) -> None:
        """Workers with these, then the rest of this process. When it raises, everything is as it was."""
        assert self._workers
        keyring, seal = self._keyring, keys.seal()
        parts = self._build(settings, keys)
        is_rekeyed = seal.key_ids != keyring.seal.key_ids
        if is_rekeyed:
            await keyring.check(seal)
        try:
            if is_rekeyed:
                # While there are workers of both kinds, this node has only what both of them have.
                await keyring.tell(only_with=seal)
            await self._workers.exchange(settings, keys)
        except BaseException:
            if is_rekeyed:
                self._tell_keys(keyring.tell_at_last())
            raise
        self._settings, self._keys = settings, keys
        keyring.take(seal)
        former, self._parts = self._parts, parts
        self._control.exchange(parts.house)
        if is_rekeyed:
            self._tell_keys(self._tell_keys_when_alone())
        await self._stop_upkeep()
        self._upkeep = asyncio.create_task(runner.run(self._database, parts.chores))
        await former.lookers.close()

    def _tell_keys(self, telling: Coroutine[Any, Any, None]) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._telling = asyncio.create_task(telling, name="tell keys")

    async def _stop_upkeep(self) -> None:
        await _cancel(self._upkeep)

    async def _stop_reloading(self) -> None:
        for task in self._reloads:
            task.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)

    async def _stop_telling(self) -> None:
        if self._telling is not None:
            await _cancel(self._telling)

    async def _tell_keys_when_alone(self) -> None:
        assert self._workers
        await self._workers.predecessors_gone()
        await self._keyring.tell_at_last()


async def _show_life(workers: WorkerPool) -> None:
    """Feed systemd's watchdog while a worker lives.

    A task of its own: a reload may take longer than the watchdog waits, and a blocked loop still shows.
    """
    watchdog = notify.watchdog_seconds()
    pause = min(watchdog / 3, NOTIFY_SECONDS) if watchdog else NOTIFY_SECONDS
    while True:
        if workers.is_alive:
            notify.notify(WATCHDOG="1")
        await asyncio.sleep(pause)


def _tokens(database: Database, seal: Seal, record: UpstreamRecord) -> TokenSource:
    return token_source(record, seal, database, emit, time.monotonic)


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
