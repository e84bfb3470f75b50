"""When mail leaves by all its budgets together, asked of a real database: what `explain` says of them."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from relayd.rules.warm_up import DEFAULT_SCHEDULE
from relayd.store import outlook
from relayd.store.connection import Connection
from relayd.store.outlook import LaneOutlook, Reach, Terms
from relayd.store.queue import enqueue
from tests.builders import Sender, make_sender, new_message, put_many
from tests.integration.conftest import Control

TERMS = Terms(DEFAULT_SCHEDULE, 0)
NOON = datetime.fromisoformat("2027-03-02T12:00:00Z")
MIDNIGHT = NOON + timedelta(hours=12)
DAY = timedelta(days=1)


async def find(connection: Connection, lane_id: int, **reach: int) -> LaneOutlook:
    return await outlook.find(
        connection, lane_id, TERMS, Reach(**{"entries": 1_000, "rivals": 10, "rival_entries": 100, **reach})
    )


async def at_noon(connection: Connection) -> None:
    """Before anything is made: windows are opened by the clock."""
    await connection.execute("UPDATE relayd_state SET clock_offset = $1 - clock_timestamp()", NOON)


async def use(connection: Connection, kind: str, owner_id: UUID, units: int) -> None:
    await connection.execute(
        "UPDATE budgets SET units_used = $3, turns_at = relayd_window_end(relayd_now(), span, time_zone)"
        " WHERE kind = $1 AND owner_id = $2 AND NOT is_rolling",
        kind,
        owner_id,
        units,
    )


async def quota(connection: Connection, sender: Sender, mailbox_id: UUID | None, limit: int, used: int) -> None:
    await connection.execute(
        "INSERT INTO google_workspace_quota (upstream_id, mailbox_id, daily_limit) VALUES ($1, $2, $3)",
        sender.upstream_id,
        mailbox_id,
        limit,
    )
    await connection.execute(
        "WITH b AS (UPDATE budgets SET units_used = $1 WHERE kind = 'provider_day' AND unit_limit = $3 RETURNING id)"
        " INSERT INTO budget_releases SELECT id, $2, $1 FROM b",
        used,
        NOON + timedelta(hours=2),
        limit,
    )


def near(when: datetime | None, expected: datetime) -> bool:
    """The database's clock goes on while a test runs."""
    return when is not None and timedelta() <= when - expected < timedelta(minutes=1)


async def test_every_budget_is_found_and_the_slowest_decides(control: Control) -> None:
    async with control.db.connection() as connection:
        await at_noon(connection)
        sender = await make_sender(connection, daily_limit=50)
        await connection.execute("UPDATE email_mailboxes SET is_paced = true")
        await connection.execute("UPDATE email_domains SET own_daily_limit = 500")
        await connection.execute("UPDATE clients SET daily_send_limit = 600, time_zone = 'Asia/Tokyo'")
        await quota(connection, sender, sender.mailbox_id, 20, used=20)
        await quota(connection, sender, None, 10_000, used=20)
        found = await find(connection, sender.mail_lane_id)
        assert {budget.name: (budget.unit_limit, budget.used) for budget in found.own_budgets} == {
            "mailbox noreply@example.com": (3, 0),
            "domain example.com": (500, 0),
            "client acme": (600, 0),
            "upstream capture for noreply@example.com": (20, 20),
            "upstream capture": (10_000, 20),
        }
        first = found.outlook().leaves(0)
        assert first.held_by is not None and found.budgets[first.held_by].user == "noreply@example.com"
        assert near(first.at, NOON + timedelta(hours=2))
        # Then three an hour.
        assert near(found.outlook().leaves(3).at, NOON + timedelta(hours=3))
        await use(connection, "client_day", sender.client_id, 600)
        found = await find(connection, sender.mail_lane_id)
        held = found.outlook().leaves(0)
        # Midnight in Tokyo is nine hours before that of UTC.
        assert near(held.at, NOON + timedelta(hours=3))
        assert held.held_by is not None and found.budgets[held.held_by].name == "client acme"
        bounces = await find(connection, sender.dsn_lane_id)
        assert [budget.kind for budget in bounces.own_budgets] == ["provider_day", "provider_day"]


async def test_lanes_that_share_a_limit_are_counted_whatever_upstream_they_leave_by(control: Control) -> None:
    async with control.db.connection() as connection:
        await at_noon(connection)
        sender = await make_sender(connection, daily_limit=1_000)
        other = await make_sender(connection, "other@example.com", daily_limit=5)
        far = await make_sender(connection, "far@second.example", upstream="second")
        stranger = await make_sender(connection, "a@stranger.example", client="stranger")
        idle = await make_sender(connection, "idle@example.com")
        paused = await make_sender(connection, "paused@example.com")
        for each in (other, far, stranger, paused):
            await put_many(connection, each, 40)
        await connection.execute("UPDATE email_mailboxes SET status = 'paused' WHERE id = $1", paused.mailbox_id)
        assert (await find(connection, sender.mail_lane_id)).rivals == ()
        await connection.execute("UPDATE clients SET daily_send_limit = 30 WHERE name = 'acme'")
        found = await find(connection, sender.mail_lane_id)
        assert [rival.waiting for rival in found.rivals] == [40, 40]
        # 30 for three, of whom one may send 5: so 12 or 13 for each of the others.
        assert near(found.outlook().leaves(11).at, NOON)
        assert near(found.outlook().leaves(13).at, MIDNIGHT)
        assert idle.mail_lane_id not in [rival.budget_ids for rival in found.rivals]
        await quota(connection, sender, None, 10, used=0)
        assert len((await find(connection, sender.mail_lane_id)).rivals) == 3
        assert (await find(connection, sender.mail_lane_id, rivals=2)).is_capped
        assert len((await find(connection, sender.mail_lane_id, rivals=2)).rivals) == 2


