"""Apply what was decided about doubts. A failure and its bounce are one transaction, as everywhere."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from relayd.intake.bounce import Bouncer
from relayd.mail.address import Address
from relayd.rules.outcome import Cause, Stage
from relayd.rules.settlement import Settlement
from relayd.rules.states import LogEvent, Status
from relayd.store import doubts, lanes, queue
from relayd.store.clock import NOW
from relayd.store.connection import Connection
from relayd.store.doubts import Decision
from relayd.store.pool import Database


@dataclass(frozen=True, slots=True)
class DoubtFailed:
    """A doubt that ended as a failure, as a bounce has to tell it."""

    entry_id: UUID
    queue_id: UUID
    mailbox_id: UUID
    recipient: Address
    settlement: Settlement


async def apply(
    database: Database,
    bouncer: Bouncer | None,
    decisions: Sequence[Decision],
    *,
    by_operator: bool = False,
    first: Callable[[Connection], Awaitable[None]] | None = None,
) -> tuple[set[UUID], list[queue.NewMessage]]:
    """Which entries were changed, and the bounces that went with them; committed on return.

    `first` is what the transaction begins with. Without a bouncer nobody is told of failures. Raises StoreUnavailable.
    """
    failures = [_failure(each) for each in decisions if each.status is Status.FAILED]
    bounces = await bouncer.compose(failures) if bouncer and failures else []
    async with database.transaction() as connection:
        if first is not None:
            await first(connection)
        changed, due = await doubts.decide(connection, decisions, by_operator=by_operator)
        failed = [failure for failure in failures if failure.entry_id in changed]
        if bouncer and len(failed) < len(failures):
            # Some were decided meanwhile: a bounce must not speak of those.
            bounces = await bouncer.compose(failed) if failed else []
        if bounces:
            await queue.enqueue(connection, bounces)
            now = await connection.fetchval(NOW)
            due += [(each.lane_id, now) for each in bounces]
        if due:
            await lanes.requeue(connection, due)
    return changed, bounces


def _failure(decision: Decision) -> DoubtFailed:
    doubt = decision.doubt
    cause = Cause(Stage.DOT, decision.reason)
    settlement = Settlement(Status.FAILED, LogEvent.FAILED, cause, decision.reason, notifies=True)
    return DoubtFailed(doubt.entry_id, doubt.queue_id, doubt.mailbox_id, doubt.recipient, settlement)
