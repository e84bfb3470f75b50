"""Ask for every entry's estimate, let the clock run through the days, and note when each leaves by the real claim."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from relayd.rules.outcome import Cause, Sent, Stage
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted, settle
from relayd.rules.warm_up import DEFAULT_SCHEDULE, Gate
from relayd.store import attempts, explanation, settlement
from relayd.store.claim import ClaimedEntry, claim
from relayd.store.connection import Connection
from relayd.store.outlook import Terms
from relayd.store.pool import Database
from relayd.store.settlement import Result
from relayd.upkeep.warm_up import WarmUpTerms, warm_up_mailboxes

TERMS = Terms(DEFAULT_SCHEDULE, 300.0)
WARM_UP = WarmUpTerms(DEFAULT_SCHEDULE, Gate(), health_days=7)
# As far as the clock jumps at once; upkeep runs each time, and so soon after midnight.
STRIDE = timedelta(minutes=30)
UPKEEP_AFTER = timedelta(minutes=2, seconds=10)
AT_ONCE = 50


@dataclass(frozen=True)
class Left:
    """One entry: who sent it, when it was to leave, when it did, and the kind of limit that it waited for."""

    mailbox: str
    estimated_at: datetime
    left_at: datetime
    kind: str | None

    @property
    def late_seconds(self) -> float:
        """Negative: it left before its time."""
        return (self.left_at - self.estimated_at).total_seconds()


async def run(db: Database, *, most_days: int) -> list[Left]:
    """Until nothing waits, or so many days have passed."""
    async with db.connection() as connection:
        estimates = await _estimates(connection)
        began_at = now = await _now(connection)
        left: dict[UUID, datetime] = {}
        while len(left) < len(estimates) and now - began_at < timedelta(days=most_days):
            left |= dict.fromkeys(await _deliver(connection), now)
            await warm_up_mailboxes(db, WARM_UP, emit=lambda _: None, wake=lambda: None)
            now = await _pass_time(connection)
    return [
        Left(mailbox, at, left[entry_id], kind)
        for entry_id, (mailbox, at, kind) in estimates.items()
        if entry_id in left
    ]


async def _estimates(connection: Connection) -> dict[UUID, tuple[str, datetime, str | None]]:
    ids = [row["id"] for row in await connection.fetch("SELECT id FROM email_queue ORDER BY next_attempt_at, id")]
    found = {}
    for one in await explanation.gather(connection, ids, TERMS):
        at, binding = one.facts.limits.estimate.at, one.facts.limits.binding
        assert at is not None and one.facts.limits.estimate.is_known, "everything leaves in time"
        found[one.entry_id] = (one.facts.mailbox.address, at, binding.kind.value if binding else None)
    return found


async def _deliver(connection: Connection) -> list[UUID]:
    """What the limits let go now, claimed, started and sent as a worker would."""
    upstreams = [row["id"] for row in await connection.fetch("SELECT id FROM email_configurations")]
    sent: list[UUID] = []
    while True:
        async with connection.transaction():
            claimed = await claim(
                connection,
                dict.fromkeys(upstreams, AT_ONCE),
                read_limit=AT_ONCE,
                claimant=f"node:1:{len(sent)}",
                lease_seconds=300,
                spread_seconds=TERMS.release_spread_seconds,
            )
        if claimed.entries:
            await _send(connection, claimed.entries)
            sent += [entry.entry_id for entry in claimed.entries]
        elif not claimed.leaves_more:
            return sent


async def _send(connection: Connection, entries: list[ClaimedEntry]) -> None:
    started = await attempts.start(connection, [(entry, "capture") for entry in entries], lease_seconds=300)
    assert started.entries == set(entries), "what was claimed may be sent"
    now = await _now(connection)
    results = [
        Result(
            entry.entry_id,
            entry.fence,
            entry.claimed_by,
            "capture",
            settle(
                Sent(Cause(Stage.DOT, "ok", 250, "2.0.0")),
                Attempted(entry.retry_count, entry.max_retries, entry.first_attempt_at or now),
                RetryPolicy(),
                on_uncertain="retry",
                now=now,
                dice=0.5,
            ),
        )
        for entry in entries
    ]
    async with connection.transaction():
        await settlement.settle(connection, results)


async def _pass_time(connection: Connection) -> datetime:
    """To the next lane that may run, to upkeep soon after midnight, or a stride further; returns the time then."""
    now = await _now(connection)
    runnable_at = await connection.fetchval(
        "SELECT min(runnable_at) FROM mailbox_lanes WHERE NOT held AND runnable_at < 'infinity'"
    )
    upkeep_at = (
        (now - UPKEEP_AFTER).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) + UPKEEP_AFTER
    )
    then = max(min([now + STRIDE, upkeep_at, *([runnable_at] if runnable_at else [])]), now + timedelta(seconds=1))
    await connection.execute("UPDATE relayd_state SET clock_offset = $1 - clock_timestamp()", then)
    return then


async def _now(connection: Connection) -> datetime:
    now: datetime = await connection.fetchval("SELECT relayd_now()")
    return now
