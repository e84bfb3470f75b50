"""The ledger of budgets: a send fits all that apply, windows turn and roll, what is shared is shared fairly."""

from datetime import datetime, timedelta

import pytest

from relayd.store import lanes
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.queue import enqueue
from tests.builders import Sender, claim_all, make_sender, make_upstream, new_message, put_many
from tests.integration.test_claim import (
    DOUBT,
    LATER,
    NEVER,
    OK,
    advance,
    early_in_the_day,  # noqa: F401
    look,
    one_claim,
    settle,
    start,
)

QUOTA = (
    "INSERT INTO google_workspace_quota (upstream_id, daily_limit, hourly_limit, limit_window) VALUES ($1, $2, $3, $4)"
)
USED = "SELECT used FROM budget_usage WHERE kind = $1"


async def send(c: Connection, sender: Sender, *, messages: int = 1000) -> int:
    """Claim, start and deliver whatever may go; how many that were."""
    entries = await claim_all(c, sender.upstream_id, messages=messages)
    await start(c, entries)
    await settle(c, entries, OK)
    return len(entries)


async def blocked_reason(c: Connection, sender: Sender) -> str | None:
    return await c.fetchval("SELECT blocked_reason FROM mailbox_lanes WHERE id = $1", sender.mail_lane_id)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("UPDATE email_mailboxes SET daily_send_limit = 3", "mailbox daily limit"),
        ("UPDATE email_mailboxes SET daily_send_limit = 72, is_paced = true", "mailbox hourly pace"),
        ("UPDATE email_domains SET own_daily_limit = 3", "domain daily limit"),
        ("UPDATE clients SET daily_send_limit = 3", "client daily limit"),
        ("UPDATE google_workspace_quota SET daily_limit = 3", "provider daily quota"),
        ("UPDATE google_workspace_quota SET hourly_limit = 3", "provider hourly quota"),
    ],
)
async def test_the_smallest_of_all_budgets_binds_and_is_named(db: Database, limit: str, reason: str) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=100)
        await c.execute(QUOTA, sender.upstream_id, 100, 100, "calendar")
        await c.execute("UPDATE email_domains SET own_daily_limit = 100")
        await c.execute("UPDATE clients SET daily_send_limit = 100")
        await c.execute(limit)
        await put_many(c, sender, 10)
        assert await send(c, sender) == 3
        assert await send(c, sender) == 0
        assert await blocked_reason(c, sender) == reason
        assert {row["used"] for row in await c.fetch("SELECT used FROM budget_usage")} == {3}


async def test_mailboxes_of_a_domain_share_its_limit_to_the_unit(db: Database) -> None:
    async with db.connection() as c:
        senders = [await make_sender(c, f"box{number}@example.com", daily_limit=50) for number in range(5)]
        await c.execute("UPDATE email_domains SET own_daily_limit = 12")
        for sender in senders:
            await put_many(c, sender, 10)
        total = 0
        while sent := await send(c, senders[0], messages=3):
            total += sent
        assert total == 12
        assert await c.fetchval(USED, "domain_day") == 12
        assert await c.fetchval("SELECT sum(used) FROM email_mailbox_usage") == 12


async def test_a_clients_limit_holds_over_two_upstreams_in_one_claim(db: Database) -> None:
    async with db.connection() as c:
        first = await make_sender(c, "a@example.com")
        await make_upstream(c, "second")
        second = await make_sender(c, "b@example.com", upstream="second")
        await c.execute("UPDATE clients SET daily_send_limit = 7")
        await put_many(c, first, 10)
        await put_many(c, second, 10)
        assert len(await claim_all(c, first.upstream_id, second.upstream_id)) == 7


