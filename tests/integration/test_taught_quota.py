"""A provider says that its limit is spent though we have counted less: the ledger learns it, and forgets it in time."""

import asyncio

import pytest

from relayd.rules.explain import explain
from relayd.rules.outcome import Cause, Limit, Postponed, Scope, Stage
from relayd.rules.warm_up import DEFAULT_SCHEDULE
from relayd.store import explanation
from relayd.store.connection import Connection
from relayd.store.outlook import Terms
from relayd.store.pool import Database
from tests.builders import Sender, claim_all, make_sender, make_upstream, put_many
from tests.integration.test_claim import (
    OK,
    advance,
    early_in_the_day,  # noqa: F401
    settle,
    start,
)

SAID = "Daily user sending limit exceeded"
QUOTA = (
    "INSERT INTO google_workspace_quota (upstream_id, mailbox_id, daily_limit, hourly_limit, limit_window)"
    " VALUES ($1, $2, $3, $4, $5)"
)
USED = "SELECT used FROM budget_usage WHERE kind = $1"
ENTRIES = "SELECT retry_count, status FROM email_queue WHERE status <> 'sent'"


def spent(limit: Limit | None = "day", scope: Scope = Scope.MAILBOX) -> Postponed:
    return Postponed(scope, Cause(Stage.DOT, SAID, 550, "5.4.5"), 3600, limit)


async def refused(c: Connection, sender: Sender, outcome: Postponed, *, messages: int = 1) -> int:
    entries = await claim_all(c, sender.upstream_id, messages=messages)
    await start(c, entries)
    await settle(c, entries, outcome)
    return len(entries)


async def sent(c: Connection, sender: Sender, *, messages: int = 1000) -> int:
    entries = await claim_all(c, sender.upstream_id, messages=messages)
    await start(c, entries)
    await settle(c, entries, OK)
    return len(entries)


async def test_the_mailbox_is_parked_and_its_quota_counts_as_spent(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, sender.mailbox_id, 100, None, "rolling")
        await put_many(c, sender, 200)
        assert await sent(c, sender, messages=10) == 10
        assert await refused(c, sender, spent(), messages=5) == 5
        assert await c.fetchval(USED, "provider_day") == 100
        quota = await c.fetchrow("SELECT is_exceeded, exceeded_at, daily_used FROM google_workspace_quota")
        assert quota["is_exceeded"] and quota["exceeded_at"] and quota["daily_used"] == 100
        lane = await c.fetchrow("SELECT * FROM mailbox_lanes WHERE id = $1", sender.mail_lane_id)
        assert SAID in lane["blocked_reason"]
        assert await sent(c, sender) == 0
        # No attempt is spent, nothing bounces.
        assert {tuple(row) for row in await c.fetch(ENTRIES)} == {(0, "queued")}
        assert await c.fetchval("SELECT count(*) FROM messages WHERE parent_id IS NOT NULL") == 0


async def test_explain_has_the_providers_own_words_as_long_as_it_is_spent(db: Database) -> None:
    async def said() -> str:
        rows = await c.fetch("SELECT id FROM email_queue WHERE status = 'queued' ORDER BY id LIMIT 1")
        (one,) = await explanation.gather(c, [row["id"] for row in rows], Terms(DEFAULT_SCHEDULE, 0))
        return explain(one.facts, one.now).sentence

    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, sender.mailbox_id, 100, None, "rolling")
        await put_many(c, sender, 300)
        await refused(c, sender, spent())
        assert f"dot: 550 5.4.5 {SAID}" in await said()
        # The parking has ended; what was tried in its place is spent as well.
        await advance(c, "1 hour 2 minutes")
        assert await sent(c, sender) == 5
        assert await sent(c, sender) == 0
        sentence = await said()
        assert "allows 100 in any 24 hours and has taken 100; it said itself that they are spent" in sentence
        assert SAID in sentence
        await advance(c, "1 day 2 minutes")
        assert await sent(c, sender) == 100
        assert await sent(c, sender) == 0
        assert SAID not in await said()


async def test_a_few_are_tried_after_an_hour_and_all_are_free_after_a_day(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, sender.mailbox_id, 100, None, "rolling")
        await put_many(c, sender, 200)
        await refused(c, sender, spent())
        assert await c.fetchval(USED, "provider_day") == 100
        await advance(c, "59 minutes")
        assert await sent(c, sender) == 0
        await advance(c, "3 minutes")
        assert await sent(c, sender) == 5
        await advance(c, "1 day 2 minutes")
        assert await sent(c, sender) == 100
        assert await c.fetchval("SELECT sum(units) FROM budget_releases WHERE frees_at > relayd_now()") == 100


async def test_a_refused_trial_counts_it_as_spent_again(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, sender.mailbox_id, 100, None, "rolling")
        await put_many(c, sender, 200)
        for _ in range(4):
            assert await refused(c, sender, spent(), messages=50)
            assert await c.fetchval(USED, "provider_day") == 100
            await advance(c, "1 hour 2 minutes")
        await advance(c, "1 day 2 minutes")
        assert await sent(c, sender) == 100


