"""Look for attempts in doubt at upstreams that can be asked, and decide them by what is seen.

Looks go over the network, so nothing is locked meanwhile: a decision holds only for the doubt that was looked into.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never
from uuid import UUID

from relayd.intake import resolving
from relayd.intake.bounce import Bouncer
from relayd.rules.doubt import Conclusion, LookPolicy, Seen, Sight, conclude
from relayd.rules.events import Event
from relayd.rules.relay_events import Bounced
from relayd.rules.retry import RetryPolicy, next_attempt_at
from relayd.rules.states import Status
from relayd.rules.upkeep_events import DoubtLookedInto, LookResult
from relayd.store import doubts
from relayd.store.clock import NOW
from relayd.store.doubts import Decision, Doubt
from relayd.store.pool import Database

BATCH = 200
AT_ONCE = 8
# Other chores wait meanwhile; what is not looked into comes with the next round.
ROUND_SECONDS = 10.0

# Looks for one attempt at its upstream; all of its recipients have what it sees in common.
Look = Callable[[Doubt], Awaitable[Seen]]


@dataclass(frozen=True, slots=True)
class LookTerms:
    """When it is looked, and when a message that was not sent is given up."""

    looks: LookPolicy
    retry: RetryPolicy


async def resolve_uncertain(
    database: Database,
    lookers: Callable[[], Awaitable[Mapping[UUID, Look]]],
    bouncer: Bouncer,
    terms: LookTerms,
    *,
    emit: Callable[[Event], None],
    wake: Callable[[], None],
    round_seconds: float = ROUND_SECONDS,
) -> int:
    """One round; returns how many entries changed. Safe to repeat and to be cut off. `lookers` are by upstream."""
    async with database.connection() as connection:
        found = await doubts.due(connection, most=BATCH)
    if not found:
        return 0
    looks = await lookers()
    by_attempt: defaultdict[tuple[UUID, UUID, str | None, datetime], list[Doubt]] = defaultdict(list)
    for doubt in found:
        by_attempt[doubt.queue_id, doubt.upstream_id, doubt.reference, doubt.attempted_at].append(doubt)
    rounds = _Round(database, looks, bouncer, terms, emit)
    async with asyncio.TaskGroup() as group:
        for together in by_attempt.values():
            group.create_task(rounds.resolve(together, round_seconds))
    if rounds.changed:
        wake()
    return rounds.changed


class _Round:
    def __init__(
        self,
        database: Database,
        looks: Mapping[UUID, Look],
        bouncer: Bouncer,
        terms: LookTerms,
        emit: Callable[[Event], None],
    ) -> None:
        self._database = database
        self._looks = looks
        self._bouncer = bouncer
        self._terms = terms
        self._emit = emit
        self._room = asyncio.Semaphore(AT_ONCE)
        self._ends_at: float | None = None
        self.changed = 0

    async def resolve(self, together: Sequence[Doubt], seconds: float) -> None:
        """Look once, and decide for each of these."""
        clock = asyncio.get_running_loop().time
        if self._ends_at is None:
            self._ends_at = clock() + seconds
        async with self._room:
            try:
                async with asyncio.timeout_at(self._ends_at):
                    seen = await self._look(together[0])
            except TimeoutError:
                return
            await self._decide(together, seen)

    async def _look(self, doubt: Doubt) -> Seen:
        look = self._looks.get(doubt.upstream_id)
        if look is None:
            return Seen(Sight.UNKNOWABLE, f"upstream {doubt.upstream} cannot be asked any more")
        return await look(doubt)

    async def _decide(self, together: Sequence[Doubt], seen: Seen) -> None:
        async with self._database.connection() as connection:
            now = await connection.fetchval(NOW)
        decided = [(doubt, *_decision(doubt, seen, self._terms, now)) for doubt in together]
        changed, mails = await resolving.apply(self._database, self._bouncer, [decision for _, decision, _ in decided])
        self.changed += len(changed)
        for doubt, _, conclusion in decided:
            if doubt.entry_id in changed:
                self._emit(
                    DoubtLookedInto(
                        queue_id=doubt.queue_id,
                        entry_id=doubt.entry_id,
                        recipient=str(doubt.recipient),
                        upstream=doubt.upstream,
                        sight=seen.sight,
                        conclusion=conclusion,
                        text=seen.text,
                    )
                )
        for mail in mails:
            message = mail.message
            assert message.parent_id, "a notification speaks of a message"
            self._emit(Bounced(message.queue_id, message.parent_id, str(message.entries[0].recipient), mail.action))


def _decision(doubt: Doubt, seen: Seen, terms: LookTerms, now: datetime) -> tuple[Decision, LookResult]:
    """What becomes of it, and the word for that."""
    verdict = conclude(seen, looks=doubt.looks, attempted_at=doubt.attempted_at, now=now, policy=terms.looks)
    match verdict.conclusion:
        case Conclusion.SENT:
            text = f"sent: {seen.text}"
            return Decision(
                doubt, Status.SENT, text, text, provider_message_id=seen.provider_message_id
            ), LookResult.SENT
        case Conclusion.LOOK_AGAIN:
            looks = doubt.looks + verdict.counts
            reason = f"in doubt; the last look: {seen.text}"
            return Decision(doubt, Status.PENDING, reason, reason, looks, verdict.look_at), LookResult.LOOK_AGAIN
        case Conclusion.UNDECIDED if doubt.on_uncertain == "hold":
            reason = f"in doubt, and looking does not tell: {seen.text}"
            return Decision(doubt, Status.PENDING, reason, reason, doubt.looks), LookResult.HELD
        case Conclusion.UNDECIDED:
            return _again(doubt, f"in doubt, and looking does not tell: {seen.text}", terms, now)
        case Conclusion.RETRY:
            return _again(doubt, f"not sent: {seen.text}", terms, now)
        case _:
            assert_never(verdict.conclusion)


def _again(doubt: Doubt, text: str, terms: LookTerms, now: datetime) -> tuple[Decision, LookResult]:
    """Due at once, for it has waited; unless that would be once too often or too late."""
    may_go = next_attempt_at(
        terms.retry,
        attempts_spent=doubt.retry_count,
        first_attempt_at=doubt.first_attempt_at or now,
        max_retries=doubt.max_retries,
        now=now,
        dice=0.5,
    )
    if may_go is None:
        reason = f"given up after {doubt.retry_count} attempts; the last: {text}"
        return Decision(doubt, Status.FAILED, reason, reason), LookResult.FAILED
    return Decision(doubt, Status.QUEUED, text, text), LookResult.RETRY