async def test_what_waits_is_counted_up_to_a_limit(control: Control) -> None:
    async with control.db.connection() as connection:
        sender = await make_sender(connection, daily_limit=5)
        await put_many(connection, sender, 30)
        found = await find(connection, sender.mail_lane_id)
        assert (found.line.waiting, found.is_capped) == (30, False)
        found = await find(connection, sender.mail_lane_id, entries=20)
        assert (found.line.waiting, found.is_capped) == (20, True)


async def test_a_warming_mailbox_grows_by_its_schedule_or_the_configured_one(control: Control) -> None:
    async with control.db.connection() as connection:
        await at_noon(connection)
        sender = await make_sender(connection, daily_limit=10)
        await connection.execute(
            "UPDATE email_mailboxes SET warmup_enabled = true, warmup_stage = 4, status = 'warming',"
            " warmup_started_at = relayd_now(), warmup_day = '2027-03-02'"
        )
        await use(connection, "mailbox_day", sender.mailbox_id, 10)

        async def leaves(place: int) -> datetime | None:
            return (await find(connection, sender.mail_lane_id)).outlook().leaves(place).at

        # 20 a day from tomorrow on.
        assert near(await leaves(19), MIDNIGHT + timedelta(minutes=2))
        await connection.execute("UPDATE email_mailboxes SET warmup_schedule = '10x5,100x5,500'")
        assert near(await leaves(99), MIDNIGHT + timedelta(minutes=2))
        await connection.execute("UPDATE email_mailboxes SET warmup_paused_at = relayd_now()")
        assert near(await leaves(10), MIDNIGHT + DAY)


async def test_bulk_mail_is_told_of_the_reserve(control: Control) -> None:
    async with control.db.connection() as connection:
        await at_noon(connection)
        await connection.execute("INSERT INTO clients (name, bulk_reserve_percent) VALUES ('acme', 20)")
        sender = await make_sender(connection, daily_limit=50)
        await use(connection, "mailbox_day", sender.mailbox_id, 45)
        lane_id = await connection.fetchval("SELECT id FROM mailbox_lanes WHERE class = 'bulk'")
        (message,) = await put_many(connection, sender, 1)
        await connection.execute("UPDATE email_queue SET lane_id = $1", lane_id)
    entry = (await control.ok("GET", f"explain/{message.queue_id}"))["entries"][0]
    assert entry["where"] == "limited"
    assert "may send 50 a day, 10 of them kept from bulk mail, and has sent 45" in entry["sentence"]
    assert (entry["budgets"][0]["bulk_limit"], entry["budgets"][0]["binds"]) == (40, True)


@pytest.mark.parametrize(
    ("change", "text", "step"),
    [
        ("UPDATE email_domains SET own_daily_limit = 0", "domain example.com may send 0", "domain set example.com"),
        ("UPDATE clients SET daily_send_limit = 0", "client acme may send 0", "client set acme --daily-limit N"),
        (
            "INSERT INTO google_workspace_quota (upstream_id, hourly_limit) SELECT id, 0 FROM email_configurations",
            "upstream capture allows 0 in any hour",
            "upstream quota capture --hourly N",
        ),
    ],
)
async def test_a_limit_of_nothing_is_named(control: Control, change: str, text: str, step: str) -> None:
    async with control.db.connection() as connection:
        sender = await make_sender(connection, daily_limit=50)
        (message,) = await put_many(connection, sender, 1)
        await connection.execute(change)
    entry = (await control.ok("GET", f"explain/{message.queue_id}"))["entries"][0]
    assert (entry["where"], entry["goes_at"]) == ("stopped", None)
    assert text in entry["sentence"] and step in entry["next_step"]


async def test_explain_shows_every_budget_and_marks_the_one_that_binds(control: Control) -> None:
    async with control.db.connection() as connection:
        await at_noon(connection)
        sender = await make_sender(connection, daily_limit=50)
        await connection.execute("UPDATE clients SET daily_send_limit = 5000, bulk_reserve_percent = 10")
        await use(connection, "mailbox_day", sender.mailbox_id, 50)
        message = new_message(sender, "a@example.net", "b@example.net")
        await enqueue(connection, [message])
    shown = await control.cli("explain", str(message.queue_id))
    assert shown.code == 0
    assert shown.out.count("> mailbox noreply@example.com  50 of 50 a day") == 1
    assert "client acme                  0 of 5,000 a day, 4,500 of them for bulk mail, turns 2027-03-03" in shown.out


async def test_a_scheduled_entry_says_when_it_goes_behind_what_waits(control: Control) -> None:
    async with control.db.connection() as connection:
        await at_noon(connection)
        sender = await make_sender(connection, daily_limit=5)
        *_, last = await put_many(connection, sender, 12)
        await connection.execute(
            "UPDATE email_queue SET status = 'pending', pending_reason = 'scheduled',"
            " next_attempt_at = relayd_now() + interval '2 hours' WHERE message_id = $1",
            last.queue_id,
        )
    entry: dict[str, Any] = (await control.ok("GET", f"explain/{last.queue_id}"))["entries"][0]
    assert (entry["where"], entry["ahead"]) == ("scheduled", 11)
    assert "scheduled for 2027-03-02T14:00" in entry["sentence"] and "may send 5 a day" in entry["sentence"]
    assert near(datetime.fromisoformat(entry["goes_at"]), MIDNIGHT + DAY) or entry["goes_at"] > "2027-03-04T00:00"