async def test_what_a_bounce_message_takes_is_the_providers_alone(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=0)
        await c.execute("UPDATE email_domains SET own_daily_limit = 0")
        await c.execute("UPDATE clients SET daily_send_limit = 0")
        await c.execute(QUOTA, sender.upstream_id, 2, None, "rolling")
        for _ in range(3):
            bounce = new_message(sender, "app@example.com", reverse_path=None)
            object.__setattr__(bounce, "lane_id", sender.dsn_lane_id)
            await enqueue(c, [bounce])
        await lanes.wake(c, [sender.dsn_lane_id])
        assert await send(c, sender) == 2
        assert await c.fetchval(USED, "provider_day") == 2
        assert await c.fetchval("SELECT sum(used) FROM budget_usage WHERE kind <> 'provider_day'") == 0


async def test_a_quota_of_one_user_is_not_anothers(db: Database) -> None:
    async with db.connection() as c:
        first = await make_sender(c, "a@example.com")
        second = await make_sender(c, "b@example.com")
        await c.execute(
            "INSERT INTO google_workspace_quota (upstream_id, mailbox_id, daily_limit) VALUES ($1, $2, 2)",
            first.upstream_id,
            first.mailbox_id,
        )
        await put_many(c, first, 5)
        await put_many(c, second, 5)
        entries = await claim_all(c, first.upstream_id)
        assert sum(entry.mailbox_id == first.mailbox_id for entry in entries) == 2
        assert sum(entry.mailbox_id == second.mailbox_id for entry in entries) == 5


async def test_a_rolling_unit_is_freed_a_day_after_its_reply_and_not_a_minute_before(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=3)
        await c.execute("UPDATE email_mailboxes SET limit_window = 'rolling'")
        await put_many(c, sender, 20)
        first = await claim_all(c, sender.upstream_id, messages=2)
        await start(c, first)
        await advance(c, "5 hours")
        # To the middle of a minute: units are freed by the minute.
        await advance(c, f"{90 - await c.fetchval('SELECT extract(second FROM relayd_now())')} seconds")
        replied = await c.fetchval("SELECT relayd_now()")
        await settle(c, first, OK)
        assert await send(c, sender) == 1
        await advance(c, "23 hours 59 minutes 45 seconds")
        assert await send(c, sender) == 0
        await advance(c, "1 minute")
        assert await c.fetchval(USED, "mailbox_day") == 0
        assert await send(c, sender) == 3
        assert await c.fetchval("SELECT relayd_now()") - replied >= timedelta(hours=24)


async def test_a_rolling_window_of_which_all_is_in_flight_waits_for_a_reply_not_for_ever(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=2)
        await c.execute("UPDATE email_mailboxes SET limit_window = 'rolling'")
        await put_many(c, sender, 6)
        entries = await claim_all(c, sender.upstream_id)
        await start(c, entries)
        assert await send(c, sender) == 0
        blocked_until = await c.fetchval("SELECT blocked_until FROM mailbox_lanes WHERE id = $1", sender.mail_lane_id)
        assert isinstance(blocked_until, datetime) and blocked_until.year < 9999
        await settle(c, entries[:1], LATER)
        assert await send(c, sender) == 1
        await settle(c, entries[1:], DOUBT)
        await advance(c, "24 hours 1 minute 1 second")
        assert await send(c, sender) == 2


