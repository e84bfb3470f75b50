"""The claim: budget never over, messages whole, blocked lanes free of cost, nothing stranded."""

import asyncio
import random
from datetime import datetime

import pytest

from relayd.rules.outcome import Cause, Deferred, Failed, Outcome, Scope, Sent, Stage, Uncertain
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted, Settlement
from relayd.rules.settlement import settle as decide
from relayd.store import attempts, lanes, settlement
from relayd.store.claim import Claim, ClaimedEntry, claim
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.queue import enqueue
from relayd.store.settlement import Result
from tests.builders import claim_all, make_sender, make_upstream, new_message, put, put_many

OK = Sent(Cause(Stage.DOT, "ok", 250, "2.0.0"))
LATER = Deferred(Scope.RECIPIENT, Cause(Stage.RCPT, "later", 451, "4.0.0"))
NEVER = Failed(Scope.RECIPIENT, Cause(Stage.RCPT, "no such user", 550, "5.1.1"))
DOUBT = Uncertain(Cause(Stage.DOT, "connection lost"))


async def one_claim(
    connection: Connection, wanted: dict, *, read_limit: int = 200, claimant: str = "n/1/1"
) -> list[ClaimedEntry]:
    return (await look(connection, wanted, read_limit=read_limit, claimant=claimant)).entries


async def look(connection: Connection, wanted: dict, *, read_limit: int = 200, claimant: str = "n/1/1") -> Claim:
    async with connection.transaction():
        return await claim(
            connection, wanted, read_limit=read_limit, claimant=claimant, lease_seconds=60, spread_seconds=0
        )


async def start(connection: Connection, entries: list[ClaimedEntry]) -> set:
    started = await attempts.start(connection, [(entry, "capture") for entry in entries], lease_seconds=600)
    return {entry.entry_id for entry in started.entries}


def settled(outcome: Outcome, entry: ClaimedEntry, now: datetime, *, on_uncertain: str = "retry") -> Settlement:
    spent = Attempted(entry.retry_count, entry.max_retries, entry.first_attempt_at or now)
    return decide(outcome, spent, RetryPolicy(), on_uncertain=on_uncertain, now=now, dice=0.5)  # type: ignore[arg-type]


async def settle(
    c: Connection, entries: list[ClaimedEntry], outcome: Outcome, *, only_if_unstarted: bool = False, **terms: str
) -> set:
    async with c.transaction():
        return await settlement.settle(
            c, await results_of(c, entries, outcome, only_if_unstarted=only_if_unstarted, **terms)
        )


async def results_of(
    c: Connection, entries: list[ClaimedEntry], outcome: Outcome, *, only_if_unstarted: bool = False, **terms: str
) -> list[Result]:
    now = await c.fetchval("SELECT relayd_now()")
    return [
        Result(
            each.entry_id,
            each.fence,
            each.claimed_by,
            "capture",
            settled(outcome, each, now, **terms),
            only_if_unstarted,
        )
        for each in entries
    ]


async def used(connection: Connection) -> int:
    return await connection.fetchval("SELECT used FROM email_mailbox_usage")


async def advance(connection: Connection, interval: str) -> None:
    await connection.execute("UPDATE relayd_state SET clock_offset = clock_offset + $1::text::interval", interval)


@pytest.fixture(autouse=True)
async def early_in_the_day(db: Database) -> None:
    """No test's own clock may turn a window by chance."""
    async with db.connection() as c:
        await c.execute(
            "UPDATE relayd_state SET clock_offset = date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC')"
            " AT TIME ZONE 'UTC' + interval '1 hour' - clock_timestamp()"
        )


