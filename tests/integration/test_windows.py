"""Windows where the calendar is odd or somebody changes it: no day holds more than the limit, however it is called."""

from datetime import UTC, datetime

import pytest

from relayd.store import lanes
from relayd.store.connection import Connection
from relayd.store.pool import Database
from tests.builders import Sender, make_sender, make_upstream, put_many
from tests.integration.test_claim import OK, one_claim, settle, start
from tests.ledger.clock import StillClock

ALL_BUT_ONE_WAIT = """
UPDATE email_queue SET next_attempt_at = 'infinity'
 WHERE status = 'queued' AND id <> (SELECT id FROM email_queue WHERE status = 'queued' ORDER BY id LIMIT 1)
"""


async def send_what_may_go(c: Connection, sender: Sender, clock: StillClock, at: str) -> int:
    await clock.set(datetime.fromisoformat(at))
    entries = await one_claim(c, {sender.upstream_id: 50}, claimant=f"n/1/{at}")
    started = await start(c, entries)
    await settle(c, [each for each in entries if each.entry_id in started], OK)
    return len(started)


@pytest.mark.parametrize(
    ("zone", "moments", "sent"),
    [
        # 00:00 comes at 00:00Z and again at 01:00Z.
        (
            "Atlantic/Azores",
            ("2026-10-24T23:30Z", "2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-26T00:30Z"),
            "3300",
        ),
        (
            "America/Havana",
            ("2026-11-01T03:30Z", "2026-11-01T04:30Z", "2026-11-01T05:30Z", "2026-11-02T04:30Z"),
            "3300",
        ),
        # There is no 00:00: the day begins at 01:00, which is 03:00Z.
        (
            "America/Sao_Paulo",
            ("2018-11-04T02:30Z", "2018-11-04T03:30Z", "2018-11-05T01:30Z", "2018-11-05T02:30Z"),
            "3303",
        ),
        # By half an hour, at two o'clock.
        (
            "Australia/Lord_Howe",
            ("2026-04-04T12:30Z", "2026-04-04T13:30Z", "2026-04-05T13:00Z", "2026-04-05T13:30Z"),
            "3303",
        ),
    ],
)
async def test_a_day_begins_where_its_date_does(db: Database, zone: str, moments: tuple[str, ...], sent: str) -> None:
    async with db.connection() as c:
        clock = StillClock(c, datetime(2018, 1, 1, tzinfo=UTC))
        await clock.stop()
        sender = await make_sender(c, daily_limit=3, time_zone=zone)
        await put_many(c, sender, 20)
        assert "".join([str(await send_what_may_go(c, sender, clock, moment)) for moment in moments]) == sent


@pytest.mark.parametrize("looks_first", [False, True])
async def test_the_day_of_a_new_zone_holds_what_was_sent_before_it_was_said(db: Database, looks_first: bool) -> None:
    """At 23:00 the limit was reached. After midnight it is still the same day elsewhere."""
    async with db.connection() as c:
        clock = StillClock(c, datetime(2026, 5, 1, tzinfo=UTC))
        await clock.stop()
        sender = await make_sender(c, daily_limit=3)
        await put_many(c, sender, 20)
        assert await send_what_may_go(c, sender, clock, "2026-05-01T23:00Z") == 3
        if looks_first:
            await c.execute(ALL_BUT_ONE_WAIT)
            assert await send_what_may_go(c, sender, clock, "2026-05-02T00:10Z") == 1
            await c.execute("UPDATE email_queue SET next_attempt_at = created_at WHERE status = 'queued'")
            await lanes.wake(c, [sender.mail_lane_id])
        await clock.set(datetime(2026, 5, 2, 0, 20, tzinfo=UTC))
        await c.execute("UPDATE email_mailboxes SET time_zone = 'America/New_York'")
        assert await send_what_may_go(c, sender, clock, "2026-05-02T03:50Z") == 0
        # The window that was open goes on to the first midnight there after its own.
        turns_at = "2026-05-03T04:01Z" if looks_first else "2026-05-02T04:01Z"
        assert await send_what_may_go(c, sender, clock, turns_at) == 3


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE clients SET daily_send_limit = 3",
        "UPDATE email_domains SET own_daily_limit = 3",
        "UPDATE email_mailboxes SET is_paced = true",
        "INSERT INTO google_workspace_quota (upstream_id, daily_limit) SELECT id, 3 FROM email_configurations",
    ],
)
async def test_what_was_claimed_before_there_was_a_limit_does_not_start_under_it(db: Database, change: str) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=20)
        await put_many(c, sender, 5)
        entries = await one_claim(c, {sender.upstream_id: 10})
        await c.execute(change)
        assert await start(c, entries) == set()


async def test_what_was_claimed_for_another_upstream_does_not_start(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        other = await make_upstream(c, "other")
        await put_many(c, sender, 5)
        entries = await one_claim(c, {sender.upstream_id: 10})
        await c.execute("UPDATE email_mailboxes SET upstream_id = $1", other)
        assert await start(c, entries) == set()


async def test_a_new_limit_over_a_rolling_mailbox_begins_with_what_it_has_not_freed_yet(db: Database) -> None:
    async with db.connection() as c:
        clock = StillClock(c, datetime(2026, 5, 1, tzinfo=UTC))
        await clock.stop()
        sender = await make_sender(c, daily_limit=9)
        await c.execute("UPDATE email_mailboxes SET limit_window = 'rolling'")
        await put_many(c, sender, 20)
        await c.execute(ALL_BUT_ONE_WAIT)
        assert await send_what_may_go(c, sender, clock, "2026-05-01T10:00Z") == 1
        await c.execute("UPDATE email_queue SET next_attempt_at = created_at WHERE status = 'queued'")
        await lanes.wake(c, [sender.mail_lane_id])
        assert await send_what_may_go(c, sender, clock, "2026-05-01T20:00Z") == 8
        # The first is free again, and nobody has looked since.
        await clock.set(datetime(2026, 5, 2, 12, tzinfo=UTC))
        await c.execute("UPDATE clients SET daily_send_limit = 8, limit_window = 'rolling'")
        assert await send_what_may_go(c, sender, clock, "2026-05-02T12:01Z") == 0
