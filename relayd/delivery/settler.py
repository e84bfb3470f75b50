"""Settle outcomes in batches: new states, log rows, budget and bounces of a batch in one transaction.

An outcome is never dropped: while Postgres is away it waits here and is written when Postgres is back.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

import asyncpg

from relayd import failpoints
from relayd.errors import StoreUnavailable
from relayd.mail.address import Address
from relayd.rules.doubt import LookPolicy
from relayd.rules.outcome import Outcome
from relayd.rules.relay_events import AttemptEnded, BatchCommitted, Bounced, RelayEvent
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted, OnUncertain, Settlement
from relayd.rules.settlement import settle as decide
from relayd.rules.states import Status
from relayd.store import lanes, queue, settlement
from relayd.store.batcher import Batcher
from relayd.store.pool import Database

log = logging.getLogger(__name__)

MAX_BATCH = 500
# Its connection takes the next message meanwhile, so nobody waits for this.
SPACING_SECONDS = 0.05
RETRY_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Ended:
    """One entry whose attempt has ended, or whose holder died in the middle of one."""

    entry_id: UUID
    fence: int
    claimed_by: str
    queue_id: UUID
    mailbox_id: UUID
    recipient: Address
    retry_count: int
    max_retries: int
    first_attempt_at: datetime | None
    upstream: str
    provider: str
    on_uncertain: OnUncertain
    outcome: Outcome
    seconds: float
    only_if_unstarted: bool = False  # taken back as untried: not if its holder has begun after all
    only_if_unreferenced: bool = False  # as that: not if it has kept a reference after all
    can_look: bool = False  # the upstream can be asked what became of a doubt


@dataclass(frozen=True, slots=True)
class FinalFailure:
    """An entry that will not be tried again: what a bounce has to say of it."""

    entry_id: UUID
    queue_id: UUID
    mailbox_id: UUID
    recipient: Address
    settlement: Settlement


class BounceComposer(Protocol):
    """Makes the DSNs for final failures, prepared and signed as any message is."""

    async def compose(self, failures: Sequence[FinalFailure]) -> list[queue.NewMessage]:
        """The bounces, one a message; none for a message with the null reverse-path."""
        ...


class Settler:
    """Turns outcomes into state. `settle` returns when they are committed."""

    def __init__(
        self,
        database: Database,
        bounces: BounceComposer,
        policy: RetryPolicy,
        *,
        emit: Callable[[RelayEvent], None],
        wake: Callable[[], None],
        now: Callable[[], datetime],
        dice: Callable[[], float] = random.random,
        looks: LookPolicy | None = None,
    ) -> None:
        self._database = database
        self._bounces = bounces
        self.policy = policy
        self._emit = emit
        self._wake = wake
        self._now = now
        self._dice = dice
        self._looks = looks or LookPolicy()
        self._batcher: Batcher[tuple[Ended, ...], None] = Batcher(
            self._commit, max_items=MAX_BATCH, max_weight=MAX_BATCH, weigh=len, spacing_seconds=SPACING_SECONDS
        )

    async def settle(self, ended: Sequence[Ended]) -> None:
        """Settle the entries of one transaction together. Waits as long as Postgres is away."""
        attempt = 0
        while True:
            try:
                await self._batcher.submit(tuple(ended))
                return
            except (StoreUnavailable, asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
            except Exception:
                # A bug. The lease will lapse and the entries be recorded as in doubt: kept, and loud.
                log.exception("outcome could not be settled; its lease will lapse")
                return

    async def drain(self) -> None:
        """Wait until everything handed in has been committed."""
        await self._batcher.drain()

    async def _commit(self, transactions: Sequence[tuple[Ended, ...]]) -> list[None]:
        started = asyncio.get_running_loop().time()
        decided = [(ended, result) for ended_together in transactions for ended, result in self._decide(ended_together)]
        by_entry = {ended.entry_id: (ended, result) for ended, result in decided if result.notifies}
        failures = [
            FinalFailure(ended.entry_id, ended.queue_id, ended.mailbox_id, ended.recipient, result)
            for ended, result in by_entry.values()
        ]
        bounces = await self._bounces.compose(failures) if failures else []
        results = [
            settlement.Result(
                ended.entry_id,
                ended.fence,
                ended.claimed_by,
                ended.provider,
                result,
                only_if_unstarted=ended.only_if_unstarted,
                only_if_unreferenced=ended.only_if_unreferenced,
            )
            for ended, result in decided
        ]
        failpoints.reach("settle-before")
        if all(result.status is Status.SENT for _, result in decided):
            results = await self._commit_sent(results)
        if results:
            bounces = await self._commit_whole(results, failures, bounces)
        failpoints.reach("settle-after")
        self._report(decided, asyncio.get_running_loop().time() - started)
        for bounce in bounces:
            assert bounce.parent_id, "a bounce speaks of a message"
            self._emit(Bounced(bounce.queue_id, bounce.parent_id, str(bounce.entries[0].recipient)))
        if bounces or any(result.status is Status.QUEUED for _, result in decided):
            self._wake()
        return [None] * len(transactions)

    async def _commit_sent(self, results: list[settlement.Result]) -> list[settlement.Result]:
        async with self._database.connection() as connection:
            failpoints.reach("settle-commit")
            failpoints.reach_soon("settle-sent")
            return await settlement.settle_sent(connection, results)

    async def _commit_whole(
        self, results: list[settlement.Result], failures: list[FinalFailure], bounces: list[queue.NewMessage]
    ) -> list[queue.NewMessage]:
        """One transaction; returns the bounces that went with it."""
        async with self._database.transaction() as connection:
            applied = await settlement.settle(connection, results)
            bounced = [failure for failure in failures if failure.entry_id in applied]
            if len(bounced) < len(failures):
                # Some results came too late: a bounce must not speak of what another attempt decides.
                bounces = await self._bounces.compose(bounced) if bounced else []
            if bounces:
                await queue.enqueue(connection, bounces)
                # Not `wake`: that is made for a commit that need not wait for the disk, and this one must.
                await lanes.requeue(connection, [(message.lane_id, self._now()) for message in bounces])
                failpoints.reach("settle-bounce")
                failpoints.reach_soon("settle-bounce-sent")
            failpoints.reach("settle-commit")
            failpoints.reach_soon("settle-sent")
        return bounces

    def _decide(self, ended_together: tuple[Ended, ...]) -> list[tuple[Ended, Settlement]]:
        now, dice = self._now(), self._dice()
        return [
            (
                ended,
                decide(
                    ended.outcome,
                    Attempted(ended.retry_count, ended.max_retries, ended.first_attempt_at or now),
                    self.policy,
                    on_uncertain=ended.on_uncertain,
                    now=now,
                    dice=dice,
                    looks=self._looks if ended.can_look else None,
                ),
            )
            for ended in ended_together
        ]

    def _report(self, decided: Sequence[tuple[Ended, Settlement]], seconds: float) -> None:
        self._emit(BatchCommitted("settle", len(decided), seconds))
        for ended, result in decided:
            self._emit(
                AttemptEnded(
                    queue_id=ended.queue_id,
                    entry_id=ended.entry_id,
                    recipient=str(ended.recipient),
                    upstream=ended.upstream,
                    provider=ended.provider,
                    outcome=type(ended.outcome).__name__.lower(),
                    status=result.status,
                    stage=result.cause.stage,
                    reason=result.reason,
                    attempt=ended.fence,
                    next_attempt_at=result.next_attempt_at,
                    seconds=ended.seconds,
                )
            )
