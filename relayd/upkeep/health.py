"""Count what became of mail, keep each mailbox's rates, and stop those that do harm."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from relayd.rules.upkeep_events import MailboxPaused, UpkeepEvent
from relayd.store import health, tally
from relayd.store.pool import Database

BATCH_ROWS = 5000


@dataclass(frozen=True, slots=True)
class HealthTerms:
    """`days` that rates are taken over; from which rates on a mailbox is paused, once so many recipients were tried.

    `lag`: how old a row of the log is before it is counted.
    """

    days: int = 7
    least_tried: int = 100
    bounces_pause: float = 0.2
    spam_pause: float = 0.01
    lag: timedelta = timedelta(seconds=60)


async def watch_health(database: Database, terms: HealthTerms, *, emit: Callable[[UpkeepEvent], None]) -> None:
    """One round. Safe to repeat and to be cut off: each step is a transaction of its own."""
    counted = BATCH_ROWS
    while counted == BATCH_ROWS:
        async with database.transaction() as connection:
            counted = await tally.tally(connection, lag=terms.lag, most=BATCH_ROWS)
    async with database.transaction() as connection:
        await health.refresh_rates(connection, days=terms.days)
    async with database.transaction() as connection:
        paused = await health.pause_the_worst(
            connection,
            days=terms.days,
            least_tried=terms.least_tried,
            bounce_rate=terms.bounces_pause,
            spam_rate=terms.spam_pause,
        )
    for each in paused:
        emit(MailboxPaused(mailbox=each.mailbox, client=each.client, reason=each.reason))
