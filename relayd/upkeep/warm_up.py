"""Let the mailboxes whose day has turned go on along their warm-up. What became of their mail was counted before."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from relayd.rules.upkeep_events import UpkeepEvent, WarmUpTurned
from relayd.rules.warm_up import Gate, Health, Schedule, Turn, turn
from relayd.store import warm_up
from relayd.store.pool import Database
from relayd.store.warm_up import EndedDay, NextDay

BATCH_MAILBOXES = 200


@dataclass(frozen=True, slots=True)
class WarmUpTerms:
    """`lag`: how old a row of the log is before it is counted; a day is over twice as long after midnight."""

    schedule: Schedule
    gate: Gate
    health_days: int
    lag: timedelta = timedelta(seconds=60)


async def warm_up_mailboxes(
    database: Database, terms: WarmUpTerms, *, emit: Callable[[UpkeepEvent], None], wake: Callable[[], None]
) -> None:
    """One round. Safe to repeat and to be cut off: each batch is a transaction of its own."""
    while turned := await _turn_some(database, terms, emit):
        wake()
        if turned < BATCH_MAILBOXES:
            break


async def _turn_some(database: Database, terms: WarmUpTerms, emit: Callable[[UpkeepEvent], None]) -> int:
    async with database.transaction() as connection:
        ended = await warm_up.ended_days(
            connection, grace=2 * terms.lag, health_days=terms.health_days, most=BATCH_MAILBOXES
        )
        turned = [_turned(each, terms) for each in ended]
        await warm_up.begin_days(connection, turned)
    for before, after in zip(ended, turned, strict=True):
        emit(
            WarmUpTurned(
                mailbox=before.email_address,
                client=before.client,
                stage_before=before.stage,
                stage=after.stage,
                daily_limit=after.daily_send_limit,
                note=after.note,
                completed=after.completed,
            )
        )
    return len(ended)


def _turned(ended: EndedDay, terms: WarmUpTerms) -> NextDay:
    schedule = Schedule.parse(ended.schedule) if ended.schedule else terms.schedule
    after = Turn(ended.stage, "held: paused")
    if not ended.is_paused:
        after = turn(
            schedule,
            ended.stage,
            days=(ended.today - ended.day).days,
            used=ended.used if ended.used_days_only else None,
            health=_health(ended),
            gate=terms.gate,
        )
    limit = schedule.limit(after.stage)
    return NextDay(
        mailbox_id=ended.mailbox_id,
        day=ended.today,
        stage=after.stage,
        daily_send_limit=limit if ended.daily_limit_cap is None else min(limit, ended.daily_limit_cap),
        note=after.reason,
        completed=schedule.is_complete(after.stage),
    )


def _health(ended: EndedDay) -> Health:
    tried = ended.sent + ended.bounced
    return Health(
        sent=tried,
        bounce_rate=ended.bounced / tried if tried else 0.0,
        spam_rate=min(ended.complaints / ended.sent, 1.0) if ended.sent else 0.0,
    )