async def test_what_has_been_freed_and_not_looked_at_counts_no_more(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, sender.mailbox_id, 100, None, "rolling")
        await put_many(c, sender, 200)
        await sent(c, sender, messages=10)
        await advance(c, "1 day 2 minutes")
        await refused(c, sender, spent())
        assert await c.fetchval(USED, "provider_day") == 100


async def test_our_own_next_release_is_a_trial_too_but_not_at_once(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, sender.mailbox_id, 100, None, "rolling")
        await put_many(c, sender, 200)
        await sent(c, sender, messages=10)
        await advance(c, "23 hours 40 minutes")
        await refused(c, sender, spent())
        await advance(c, "22 minutes")
        assert await sent(c, sender) == 10
        assert await sent(c, sender) == 0
        # What is freed in a moment is not asked for before five minutes have passed.
        await advance(c, "23 hours 59 minutes")
        await refused(c, sender, spent())
        await advance(c, "2 minutes")
        assert await sent(c, sender) == 0


async def test_a_calendar_quota_is_spent_until_its_day_turns(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, sender.mailbox_id, 100, None, "calendar")
        await put_many(c, sender, 200)
        await refused(c, sender, spent(), messages=3)
        assert await c.fetchval(USED, "provider_day") == 100
        await advance(c, "20 hours")
        assert await sent(c, sender) == 0
        await advance(c, "4 hours")
        assert await sent(c, sender) == 100


@pytest.mark.parametrize("window", ["rolling", "calendar"])
async def test_what_holds_for_the_account_stops_every_mailbox_of_it(db: Database, window: str) -> None:
    async with db.connection() as c:
        first, second = await make_sender(c), await make_sender(c, "other@example.com")
        await c.execute(QUOTA, first.upstream_id, None, 100, None, window)
        await c.execute(QUOTA, first.upstream_id, first.mailbox_id, 80, None, window)
        await c.execute(QUOTA, first.upstream_id, second.mailbox_id, 70, None, window)
        for sender in (first, second):
            await put_many(c, sender, 20)
        assert await refused(c, first, spent(scope=Scope.UPSTREAM)) == 1
        used = {row["unit_limit"]: row["used"] for row in await c.fetch("SELECT * FROM budget_usage")}
        assert (used[100], used[80], used[70]) == (100, 0, 0)
        assert await sent(c, first) == 0
        assert await c.fetchval("SELECT count(*) FROM mailbox_lanes WHERE blocked_reason = 'provider daily quota'") == 2


async def test_an_hours_limit_is_the_hours_alone(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, None, 500, 60, "rolling")
        await put_many(c, sender, 100)
        await refused(c, sender, spent("hour", Scope.UPSTREAM))
        assert await c.fetchval(USED, "provider_hour") == 60
        assert await c.fetchval(USED, "provider_day") == 0
        await advance(c, "1 hour 2 minutes")
        assert await sent(c, sender) == 60


async def test_without_a_quota_the_mailbox_waits_its_hour_all_the_same(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=50)
        await put_many(c, sender, 20)
        await refused(c, sender, spent())
        assert await c.fetchval(USED, "mailbox_day") == 0
        assert await sent(c, sender) == 0
        await advance(c, "1 hour 1 minute")
        assert await sent(c, sender) == 20


async def test_a_postponement_without_a_limit_teaches_nothing(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, sender.mailbox_id, 100, None, "rolling")
        await put_many(c, sender, 2)
        await refused(c, sender, spent(None))
        assert await c.fetchval(USED, "provider_day") == 0
        assert await c.fetchval("SELECT told FROM budgets WHERE kind = 'provider_day'") is None


async def test_many_at_once_do_not_lock_each_other_out(db: Database) -> None:
    """Refusals of one account from several workers, while others claim and settle."""
    async with db.connection() as c:
        await make_upstream(c, "second")
        senders = [await make_sender(c, f"box{n}@example.com", upstream=("capture", "second")[n % 2]) for n in range(8)]
        for sender in senders:
            await put_many(c, sender, 20)
        for upstream_id in {sender.upstream_id for sender in senders}:
            await c.execute(QUOTA, upstream_id, None, 1000, None, "rolling")
    async with db.connection() as c:
        entries = await claim_all(c, *{sender.upstream_id for sender in senders})
        await start(c, entries)

    async def end(number: int) -> None:
        async with db.connection() as c:
            mine = entries[number::8]
            await settle(c, mine[: len(mine) // 2], spent(scope=Scope.UPSTREAM))
            await settle(c, mine[len(mine) // 2 :], OK)

    await asyncio.gather(*(end(number) for number in range(4)))
    await asyncio.gather(*(end(number) for number in range(4, 8)))
    async with db.connection() as c:
        assert await c.fetch("SELECT used FROM budget_usage WHERE kind = 'provider_day'") == [(1000,), (1000,)]