async def test_recipients_of_a_message_are_claimed_together(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        message = await put(c, sender, *(f"user{n}@example.net" for n in range(30)))
        entries = await one_claim(c, {sender.upstream_id: 1})
        assert [entry.entry_id for entry in entries] == [entry.entry_id for entry in message.entries]
        assert {entry.fence for entry in entries} == {1}


async def test_a_message_that_the_read_limit_would_cut_waits_for_the_next_claim(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender, *(f"a{n}@example.net" for n in range(6)))
        await put(c, sender, *(f"b{n}@example.net" for n in range(6)))
        assert len(await one_claim(c, {sender.upstream_id: 5}, read_limit=10)) == 6
        assert len(await one_claim(c, {sender.upstream_id: 5}, read_limit=10)) == 6


async def test_a_message_larger_than_the_read_limit_is_split(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender, *(f"a{n}@example.net" for n in range(12)))
        assert [len(await one_claim(c, {sender.upstream_id: 5}, read_limit=5)) for _ in range(4)] == [5, 5, 2, 0]


async def test_no_more_messages_than_wanted_are_claimed_and_lanes_take_turns(db: Database) -> None:
    async with db.connection() as c:
        first = await make_sender(c, "a@example.com")
        second = await make_sender(c, "b@example.com")
        await put_many(c, first, 20)
        await put_many(c, second, 20)
        entries = await one_claim(c, {first.upstream_id: 10})
        assert len(entries) == 10
        assert sum(entry.mailbox_id == first.mailbox_id for entry in entries) == 5


async def test_limit_splits_and_blocks_until_the_window_turns(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5, time_zone="Europe/Berlin")
        await put_many(c, sender, 12)
        entries = await claim_all(c, sender.upstream_id)
        assert len(entries) == 5
        await start(c, entries)
        await settle(c, entries, OK)
        assert await claim_all(c, sender.upstream_id) == []
        lane = await c.fetchrow("SELECT * FROM mailbox_lanes WHERE id = $1", sender.mail_lane_id)
        assert lane["blocked_reason"] == "mailbox daily limit"
        ends = await c.fetchval("SELECT window_ends_at AT TIME ZONE 'Europe/Berlin' FROM email_mailboxes")
        assert (ends.hour, ends.minute, ends.second) == (0, 0, 0)
        await advance(c, "1 day")
        assert await used(c) == 0
        assert len(await claim_all(c, sender.upstream_id)) == 5
        assert await used(c) == 5


async def test_limit_zero_is_never_and_null_unlimited(db: Database) -> None:
    async with db.connection() as c:
        never = await make_sender(c, "never@example.com", daily_limit=0)
        always = await make_sender(c, "always@example.com", daily_limit=None)
        await put_many(c, never, 3)
        await put_many(c, always, 30)
        assert {entry.mailbox_id for entry in await claim_all(c, never.upstream_id)} == {always.mailbox_id}
        assert await claim_all(c, never.upstream_id) == []


async def test_raising_the_limit_lets_mail_go_at_once(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=1)
        await put_many(c, sender, 3)
        assert len(await claim_all(c, sender.upstream_id)) == 1
        assert await claim_all(c, sender.upstream_id) == []
        await c.execute("UPDATE email_mailboxes SET daily_send_limit = 2")
        assert len(await claim_all(c, sender.upstream_id)) == 1


@pytest.mark.parametrize(
    ("outcome", "returned"), [(OK, False), (LATER, True), (NEVER, True), (DOUBT, False)], ids=lambda x: type(x).__name__
)
async def test_units_come_back_only_for_what_definitely_did_not_go(
    db: Database, outcome: Outcome, returned: bool
) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=2)
        await put_many(c, sender, 3)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        await settle(c, entries, outcome)
        assert await used(c) == (0 if returned else 2)
        assert len(await claim_all(c, sender.upstream_id)) == (1 if returned else 0)


async def test_a_retry_of_a_doubt_takes_another_unit(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=10)
        await put(c, sender)
        for units in (1, 2, 3):
            (entry,) = await claim_all(c, sender.upstream_id)
            await start(c, [entry])
            await settle(c, [entry], DOUBT)
            assert await used(c) == units
            await advance(c, "10 minutes")


async def test_attempts_in_flight_at_the_turn_count_on_both_sides(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 20)
        straddling = await claim_all(c, sender.upstream_id)
        await start(c, straddling)
        await advance(c, "1 day")
        # The new window begins with what is in flight; there is no room for anything else.
        assert await claim_all(c, sender.upstream_id) == []
        assert await used(c) == 5
        await settle(c, straddling[:3], OK)
        await settle(c, straddling[3:], LATER)
        assert await used(c) == 3
        assert len(await claim_all(c, sender.upstream_id)) == 2


async def test_settling_after_the_turn_counts_in_the_new_window_first(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 20)
        straddling = await claim_all(c, sender.upstream_id)
        await start(c, straddling)
        await advance(c, "1 day")
        await settle(c, straddling, OK)
        assert await used(c) == 5
        assert await claim_all(c, sender.upstream_id) == []


async def test_a_claim_whose_window_has_turned_does_not_start(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 5)
        entries = await claim_all(c, sender.upstream_id)
        await c.execute("UPDATE email_queue SET lease_expires_at = lease_expires_at + interval '2 days'")
        await advance(c, "1 day")
        assert await start(c, entries) == set()


