"""Claims that were lost, are taken back, or meet others half way: nothing is counted, returned or sent twice."""

import asyncio
from collections import Counter

from relayd.rules.outcome import Cause, Postponed, Scope, Stage
from relayd.store import attempts, budget, lanes, leases, windows
from relayd.store.claim import claim
from relayd.store.pool import Database
from relayd.store.queue import enqueue
from tests.builders import claim_all, make_sender, new_message, put, put_many
from tests.integration.test_claim import (
    DOUBT,
    LATER,
    NEVER,
    OK,
    advance,
    early_in_the_day,  # noqa: F401
    one_claim,
    settle,
    start,
    used,
)

UNTRIED = Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, "not tried"), 0)

# Sleeps between a statement's snapshot and its first look at the clock.
SLOW_CLOCK = """
CREATE OR REPLACE FUNCTION relayd_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT clock_timestamp() + clock_offset
    FROM relayd_state, (SELECT pg_sleep(COALESCE(NULLIF(current_setting('test.pause', true), ''), '0')::float8)) pause
$$
"""


async def test_a_claim_lost_in_a_crash_of_postgres_neither_starts_nor_gives_back_the_one_made_in_its_place(
    db: Database,
) -> None:
    """A claim does not wait for the disk, so its fence may be given out again."""
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put(c, sender)
        crash = c.transaction()
        await crash.start()
        wanted = {sender.upstream_id: 1}
        lost: list = []
        while not lost:
            first = await claim(c, wanted, read_limit=10, claimant="n/1/1/1", lease_seconds=60, spread_seconds=0)
            lost = first.entries
        await crash.rollback()
        (again,) = await one_claim(c, {sender.upstream_id: 10}, claimant="n/1/1/2")
        assert again.fence == lost[0].fence
        assert await start(c, lost) == set()
        # Its worker may hold both, and ask for both at once: one must go out.
        both = [(each, "capture") for each in (*lost, again)]
        assert (await attempts.start(c, both, lease_seconds=600)).entries == {again}
        assert await settle(c, lost, UNTRIED) == set()
        assert await c.fetchval("SELECT status FROM email_queue") == "sending"
        assert await used(c) == 1


async def test_a_claim_that_starts_while_it_is_taken_back_as_untried_stays_with_its_worker(db: Database) -> None:
    async with db.connection() as c, db.connection() as supervisor:
        sender = await make_sender(c, daily_limit=5)
        await put(c, sender)
        (entry,) = await one_claim(c, {sender.upstream_id: 10})
        await advance(c, "59 seconds")
        starting = c.transaction()
        await starting.start()
        assert await start(c, [entry]) == {entry.entry_id}
        await advance(supervisor, "2 seconds")
        (lapsed,) = await leases.lapsed(supervisor)
        assert lapsed.started_at is None
        await starting.commit()
        assert await settle(supervisor, [entry], UNTRIED, only_if_unstarted=True) == set()
        assert await used(c) == 1
        assert await settle(c, [entry], OK) == {entry.entry_id}


async def test_an_entry_settled_twice_in_one_batch_returns_its_unit_once(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 2)
        first, _ = await claim_all(c, sender.upstream_id)
        assert await settle(c, [first, first], UNTRIED) == {first.entry_id}
        assert await used(c) == 1


async def test_a_late_result_wins_over_a_newer_claim_that_was_given_back_untried(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put(c, sender)
        (first,) = await claim_all(c, sender.upstream_id)
        await start(c, [first])
        await settle(c, [first], DOUBT)
        await advance(c, "10 minutes")
        await settle(c, await claim_all(c, sender.upstream_id), UNTRIED)
        assert await settle(c, [first], OK) == {first.entry_id}
        assert await used(c) == 1


async def test_an_entry_put_off_since_the_claims_snapshot_is_not_claimed_early(db: Database) -> None:
    async with db.connection() as c, db.connection() as slow:
        sender = await make_sender(c)
        await put(c, sender)
        await c.execute(SLOW_CLOCK)
        await slow.execute("SET test.pause = '0.5'")
        claiming = asyncio.create_task(one_claim(slow, {sender.upstream_id: 10}))
        await asyncio.sleep(0.2)
        entries = await claim_all(c, sender.upstream_id)
        assert entries
        await start(c, entries)
        await settle(c, entries, LATER)
        await lanes.wake(c, [sender.mail_lane_id])
        assert await claiming == []


async def test_a_claim_at_the_turn_of_a_window_waits_for_no_settlement(db: Database) -> None:
    async with db.connection() as c, db.connection() as other:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 10)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        settling = c.transaction()
        await settling.start()
        # What a settlement does first; then it returns units, for which it wants the mailbox.
        await c.execute("SELECT FROM email_queue WHERE id = $1 FOR NO KEY UPDATE", entries[0].entry_id)
        await advance(other, "1 day")
        async with asyncio.timeout(5):
            assert await one_claim(other, {sender.upstream_id: 10}) == []
        await settling.rollback()
        assert await settle(c, entries, LATER) == {entry.entry_id for entry in entries}
        assert await used(c) == 0
        assert len(await one_claim(other, {sender.upstream_id: 10})) == 5


