"""Take back the claims of workers that are gone: of a predecessor at the start, of a dead worker at once, of any lease
that has run out."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from relayd import metrics
from relayd.config.settings import Settings
from relayd.daemon.reporting import emit
from relayd.daemon.terms import look_policy, retry_policy
from relayd.delivery.settler import Ended, Settler
from relayd.errors import StoreUnavailable
from relayd.intake.bounce import Bouncer
from relayd.intake.signer import Signer
from relayd.mail.address import Address
from relayd.rules.breaker import BreakerState
from relayd.rules.doubt import Way
from relayd.rules.outcome import Outcome
from relayd.seal import Seal
from relayd.store import breakers, nodes
from relayd.store.clock import DatabaseClock
from relayd.store.leases import LapsedClaim
from relayd.store.pool import Database
from relayd.upkeep.give_up import give_up
from relayd.upkeep.reclaim import reclaim

RETRY_SECONDS = 1.0


class TakeBack:
    """The supervisor's settler, for claims that nobody else will settle."""

    def __init__(
        self,
        database: Database,
        seal: Seal,
        settings: Settings,
        metrics_directory: Path,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._node = settings.node
        self._metrics_directory = metrics_directory
        self._clock = DatabaseClock()
        self._wake = wake
        self.bouncer = Bouncer(
            database,
            Signer(database, seal),
            host=settings.hostname,
            max_retries=settings.delivery.max_retries,
            now=lambda: datetime.now(UTC),
        )
        self._settler = Settler(
            database,
            self.bouncer,
            retry_policy(settings),
            emit=emit,
            wake=wake,
            now=self._clock.now,
            suppression_days=settings.suppression.hard_bounce_days,
            looks=look_policy(settings),
        )

    async def from_predecessors(self) -> int:
        """Claims of any worker that ever bore this node's name. Only before the first worker of this one starts."""
        return await self._reclaim([f"{_escape(self._node)}/%"])

    async def from_worker(self, claimant: str, pid: int) -> None:
        """Claims of a worker of ours that has ended, and its counts. Tries until both are taken over."""

        async def take_claims() -> None:
            await self._reclaim([f"{_escape(claimant)}/%"])

        async def take_counts() -> None:
            metrics.forget_worker(self._metrics_directory, pid)

        await asyncio.gather(_until_done(take_claims), _until_done(take_counts))

    async def of_lapsed_leases(self) -> None:
        """Claims, anybody's, whose lease has run out; and the probes of upstreams that nobody will end any more."""
        await self._reclaim([])
        async with self._database.connection() as connection:
            if any(each.state is BreakerState.HALF_OPEN for each in await breakers.failing(connection)):
                # A probe of a node that is gone keeps all mail back: it waits for no lease.
                dead = [f"{_escape(name)}/%" for name in await nodes.gone(connection)]
                if await breakers.release_lost(connection, dead):
                    self._wake()

    async def of_overdue(self) -> None:
        """Entries whose time is over while nobody may try them."""
        async with self._database.connection() as connection:
            await self._clock.sync(connection)
        await give_up(self._database, self._settle, give_up_seconds=self._settler.policy.give_up_after_seconds)

    async def _reclaim(self, dead: Sequence[str]) -> int:
        async with self._database.connection() as connection:
            await self._clock.sync(connection)
            if dead:
                await breakers.release(connection, dead)
        return await reclaim(self._database, self._settle, emit=emit, dead=dead)

    async def _settle(self, outcomes: Sequence[tuple[LapsedClaim, Outcome]]) -> None:
        # A message at a time (the settler gathers them): one that cannot be settled keeps back no other.
        by_message: defaultdict[UUID, list[Ended]] = defaultdict(list)
        for claim, outcome in outcomes:
            by_message[claim.queue_id].append(_ended(claim, outcome))
        await asyncio.gather(*(self._settler.settle(together) for together in by_message.values()))


async def _until_done(work: Callable[[], Awaitable[None]]) -> None:
    """Postgres may be away, or this process short of memory or file descriptors."""
    while True:
        try:
            await work()
            return
        except (StoreUnavailable, OSError, MemoryError):
            await asyncio.sleep(RETRY_SECONDS)


def _ended(claim: LapsedClaim, outcome: Outcome) -> Ended:
    return Ended(
        entry_id=claim.entry_id,
        fence=claim.fence,
        claimed_by=claim.claimed_by,
        queue_id=claim.queue_id,
        mailbox_id=claim.mailbox_id,
        recipient=Address.stored(claim.recipient),
        retry_count=claim.retry_count,
        max_retries=claim.max_retries,
        first_attempt_at=claim.first_attempt_at,
        upstream="",
        provider=claim.provider,
        on_uncertain="hold" if claim.on_uncertain == "hold" else "retry",
        outcome=outcome,
        seconds=0,
        only_if_unstarted=claim.started_at is None,
        only_if_unreferenced=claim.look_by is Way.REFERENCE and claim.reference is None,
        can_look=claim.look_by is not None,
    )


def _escape(claimant: str) -> str:
    """A LIKE pattern that matches just this."""
    return re.sub(r"([\\%_])", r"\\\1", claimant)
