"""Apply what was decided about doubts. A failure and its bounce are one transaction, as everywhere."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from relayd.intake.bounce import Bouncer, Notification, Told
from relayd.rules.news import News, of_settlement
from relayd.rules.outcome import Cause, Stage
from relayd.rules.settlement import Settlement
from relayd.rules.states import LogEvent, Status
from relayd.store import client_events, doubts, lanes, queue
from relayd.store.clock import NOW
from relayd.store.connection import Connection
from relayd.store.doubts import Decision
from relayd.store.pool import Database


async def apply(
    database: Database,
    bouncer: Bouncer | None,
    decisions: Sequence[Decision],
    *,
    by_operator: bool = False,
    first: Callable[[Connection], Awaitable[None]] | None = None,
) -> tuple[set[UUID], tuple[Notification, ...]]:
    """Which entries were changed, and the mails that tell of their ends; committed on return.

    `first` is what the transaction begins with. Without a bouncer nobody is told. Raises StoreUnavailable.
    """
    news = [_news(each) for each in decisions if each.status in (Status.FAILED, Status.SENT)]
    told = await bouncer.compose(news) if bouncer and news else Told()
    async with database.transaction() as connection:
        if first is not None:
            await first(connection)
        changed, due = await doubts.decide(connection, decisions, by_operator=by_operator)
        ended = [each for each in news if each.entry_id in changed]
        if bouncer and len(ended) < len(news):
            # Some were decided meanwhile: nobody is told of those.
            told = await bouncer.compose(ended) if ended else Told()
        if told.mails:
            await queue.enqueue(connection, [each.message for each in told.mails])
            now = await connection.fetchval(NOW)
            due += [(each.message.lane_id, now) for each in told.mails]
        if due:
            await lanes.requeue(connection, due)
        if told.events:
            await client_events.add(connection, told.events)
    return changed, told.mails


def _news(decision: Decision) -> News:
    doubt = decision.doubt
    cause = Cause(Stage.DOT, decision.reason)
    event = LogEvent.SENT if decision.status is Status.SENT else LogEvent.FAILED
    settlement = Settlement(decision.status, event, cause, decision.reason)
    return of_settlement(doubt.entry_id, doubt.queue_id, doubt.recipient, settlement)