async def test_a_window_that_a_settlement_opens_counts_what_was_claimed_since_it_looked(db: Database) -> None:
    async with db.connection() as c, db.connection() as slow:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 10)
        await claim_all(c, sender.upstream_id, messages=2)
        budget_id = await c.fetchval("UPDATE budgets SET turns_at = relayd_now() + interval '0.4 s' RETURNING id")
        await c.execute(SLOW_CLOCK)
        await slow.execute("SET test.pause = '0.8'")
        settling = slow.transaction()
        await settling.start()
        rolling = asyncio.create_task(windows.lock_and_roll(slow, [budget_id]))
        await asyncio.sleep(0.1)
        await start(c, await claim_all(c, sender.upstream_id))
        await rolling
        await settling.commit()
        if await c.fetchval("SELECT turns_at < relayd_now() FROM budgets"):
            await windows.lock_and_roll(c, [budget_id])
        assert await used(c) == await c.fetchval("SELECT count(*) FROM email_queue WHERE status = 'sending'")


async def test_a_unit_returned_while_a_claim_calls_the_lane_blocked_unblocks_it(db: Database) -> None:
    async with db.connection() as c, db.connection() as other:
        sender = await make_sender(c, daily_limit=2)
        await put_many(c, sender, 3)
        await claim_all(c, sender.upstream_id)
        await c.execute(
            "UPDATE mailbox_lanes SET blocked_until = '-infinity', blocked_by = NULL, blocked_reason = NULL"
        )
        budget_id = await c.fetchval("SELECT id FROM budgets")
        blocking = other.transaction()
        await blocking.start()
        # As a claim does: it holds the budgets of the lanes that it speaks of.
        await other.execute("SELECT FROM budgets FOR NO KEY UPDATE SKIP LOCKED")
        await lanes.reschedule(other, [sender.mail_lane_id], [], spread_seconds=0)
        returning = asyncio.create_task(budget.settle_units(c, budget.Ended(returned=Counter({budget_id: 1}))))
        await asyncio.sleep(0.2)
        await blocking.commit()
        await returning
        assert await c.fetchval("SELECT blocked_until = '-infinity' FROM mailbox_lanes WHERE class = 'mail'")


async def test_a_domain_and_its_mailbox_let_go_at_the_same_time_leave_no_lane_held(db: Database) -> None:
    async with db.connection() as c, db.connection() as other:
        await make_sender(c)
        await c.execute("UPDATE email_domains SET status = 'suspended'")
        await c.execute("UPDATE email_mailboxes SET status = 'paused'")
        first = c.transaction()
        await first.start()
        await c.execute("UPDATE email_domains SET status = 'active'")
        second = asyncio.create_task(other.execute("UPDATE email_mailboxes SET status = 'active'"))
        await asyncio.sleep(0.2)
        await first.commit()
        await second
        assert not await c.fetchval("SELECT bool_or(held) FROM mailbox_lanes")


async def test_a_unit_of_a_window_that_has_passed_is_not_returned_to_the_next(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 3)
        first, *_ = entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        await settle(c, entries, DOUBT)
        await advance(c, "1 day")
        await put(c, sender)
        await c.execute("UPDATE email_queue SET next_attempt_at = 'infinity' WHERE fence > 0")
        assert len(await claim_all(c, sender.upstream_id)) == 1
        assert await settle(c, [first], NEVER) == {first.entry_id}
        assert await used(c) == 1


async def test_a_lane_that_a_claim_is_just_calling_idle_hears_the_wake(db: Database) -> None:
    async with db.connection() as c, db.connection() as other:
        sender = await make_sender(c)
        await lanes.wake(c, [sender.mail_lane_id])
        claiming = other.transaction()
        await claiming.start()
        await lanes.reschedule(other, [sender.mail_lane_id], [], spread_seconds=0)
        await enqueue(c, [new_message(sender, "you@example.net")])
        waking = asyncio.create_task(lanes.wake(c, [sender.mail_lane_id]))
        await asyncio.sleep(0.2)
        await claiming.commit()
        await waking
        assert len(await claim_all(c, sender.upstream_id)) == 1


async def test_a_budget_that_another_changes_is_passed_over_without_waiting(db: Database) -> None:
    async with db.connection() as c, db.connection() as other:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 3)
        assert len(await claim_all(c, sender.upstream_id, messages=1)) <= 1
        changing = other.transaction()
        await changing.start()
        await other.execute("SELECT FROM budgets FOR UPDATE")
        async with asyncio.timeout(5):
            assert await claim_all(c, sender.upstream_id) == []
        await changing.rollback()
        assert await claim_all(c, sender.upstream_id)


async def test_a_mailbox_whose_row_another_holds_sends_and_its_column_follows_later(db: Database) -> None:
    async with db.connection() as c, db.connection() as other:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 3)
        changing = other.transaction()
        await changing.start()
        await other.execute("SELECT FROM email_mailboxes FOR UPDATE")
        async with asyncio.timeout(5):
            entries = await claim_all(c, sender.upstream_id, messages=2)
        assert len(entries) == await used(c) == 2
        assert await c.fetchval("SELECT current_daily_sends FROM email_mailboxes") == 0
        await changing.rollback()
        await claim_all(c, sender.upstream_id)
        assert await c.fetchval("SELECT current_daily_sends FROM email_mailboxes") == 3
