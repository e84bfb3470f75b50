"""Look for attempts in doubt at upstreams that can be asked, and decide them by what is seen.

Looks go over the network, so nothing is locked meanwhile: a decision holds only for the doubt that was looked into.
Upstreams are asked beside each other, each within its own bounds: one that hangs keeps back nobody else's doubts.
"""

import asyncio
import logging
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

# Of each upstream.
BATCH = 200
AT_ONCE = 8
# A look that is not over by then counts as one that reached nobody.
LOOK_SECONDS = 8.0
# Other chores wait meanwhile, and for the looks that have begun; what is not looked into comes with the next round.
ROUND_SECONDS = 10.0

_log = logging.getLogger(__name__)

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
    look_seconds: float = LOOK_SECONDS,
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
    deciding = _Deciding(database, bouncer, terms, emit)
    ends_at = asyncio.get_running_loop().time() + round_seconds
    upstreams = {
        each: _Asking(looks.get(each), look_seconds, ends_at) for each in {doubt.upstream_id for doubt in found}
    }
    async with asyncio.TaskGroup() as group:
        for together in by_attempt.values():
            group.create_task(_resolve(together, upstreams[together[0].upstream_id], deciding))
    if deciding.changed:
        wake()
    return deciding.changed


async def _resolve(together: Sequence[Doubt], asking: "_Asking", deciding: "_Deciding") -> None:
    """Look once, and decide for each of these."""
    seen = await asking.look(together[0])
    if seen is not None:
        await deciding.decide(together, seen)


class _Asking:
    """The looks of one round at one upstream. After one that was cut off no other begins."""

    def __init__(self, look: Look | None, look_seconds: float, ends_at: float) -> None:
        self._look = look
        self._look_seconds = look_seconds
        self._ends_at = ends_at
        self._room = asyncio.Semaphore(AT_ONCE)
        self._hangs = False

    async def look(self, doubt: Doubt) -> Seen | None:
        """What is seen; None: it was not looked for in this round."""
        if self._look is None:
            return Seen(Sight.UNKNOWABLE, f"upstream {doubt.upstream} cannot be asked any more")
        async with self._room:
            if self._hangs or asyncio.get_running_loop().time() >= self._ends_at:
                return None
            try:
                async with asyncio.timeout(self._look_seconds) as bound:
                    return await self._look(doubt)
            except Exception as error:
                if bound.expired():
                    self._hangs = True
                    return Seen(Sight.UNREACHABLE, f"no end of the look within {self._look_seconds:g} s")
                # A bug of ours must not keep back the others, and tells nothing of this one.
                _log.exception("look for %s failed", doubt.entry_id)
                return Seen(Sight.UNREACHABLE, f"internal error: {type(error).__name__}")


class _Deciding:
    def __init__(self, database: Database, bouncer: Bouncer, terms: LookTerms, emit: Callable[[Event], None]) -> None:
        self._database = database
        self._bouncer = bouncer
        self._terms = terms
        self._emit = emit
        self._room = asyncio.Semaphore(AT_ONCE)
        self.changed = 0

    async def decide(self, together: Sequence[Doubt], seen: Seen) -> None:
        async with self._room:
            await self._decide(together, seen)

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
