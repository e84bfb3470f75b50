"""A worker: listens, accepts, signs, queues and delivers. The supervisor runs `python -m relayd.daemon.worker`.

It lives as long as its channel: when the supervisor dies, so does it, at once and by the kernel's hand.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_network

from relayd import metrics
from relayd.config.settings import Settings
from relayd.daemon.channel import Channel
from relayd.daemon.orders import Orders
from relayd.daemon.providers import Providers
from relayd.daemon.queueing import QueueingReport
from relayd.daemon.reporting import Log, emit
from relayd.daemon.storage import open_database
from relayd.daemon.terms import (
    breaker_terms,
    connection_timeouts,
    door_terms,
    look_policy,
    retry_policy,
    session_limits,
    verdicts,
)
from relayd.daemon.threads import start_threads
from relayd.daemon.tls import server_context
from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Pace
from relayd.delivery.scheduler import Scheduler
from relayd.delivery.settler import Settler
from relayd.delivery.upstreams import Fleet
from relayd.errors import RelaydError
from relayd.intake.bounce import Bouncer
from relayd.intake.door import Door
from relayd.intake.prospects import Prospects
from relayd.intake.provision import Provisioner
from relayd.intake.reports import ReportDoor
from relayd.intake.return_paths import ReturnPaths
from relayd.intake.rewriting import Rewriter
from relayd.intake.senders import Senders
from relayd.intake.signer import Signer
from relayd.intake.suppression import Suppressions
from relayd.rules.login_failures import LoginFailures
from relayd.rules.warm_up import Schedule
from relayd.store import upstreams
from relayd.store.clock import DatabaseClock
from relayd.store.outlook import Terms
from relayd.store.pool import Database
from relayd.submission import login_guard as login_guards
from relayd.submission.connection_slots import ConnectionSlots
from relayd.submission.listener import Listener, ListeningSocket, Mode
from relayd.submission.login_guard import LoginGuard
from relayd.submission.verifier import DirectoryVerifier
from relayd.undumpable import close_memory

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0


class Worker:
    """Everything of one process, wired. `start`, then `drain`."""

    def __init__(
        self,
        orders: Orders,
        database: Database,
        provisioner: Provisioner | None,
        *,
        tell_supervisor: Callable[[str], None],
        login_guard: LoginGuard,
    ) -> None:
        settings = orders.settings
        self._database = database
        self._clock = DatabaseClock()
        seal = orders.secrets.seal()
        signer = Signer(database, seal)
        senders = Senders(database, provisioner.provide if provisioner else None)
        bouncer = Bouncer(
            database, signer, host=settings.hostname, max_retries=settings.delivery.max_retries, now=_wall_clock
        )
        self._settler = Settler(
            database,
            bouncer,
            retry_policy(settings),
            emit=emit,
            wake=self.wake,
            now=self._clock.now,
            suppression_days=settings.suppression.hard_bounce_days,
            looks=look_policy(settings),
        )
        return_paths = ReturnPaths(database, seal)
        providers = Providers(
            database,
            seal,
            hostname=settings.hostname,
            index=orders.index,
            workers=settings.processes,
            verdicts=verdicts(settings),
            timeouts=connection_timeouts(settings),
            emit=emit,
        )
        self._fleet = Fleet(providers.load)
        self._breakers = Breakers(
            database, breaker_terms(settings), name_of=self._fleet.name_of, emit=emit, wake=self.wake
        )
        self._scheduler = Scheduler(
            database,
            self._fleet,
            self._settler,
            self._breakers,
            self._clock,
            claimant=orders.claimant,
            pace=Pace(
                poll_seconds=settings.delivery.poll_seconds,
                attempt_seconds=settings.delivery.attempt_seconds,
                release_spread_seconds=settings.delivery.release_spread_seconds,
            ),
            emit=emit,
            finisher=Rewriter(database, signer, now=_wall_clock),
            return_paths=return_paths,
        )
        self._suppressions = Suppressions(database)
        self._door = Door(
            database,
            senders,
            signer,
            Prospects(
                database,
                Terms(Schedule.parse(settings.warm_up.schedule), settings.delivery.release_spread_seconds),
            ),
            self._suppressions,
            door_terms(settings),
            emit=QueueingReport(emit, tell_supervisor, clock=time.monotonic).emit,
            wake=self.wake,
            now=_wall_clock,
        )
        self._listener = Listener(
            sockets=[
                ListeningSocket(socket.socket(fileno=descriptor), Mode(mode)) for descriptor, mode in orders.sockets
            ],
            door=self._door,
            verifier=DirectoryVerifier(
                database, [(ip_network(each.network), each.client) for each in settings.trusted_networks]
            ),
            emit=emit,
            limits=session_limits(settings, orders.index),
            tls_context=_tls(settings),
            hostname=settings.hostname,
            allow_plaintext_auth=settings.submission.allow_plaintext_auth,
            reports=ReportDoor(
                database,
                return_paths,
                max_octets=settings.reports.max_octets,
                max_waiting=settings.reports.max_waiting,
            ),
            login_guard=login_guard,
            slots=ConnectionSlots(orders.connection_slots),
        )
        self._delivering: asyncio.Task[None] | None = None

    def wake(self, *, is_changed: bool = False) -> None:
        """Something may be due; `is_changed`: what an operator has done counts before it."""
        self._scheduler.wake(is_changed=is_changed)

    async def start(self) -> None:
        """Accept and deliver."""
        self._delivering = asyncio.create_task(self._scheduler.run(), name="scheduler")
        await self._listener.start()

    async def stop_accepting(self) -> None:
        """Let go of the listening sockets; a drain follows."""
        await self._listener.stop_accepting()

    async def drain(self, seconds: float) -> bool:
        """Accept nothing more, let what is under way end; False if something had to be cut off."""
        ended = await asyncio.gather(self._listener.drain(seconds), self._scheduler.drain(seconds))
        await self._door.drain()
        await self._settler.drain()
        if self._delivering:
            await self._delivering
        await self._suppressions.close()
        await self._breakers.drain()
        await self._fleet.close()
        await self._database.close()
        return all(ended)


async def run(end: socket.socket) -> None:
    """Live from the orders to the drain."""
    start_threads()
    channel = await Channel.open(end)
    messages = channel.messages()
    first = await anext(messages, None)
    if first is None:
        return  # the supervisor is gone, or could not start this process whole
    orders = Orders.from_json(first)
    settings = orders.settings
    login_failures = LoginFailures(time.monotonic)
    login_failures.load(*orders.login_failures)
    login_guard = LoginGuard(login_failures, pass_on=lambda kind, peer, key: channel.send(kind, peer=peer, key=key))
    Log().configure(settings)
    database = await open_database(
        settings.database, orders.secrets.database_password, name=f"relayd {orders.claimant}", hot=True
    )
    try:
        metrics.own_meter()  # its files are made now: later there may be no descriptor left
        worker = Worker(
            orders,
            database,
            await _provisioner(orders, database),
            tell_supervisor=channel.send,
            login_guard=login_guard,
        )
        await worker.start()
    except (RelaydError, OSError) as error:
        channel.send("failed", reason=str(error))
        await channel.flush()
        return
    channel.send("ready")
    heartbeat = asyncio.create_task(_beat(channel), name="heartbeat")
    async for message in messages:
        match message["kind"]:
            case "wake":
                worker.wake(is_changed=True)
            case login_guards.FAILED | login_guards.SUCCEEDED as kind:
                login_guard.hear(kind, message["peer"], message["key"])
            case "drain":
                await worker.stop_accepting()
                channel.send("draining")
                clean = await worker.drain(message["seconds"])
                heartbeat.cancel()
                channel.send("drained", clean=clean)
                await channel.flush()
                return
    # The supervisor is gone; another may already be taking back our claims.
    os.kill(os.getpid(), signal.SIGKILL)


async def _beat(channel: Channel) -> None:
    """Tell the supervisor that this event loop turns."""
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        channel.send("alive")


async def _provisioner(orders: Orders, database: Database) -> Provisioner | None:
    if orders.provision_for is None:
        return None
    async with database.connection() as connection:
        found = [each for each in await upstreams.living(connection) if each.provider_type == "capture"]
    return Provisioner(database, orders.secrets.seal(), upstream_id=found[0].id)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    submission = settings.submission
    if submission.tls_certificate is None or submission.tls_key is None:
        return None
    return server_context(submission.tls_certificate, submission.tls_key)


def _wall_clock() -> datetime:
    return datetime.now(UTC)


def _collect_seldom() -> None:
    # What was imported lives as long as the process, and most of what a message leaves behind is freed without the
    # collector: looking for cycles as often as Python does by itself costs a twentieth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def main() -> None:
    """`python -m relayd.daemon.worker CHANNEL_FD`."""
    close_memory()
    descriptor = int(sys.argv[1])
    # The supervisor tells us when to stop; a Ctrl-C in a terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _collect_seldom()
    asyncio.run(run(socket.socket(fileno=descriptor)))


if __name__ == "__main__":
    main()
