"""Settle outcomes in batches: new states, log rows, budget, bounces, suppressions of a batch in one transaction.

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
from relayd.rules.news import Action, News, of_settlement
from relayd.rules.outcome import Deferred, Outcome, Scope
from relayd.rules.relay_events import AddressesSuppressed, AttemptEnded, BatchCommitted, Bounced, RelayEvent
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted, OnUncertain, Settlement
from relayd.rules.settlement import settle as decide
from relayd.rules.states import Status
from relayd.rules.suppression import DEFAULT_DAYS, SuppressionReason
from relayd.store import client_events, lanes, queue, settlement, steering, suppressions
from relayd.store.batcher import Batcher, after_commit
from relayd.store.client_events import NewClientEvent
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.suppressions import HardBounce

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
    asks_of_success: bool = False  # its submitter wants to know that it was sent
    only_if_unreferenced: bool = False  # as that: not if it has kept a reference after all
    can_look: bool = False  # the upstream can be asked what became of a doubt


class Notification(Protocol):
    """A mail to be queued, and the gravest that it tells of."""

    @property
    def message(self) -> queue.NewMessage: ...
    @property
    def action(self) -> Action: ...


class Told(Protocol):
    """What is told of a batch, by mail and as events."""

    @property
    def mails(self) -> Sequence[Notification]: ...
    @property
    def events(self) -> Sequence[NewClientEvent]: ...


class Composer(Protocol):
    """Makes what is told of entries that have ended."""

    async def compose(self, news: Sequence[News]) -> Told:
        """At most one mail a message, prepared and signed as any message is; nothing for whom nobody asked."""
        ...


class Settler:
    """Turns outcomes into state. `settle` returns when they are committed."""

    def __init__(
        self,
        database: Database,
        composer: Composer,
        policy: RetryPolicy,
        *,
        emit: Callable[[RelayEvent], None],
        wake: Callable[[], None],
        now: Callable[[], datetime],
        dice: Callable[[], float] = random.random,
        suppression_days: float = DEFAULT_DAYS,
        looks: LookPolicy | None = None,
    ) -> None:
        self._database = database
        self._composer = composer
        self.policy = policy
        self._emit = emit
        self._wake = wake
        self._now = now
        self._dice = dice
        self._suppression_days = suppression_days
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
        going_on = await self._make_next_lanes(transactions)
        decided = [
            (ended, result)
            for ended_together in transactions
            for ended, result in self._decide(ended_together, going_on)
        ]
        news = self._news(decided)
        told = await self._composer.compose(news) if news else None
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
        if told is None and all(result.status is Status.SENT for _, result in decided):
            results = await self._commit_sent(results)
        suppressed = 0
        if results:
            told, suppressed = await self._commit_whole(results, decided, news, told)
        failpoints.reach("settle-after")
        mails = told.mails if told is not None else ()
        with after_commit():
            if mails or any(result.status is Status.QUEUED for _, result in decided):
                self._wake()
            self._report(decided, asyncio.get_running_loop().time() - started)
            for mail in mails:
                assert mail.message.parent_id, "a notification speaks of a message"
                recipient = str(mail.message.entries[0].recipient)
                self._emit(Bounced(mail.message.queue_id, mail.message.parent_id, recipient, mail.action))
            if suppressed:
                self._emit(AddressesSuppressed(suppressed, SuppressionReason.HARD_BOUNCE))
        return [None] * len(transactions)

    async def _make_next_lanes(self, transactions: Sequence[tuple[Ended, ...]]) -> set[UUID]:
        """Which of those whose upstream has failed go on through another one."""
        failed = [
            ended.entry_id
            for ended_together in transactions
            for ended in ended_together
            if isinstance(ended.outcome, Deferred) and ended.outcome.scope is Scope.UPSTREAM
        ]
        if not failed:
            return set()
        # Not in the batch's transaction, which locks entries before mailboxes and lanes.
        async with self._database.transaction() as connection:
            return await steering.make_next_lanes(connection, failed)

    async def _commit_sent(self, results: list[settlement.Result]) -> list[settlement.Result]:
        async with self._database.connection() as connection:
            failpoints.reach("settle-commit")
            failpoints.reach_soon("settle-sent")
            return await settlement.settle_sent(connection, results)

    async def _commit_whole(
        self,
        results: list[settlement.Result],
        decided: Sequence[tuple[Ended, Settlement]],
        news: list[News],
        told: Told | None,
    ) -> tuple[Told | None, int]:
        """One transaction; returns what went with it, and how many addresses it suppressed."""
        async with self._database.transaction() as connection:
            applied = await settlement.settle(connection, results)
            if any(each.entry_id not in applied for each in news):
                # Some results came too late: nothing must be told of what another attempt decides.
                news = [each for each in news if each.entry_id in applied]
                told = await self._composer.compose(news) if news else None
            if told is not None and told.mails:
                await queue.enqueue(connection, [mail.message for mail in told.mails])
                # Not `wake`: that is made for a commit that need not wait for the disk, and this one must.
                await lanes.requeue(connection, [(mail.message.lane_id, self._now()) for mail in told.mails])
                failpoints.reach("settle-bounce")
                failpoints.reach_soon("settle-bounce-sent")
            suppressed = await self._suppress(connection, decided, applied)
            if told is not None:
                await client_events.add(connection, told.events)
            failpoints.reach("settle-commit")
            failpoints.reach_soon("settle-sent")
        return told, suppressed

    async def _suppress(
        self, connection: Connection, decided: Sequence[tuple[Ended, Settlement]], applied: set[UUID]
    ) -> int:
        bounces = [
            HardBounce(ended.entry_id, ended.recipient, result.reason)
            for ended, result in decided
            if ended.entry_id in applied and result.bounce and result.bounce.suppresses
        ]
        return await suppressions.add_hard_bounces(connection, bounces, default_days=self._suppression_days)

    def _news(self, decided: Sequence[tuple[Ended, Settlement]]) -> list[News]:
        by_entry = {
            ended.entry_id: of_settlement(ended.entry_id, ended.queue_id, ended.recipient, result)
            for ended, result in decided
            if result.notifies or (result.relays and ended.asks_of_success)
        }
        return list(by_entry.values())

    def _decide(self, ended_together: tuple[Ended, ...], going_on: set[UUID]) -> list[tuple[Ended, Settlement]]:
        now, dice = self._now(), self._dice()
        return [
            (
                ended,
                decide(
                    ended.outcome,
                    Attempted(
                        ended.retry_count, ended.max_retries, ended.first_attempt_at or now, str(ended.recipient)
                    ),
                    self.policy,
                    on_uncertain=ended.on_uncertain,
                    now=now,
                    dice=dice,
                    looks=self._looks if ended.can_look else None,
                    has_next_upstream=ended.entry_id in going_on,
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