async def test_a_claim_over_a_lowered_limit_does_not_start(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 5)
        entries = await claim_all(c, sender.upstream_id)
        await c.execute("UPDATE email_mailboxes SET daily_send_limit = 3")
        assert await start(c, entries) == set()


async def test_an_expired_claim_does_not_start(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
        entries = await claim_all(c, sender.upstream_id)
        await advance(c, "1 hour")
        assert await start(c, entries) == set()


async def test_late_result_wins_if_no_newer_attempt_has_begun(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=10)
        await put(c, sender)
        (first,) = await claim_all(c, sender.upstream_id)
        await start(c, [first])
        await settle(c, [first], DOUBT)  # as reclaim does when the lease has lapsed
        await advance(c, "10 minutes")
        (second,) = await claim_all(c, sender.upstream_id)
        assert await settle(c, [first], OK) == {first.entry_id}
        assert await start(c, [second]) == set()
        assert await used(c) == 1  # the newer claim's unit came back
        assert await c.fetchval("SELECT status FROM email_queue") == "sent"


async def test_late_result_is_logged_and_changes_nothing_once_a_newer_attempt_has_begun(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
        (first,) = await claim_all(c, sender.upstream_id)
        await start(c, [first])
        await settle(c, [first], DOUBT)
        await advance(c, "10 minutes")
        (second,) = await claim_all(c, sender.upstream_id)
        await start(c, [second])
        assert await settle(c, [first], OK) == set()
        assert await c.fetchval("SELECT status FROM email_queue") == "sending"
        assert await c.fetchval("SELECT late FROM email_delivery_logs WHERE event = 'sent'") is True
        assert await settle(c, [second], OK) == {first.entry_id}


async def test_deliveries_alone_are_settled_by_one_statement(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 5)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        assert await settlement.settle_sent(c, await results_of(c, entries, OK)) == []
        assert await c.fetchval("SELECT count(*) FROM email_queue WHERE status = 'sent'") == 5
        assert await c.fetchval("SELECT count(*) FROM email_delivery_logs WHERE event = 'sent' AND NOT late") == 5
        assert await used(c) == 5


async def test_deliveries_that_change_more_than_their_entries_are_left_for_a_transaction(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=10)
        await put_many(c, sender, 2)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        first, _ = entries
        await settle(c, [first], DOUBT)
        await advance(c, "10 minutes")
        (second,) = await claim_all(c, sender.upstream_id)
        # One overtakes a newer claim, whose unit comes back with it; one is ready.
        results = await results_of(c, entries, OK)
        assert await settlement.settle_sent(c, results) == [each for each in results if each.entry_id == first.entry_id]
        assert await c.fetchval("SELECT count(*) FROM email_delivery_logs WHERE event = 'sent'") == 1
        assert await settle(c, [first], OK) == {first.entry_id}
        assert await start(c, [second]) == set()
        assert await used(c) == 2


async def test_deliveries_after_the_turn_are_left_until_the_window_is_rolled(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 5)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        await advance(c, "1 day")
        results = await results_of(c, entries, OK)
        assert sorted(await settlement.settle_sent(c, results), key=id) == sorted(results, key=id)
        assert await c.fetchval("SELECT count(*) FROM email_queue WHERE status = 'sent'") == 0
        assert len(await settle(c, entries, OK)) == 5
        assert await used(c) == 5


async def test_an_entry_that_is_delivered_twice_is_left_whole(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        results = await results_of(c, [*entries, *entries], OK)
        assert await settlement.settle_sent(c, results) == results
        assert await c.fetchval("SELECT status FROM email_queue") == "sending"


async def test_held_doubt_waits_for_an_operator(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        await settle(c, entries, DOUBT, on_uncertain="hold")
        row = await c.fetchrow("SELECT status, pending_reason FROM email_queue")
        assert (row["status"], row["pending_reason"]) == ("pending", "uncertain")
        await advance(c, "10 days")
        assert await claim_all(c, sender.upstream_id) == []


@pytest.mark.parametrize(
    "block",
    [
        "UPDATE relayd_state SET paused_at = relayd_now(), paused_reason = 'x'",
        "UPDATE email_configurations SET paused_at = relayd_now(), paused_reason = 'x'",
        "UPDATE email_configurations SET is_active = false",
        "UPDATE email_mailboxes SET status = 'paused'",
        "UPDATE email_domains SET status = 'suspended'",
        "UPDATE clients SET status = 'suspended'",
    ],
)
async def test_what_is_paused_is_not_claimed(db: Database, block: str) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
        await c.execute(block)
        assert await claim_all(c, sender.upstream_id) == []


async def test_bounces_leave_a_mailbox_whose_limit_is_spent(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=0)
        await put(c, sender)
        bounce = new_message(sender, "app@example.com", reverse_path=None)
        object.__setattr__(bounce, "lane_id", sender.dsn_lane_id)
        await enqueue(c, [bounce])
        await lanes.wake(c, [sender.dsn_lane_id])
        assert [entry.queue_id for entry in await claim_all(c, sender.upstream_id)] == [bounce.queue_id]
        assert await used(c) == 0


async def test_forty_claimers_and_enqueuers_take_everything_once_and_strand_nothing(db: Database) -> None:
    """The trap: calling a lane idle because this claim's snapshot saw nothing."""
    async with db.connection() as c:
        senders = [await make_sender(c, f"m{n}@example.com") for n in range(5)]
    claimed: list = []
    enqueued = 0
    done = asyncio.Event()

    async def produce() -> None:
        nonlocal enqueued
        for _ in range(60):
            sender = random.choice(senders)
            async with db.connection() as c:
                await enqueue(c, [new_message(sender, "you@example.net") for _ in range(5)])
            async with db.connection() as c:
                await lanes.wake(c, [sender.mail_lane_id])
            enqueued += 5

    async def consume() -> None:
        while True:
            finished = done.is_set()
            async with db.connection() as c:
                found = await look(c, {senders[0].upstream_id: 7})
            claimed.extend(entry.entry_id for entry in found.entries)
            if finished and not found.leaves_more:
                return

    consumers = [asyncio.create_task(consume()) for _ in range(4)]
    await asyncio.gather(*(produce() for _ in range(4)))
    await asyncio.sleep(0.2)
    done.set()
    await asyncio.gather(*consumers)
    assert len(claimed) == len(set(claimed)) == enqueued


async def test_exactly_the_limit_is_claimed_by_many_at_once(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=100)
        await put_many(c, sender, 300)

    async def consume() -> int:
        total = 0
        while True:
            async with db.connection() as c:
                total += len(await one_claim(c, {sender.upstream_id: 3}))
                if await c.fetchval("SELECT blocked_until > relayd_now() FROM mailbox_lanes WHERE class = 'mail'"):
                    return total

    assert sum(await asyncio.gather(*(consume() for _ in range(8)))) == 100


async def test_another_mailbox_is_not_delayed_by_a_blocked_one(db: Database) -> None:
    async with db.connection() as c:
        blocked = await make_sender(c, "blocked@example.com", daily_limit=0)
        other = await make_sender(c, "other@example.com")
        await put_many(c, blocked, 50)
        await claim_all(c, blocked.upstream_id)
        await put_many(c, other, 3)
        assert len(await one_claim(c, {other.upstream_id: 10})) == 3


async def test_upstreams_share_nothing(db: Database) -> None:
    async with db.connection() as c:
        await make_upstream(c, "second")
        first = await make_sender(c, "a@example.com")
        second = await make_sender(c, "b@example.com", upstream="second")
        await put_many(c, first, 5)
        await put_many(c, second, 5)
        entries = await one_claim(c, {second.upstream_id: 10})
        assert {entry.upstream_id for entry in entries} == {second.upstream_id}


async def test_a_lost_wake_is_found_by_the_sweep(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await enqueue(c, [new_message(sender, "you@example.net")])
        assert await claim_all(c, sender.upstream_id) == []
        assert await lanes.sweep(c) == 1
        assert len(await claim_all(c, sender.upstream_id)) == 1


async def test_a_lane_with_nothing_due_is_idle_until_something_is(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put_many(c, sender, 3)
        entries = await claim_all(c, sender.upstream_id)
        assert await c.fetchval("SELECT due_at = 'infinity' FROM mailbox_lanes WHERE class = 'mail'")
        await start(c, entries)
        await settle(c, entries, LATER)
        due_at, next_attempt_at = await c.fetchrow(
            "SELECT l.due_at, min(q.next_attempt_at) FROM mailbox_lanes l"
            " JOIN email_queue q ON q.lane_id = l.id GROUP BY 1"
        )
        assert due_at == next_attempt_at > await c.fetchval("SELECT relayd_now()")
