"""Warn the senders of mail that waits long: once, and not of what is held or scheduled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from relayd.rules import explain
from relayd.rules.news import Action, News, of_delay
from relayd.rules.relay_events import Bounced, RelayEvent
from relayd.store import client_events, delays, explanation, lanes, messages, queue
from relayd.store.client_events import NewClientEvent
from relayd.store.connection import Connection
from relayd.store.delays import Delayed
from relayd.store.outlook import Terms
from relayd.store.pool import Database

# A round is short, for other chores wait for it: what is left comes with the next.
BATCH = 100
BATCHES = 10
# Of those ahead of an entry no more are counted: beyond that it is not said when it leaves.
MOST_AHEAD = 2_000


class Notification(Protocol):
    """A mail to be queued, and what it tells of."""

    @property
    def message(self) -> queue.NewMessage: ...
    @property
    def action(self) -> Action: ...


class Told(Protocol):
    """What is told, by mail and as events, and of whom."""

    @property
    def mails(self) -> Sequence[Notification]: ...
    @property
    def events(self) -> Sequence[NewClientEvent]: ...
    @property
    def entry_ids(self) -> frozenset[UUID]: ...


class Composer(Protocol):
    """Makes what is told of entries."""

    async def compose(self, news: Sequence[News]) -> Told:
        """At most one mail a message; nothing for whom nobody asked."""
        ...


@dataclass(frozen=True, slots=True)
class DelayTerms:
    """After what time to warn, zero never; after what time from its first attempt an entry is given up."""

    warn_after: timedelta
    give_up_after: timedelta
    outlook: Terms


async def warn_of_delays(
    database: Database,
    composer: Composer,
    terms: DelayTerms,
    *,
    emit: Callable[[RelayEvent], None],
    wake: Callable[[], None],
) -> None:
    """One round. Safe to repeat and to be cut off: a batch is marked in the transaction that stores its warnings."""
    if not terms.warn_after:
        return
    for _ in range(BATCHES):
        async with database.connection() as connection:
            found = await delays.find(connection, terms.warn_after, limit=BATCH)
            news = await _news(connection, found, terms)
        if found:
            await _warn(database, composer, found, news, emit=emit, wake=wake)
        if len(found) < BATCH:
            return


async def _news(connection: Connection, found: Sequence[Delayed], terms: DelayTerms) -> list[News]:
    explained = await explanation.gather(
        connection, [each.entry_id for each in found], terms.outlook, most_ahead=MOST_AHEAD
    )
    facts = {each.entry_id: each for each in explained}
    return [
        of_delay(
            each.entry_id,
            each.queue_id,
            each.recipient,
            explain.explain(facts[each.entry_id].facts, facts[each.entry_id].now),
            facts[each.entry_id].facts,
            enhanced=each.enhanced,
            diagnostic=each.diagnostic,
            retried_until=each.first_attempt_at + terms.give_up_after if each.first_attempt_at else None,
        )
        for each in found
        if each.entry_id in facts
    ]


async def _warn(
    database: Database,
    composer: Composer,
    found: Sequence[Delayed],
    news: Sequence[News],
    *,
    emit: Callable[[RelayEvent], None],
    wake: Callable[[], None],
) -> None:
    told = await composer.compose(news)
    async with database.transaction() as connection:
        why = {each.entry_id: each.because or "" for each in news if each.entry_id in told.entry_ids}
        marked = await delays.mark(connection, [each.entry_id for each in found], why)
        if not told.entry_ids <= marked:
            # Some have left meanwhile, or wait no longer.
            told = await composer.compose([each for each in news if each.entry_id in marked])
        if told.mails:
            now = await messages.now(connection)
            await queue.enqueue(connection, [mail.message for mail in told.mails])
            await lanes.requeue(connection, [(mail.message.lane_id, now) for mail in told.mails])
        await client_events.add(connection, told.events)
    for mail in told.mails:
        assert mail.message.parent_id, "a warning speaks of a message"
        recipient = str(mail.message.entries[0].recipient)
        emit(Bounced(mail.message.queue_id, mail.message.parent_id, recipient, mail.action))
    if told.mails:
        wake()