async def test_what_is_in_flight_when_an_hour_turns_counts_in_the_next(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute(QUOTA, sender.upstream_id, None, 4, "calendar")
        await put_many(c, sender, 20)
        entries = await claim_all(c, sender.upstream_id, messages=3)
        await start(c, entries)
        await advance(c, "1 hour")
        assert await c.fetchval(USED, "provider_hour") == 3
        assert await send(c, sender) == 1
        await settle(c, entries[:2], OK)
        await settle(c, entries[2:], NEVER)
        assert await c.fetchval(USED, "provider_hour") == 3
        assert await send(c, sender) == 1
        assert await send(c, sender) == 0


async def test_a_returned_unit_lets_as_many_lanes_look_again(db: Database) -> None:
    async with db.connection() as c:
        senders = [await make_sender(c, f"box{number}@example.com") for number in range(6)]
        await c.execute("UPDATE clients SET daily_send_limit = 6")
        for sender in senders:
            await put_many(c, sender, 3)
        entries = await claim_all(c, senders[0].upstream_id)
        assert len(entries) == 6
        await start(c, entries)
        assert await claim_all(c, senders[0].upstream_id) == []
        blocked = "SELECT count(*) FROM mailbox_lanes WHERE blocked_by IS NOT NULL"
        assert await c.fetchval(blocked) == 6
        await settle(c, entries[:2], LATER)
        assert await c.fetchval(blocked) == 4
        assert await send(c, senders[0]) == 2


async def test_a_unit_that_its_lane_does_not_need_goes_to_another(db: Database) -> None:
    async with db.connection() as c:
        first = await make_sender(c, "a@example.com")
        second = await make_sender(c, "b@example.com")
        await c.execute("UPDATE clients SET daily_send_limit = 1")
        for sender in (first, second):
            await put_many(c, sender, 2)
        entries = await claim_all(c, first.upstream_id)
        await start(c, entries)
        assert await claim_all(c, first.upstream_id) == []
        (entry,) = entries
        sleepy = second if entry.mailbox_id == first.mailbox_id else first
        await c.execute(
            "UPDATE mailbox_lanes SET due_at = relayd_now() - interval '1 hour' WHERE id = $1", sleepy.mail_lane_id
        )
        await settle(c, entries, NEVER)
        await c.execute("UPDATE email_queue SET next_attempt_at = 'infinity' WHERE lane_id = $1", sleepy.mail_lane_id)
        assert await send(c, first) == 0
        assert await lanes.use_idle_units(c)
        assert await send(c, first) == 1
        assert not await lanes.use_idle_units(c)


async def test_bulk_mail_leaves_the_reserve_alone(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=10)
        await c.execute("UPDATE clients SET bulk_reserve_percent = 25")
        bulk_lane = await c.fetchval("SELECT id FROM mailbox_lanes WHERE class = 'bulk'")
        messages = [new_message(sender, f"user{number}@example.net") for number in range(20)]
        for message in messages:
            object.__setattr__(message, "lane_id", bulk_lane)
        await enqueue(c, messages)
        await lanes.wake(c, [bulk_lane])
        assert await send(c, sender) == 7  # a quarter of ten, rounded up, is kept
        assert await send(c, sender) == 0
        await put_many(c, sender, 5)
        assert await send(c, sender) == 3
        assert await c.fetchval("SELECT used FROM email_mailbox_usage") == 10


async def test_bulk_mail_has_one_turn_in_four(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        bulk_lane = await c.fetchval("SELECT id FROM mailbox_lanes WHERE class = 'bulk'")
        messages = [new_message(sender, f"user{number}@example.net") for number in range(40)]
        for message in messages:
            object.__setattr__(message, "lane_id", bulk_lane)
        await enqueue(c, messages)
        await lanes.wake(c, [bulk_lane])
        await put_many(c, sender, 40)
        entries = await claim_all(c, sender.upstream_id, messages=25)
        bulk = {message.queue_id for message in messages}
        assert sum(entry.queue_id in bulk for entry in entries) == 5


async def test_a_client_with_many_mailboxes_has_no_more_turns_than_one_with_one(db: Database) -> None:
    async with db.connection() as c:
        crowd = [await make_sender(c, f"box{number}@example.com") for number in range(30)]
        lonely = await make_sender(c, "app@example.org", client="other")
        for sender in (*crowd, lonely):
            await put_many(c, sender, 20)
        # All of the crowd's lanes have waited longer, and are more than are wanted.
        await c.execute("UPDATE mailbox_lanes SET due_at = relayd_now() WHERE id = $1", lonely.mail_lane_id)
        await c.execute(
            "UPDATE mailbox_lanes SET due_at = relayd_now() - interval '1 hour' WHERE due_at < 'infinity' AND id <> $1",
            lonely.mail_lane_id,
        )
        entries = await one_claim(c, {lonely.upstream_id: 10})
        assert sum(entry.mailbox_id == lonely.mailbox_id for entry in entries) == 5


async def test_a_lane_whose_budget_another_claim_holds_is_not_called_blocked(db: Database) -> None:
    async with db.connection() as c, db.connection() as other:
        sender = await make_sender(c)
        await c.execute("UPDATE clients SET daily_send_limit = 5")
        await put_many(c, sender, 3)
        await c.execute("UPDATE budgets SET units_used = 5 WHERE kind = 'client_day'")
        settling = other.transaction()
        await settling.start()
        await other.execute("UPDATE budgets SET units_used = 3 WHERE kind = 'client_day'")
        assert await claim_all(c, sender.upstream_id) == []
        assert await blocked_reason(c, sender) is None
        await settling.commit()
        assert len(await claim_all(c, sender.upstream_id)) == 2


async def test_a_claim_over_a_lowered_limit_of_its_client_does_not_start(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await c.execute("UPDATE clients SET daily_send_limit = 5")
        await put_many(c, sender, 5)
        entries = await claim_all(c, sender.upstream_id)
        await c.execute("UPDATE clients SET daily_send_limit = 3")
        assert await start(c, entries) == set()


async def test_a_clock_that_goes_back_opens_no_window_anew(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 40)
        assert await send(c, sender) == 5
        await advance(c, "1 day")
        assert await send(c, sender, messages=2) == 2
        await advance(c, "-1 day")
        await c.execute("UPDATE mailbox_lanes SET due_at = relayd_now(), blocked_until = '-infinity'")
        assert await send(c, sender) == 0
        await advance(c, "1 day")
        assert await send(c, sender) == 0  # the two days are one: it has its limit
        await advance(c, "1 day")
        assert await send(c, sender) == 5


async def test_a_clock_that_goes_back_takes_back_what_a_rolling_window_had_freed(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await c.execute("UPDATE email_mailboxes SET limit_window = 'rolling'")
        await put_many(c, sender, 40)
        assert await send(c, sender) == 5
        await advance(c, "25 hours")
        assert await send(c, sender, messages=2) == 2
        await advance(c, "-24 hours")
        await c.execute("UPDATE mailbox_lanes SET due_at = relayd_now(), blocked_until = '-infinity'")
        assert await c.fetchval(USED, "mailbox_day") == 7
        assert await send(c, sender) == 0


async def test_with_another_zone_neither_day_holds_more(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5, time_zone="UTC")
        await put_many(c, sender, 40)
        assert await send(c, sender) == 5
        await c.execute("UPDATE email_mailboxes SET time_zone = 'Pacific/Kiritimati'")  # 14 hours ahead
        await advance(c, "23 hours")  # past both midnights, in the middle of the new zone's next day
        assert await send(c, sender) == 0
        await advance(c, "10 hours")
        assert await send(c, sender) == 5


async def test_the_columns_beside_the_owners_names_say_the_same(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=50)
        await c.execute(QUOTA, sender.upstream_id, 3, 100, "rolling")
        await c.execute("UPDATE email_domains SET own_daily_limit = 100")
        await c.execute("UPDATE clients SET daily_send_limit = 100")
        await put_many(c, sender, 10)
        assert await send(c, sender) == 3
        for table in ("email_mailboxes", "email_domains", "clients"):
            assert await c.fetchval(f"SELECT current_daily_sends FROM {table}") == 3
        quota = await c.fetchrow("SELECT * FROM google_workspace_quota")
        assert (quota["daily_used"], quota["hourly_used"], quota["is_exceeded"]) == (3, 3, True)
        assert quota["exceeded_at"] is not None
        assert not await c.fetchval("SELECT count(*) FROM audit_logs WHERE after::text LIKE '%current_daily_sends%'")


async def test_whoever_comes_to_a_limit_with_mail_that_waits_is_told_once(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=3)
        await make_sender(c, "idle@example.com", daily_limit=0)
        await put_many(c, sender, 5)
        claimed = await look(c, {sender.upstream_id: 10})
        (reached,) = claimed.limits_reached
        assert (reached.mailbox, reached.lane, reached.limit) == (sender.address, "mail", "mailbox daily limit")
        assert reached.until == await c.fetchval("SELECT blocked_until FROM mailbox_lanes WHERE blocked_by IS NOT NULL")
        assert (await look(c, {sender.upstream_id: 10})).limits_reached == []
        await advance(c, "1 day")
        await settle(c, claimed.entries, OK)
        assert len((await look(c, {sender.upstream_id: 10})).limits_reached) == 1


async def test_a_rolling_limit_that_frees_a_few_now_and_then_is_told_of_once(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=1)
        await c.execute("UPDATE email_mailboxes SET limit_window = 'rolling'")
        await put_many(c, sender, 9)
        told = []
        for _ in range(3):
            claimed = await look(c, {sender.upstream_id: 10})
            told += claimed.limits_reached
            await start(c, claimed.entries)
            await settle(c, claimed.entries, OK)
            await advance(c, "24 hours 1 minute")
        assert len(told) == 1


async def test_a_clock_that_was_a_year_ahead_can_be_lived_down(db: Database) -> None:
    """The window that was opened then would last until then; what is said in docs/limits.md ends it."""
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put_many(c, sender, 40)
        assert await send(c, sender) == 5
        await advance(c, "400 days")
        assert await send(c, sender) == 5
        await advance(c, "-400 days")
        await c.execute("UPDATE mailbox_lanes SET due_at = relayd_now(), blocked_until = '-infinity'")
        assert await send(c, sender) == 0
        await advance(c, "2 days")
        assert await send(c, sender) == 0
        await c.execute("UPDATE email_mailboxes SET limit_window = 'rolling'")
        await c.execute("UPDATE email_mailboxes SET limit_window = 'calendar'")
        await advance(c, "1 day")
        assert await send(c, sender) == 5


@pytest.mark.parametrize("mailboxes", [4, 12])
async def test_of_those_with_the_same_place_one_goes_by_all_its_budgets(db: Database, mailboxes: int) -> None:
    """A tie that each budget broke in its own way left all of them with one that says no, every time."""
    async with db.connection() as c:
        senders = []
        for number in range(mailboxes):
            upstream = f"out{number}"
            await make_upstream(c, upstream)
            senders.append(await make_sender(c, f"box{number}@example.com", upstream=upstream))
        await c.execute("UPDATE clients SET daily_send_limit = 1")
        await c.execute("UPDATE email_domains SET own_daily_limit = 1")
        for sender in reversed(senders):
            await put_many(c, sender, 3)
        assert len(await claim_all(c, *(sender.upstream_id for sender in senders))) == 1


async def test_what_is_kept_by_a_clock_that_went_back_is_counted_once(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await c.execute("UPDATE email_mailboxes SET limit_window = 'rolling'")
        await put_many(c, sender, 40)
        entries = await claim_all(c, sender.upstream_id, messages=3)
        await start(c, entries)
        # It was rolled by a clock two days ahead, which has gone back since.
        await c.execute("UPDATE budgets SET began_at = relayd_now() + interval '2 days'")
        await settle(c, entries, OK)
        assert await c.fetchval(USED, "mailbox_day") == 3
        assert await send(c, sender, messages=1) == 1
        assert await c.fetchval(USED, "mailbox_day") == 4
        await advance(c, "1 day 2 minutes")
        assert await c.fetchval(USED, "mailbox_day") == 0
        # A rolling window is only rolled where it would say no.
        assert await send(c, sender) + await send(c, sender) == 5
