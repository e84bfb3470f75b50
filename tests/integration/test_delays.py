"""Mail that waits long: its sender is warned once, told why and until when, and not of what waits on purpose."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relayd.rules.outcome import Cause, Deferred, Scope, Stage
from relayd.rules.warm_up import DEFAULT_SCHEDULE
from relayd.store.outlook import Terms
from relayd.store.pool import Database
from relayd.upkeep.warn_of_delays import DelayTerms, warn_of_delays
from tests.builders import make_sender, put, put_many
from tests.integration.notifying import House, blocks

LATER = Deferred(Scope.RECIPIENT, Cause(Stage.RCPT, "4.2.1 mailbox is busy", 450, "4.2.1"))


@pytest.fixture
async def house(db: Database) -> House:
    async with db.connection() as connection:
        return House(db, await make_sender(connection, daily_limit=3))


async def look(house: House, *, hours: float = 0, warn_after: timedelta = timedelta(hours=4)) -> None:
    """What upkeep does so many hours later."""
    await house.execute("UPDATE relayd_state SET clock_offset = $1", timedelta(hours=hours))
    terms = DelayTerms(warn_after, timedelta(days=5), Terms(DEFAULT_SCHEDULE, 0))
    await warn_of_delays(house.db, house.bouncer, terms, emit=house.events.append, wake=lambda: None)


async def warned(house: House) -> list[str]:
    rows = await house.fetch(
        "SELECT q.recipient_address FROM email_delivery_logs l JOIN email_queue q ON q.id = l.entry_id"
        " WHERE l.event = 'delayed' ORDER BY 1"
    )
    return [row["recipient_address"] for row in rows]


async def sent_by(house: House, recipient: str, **fields: Any) -> None:
    async with house.db.connection() as connection:
        await put(connection, house.sender, recipient, **fields)


async def test_a_warning_comes_once_after_its_time(house: House) -> None:
    await sent_by(house, "you@example.net")
    await house.end_all(LATER)
    await look(house, hours=3.9)
    assert await warned(house) == []
    await look(house, hours=4.1, warn_after=timedelta(0))
    assert await warned(house) == [], "0 is never"
    await look(house, hours=4.1)
    await look(house, hours=9)
    assert await warned(house) == ["you@example.net"]
    (warning,) = await house.notifications()
    assert warning["Subject"] == "Delayed mail: 1 recipient"
    recipient = blocks(warning)[1]
    assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.2.1")
    assert recipient["Diagnostic-Code"] == "smtp; 450 4.2.1 mailbox is busy"
    until = datetime.strptime(recipient["Will-Retry-Until"], "%a, %d %b %Y %H:%M:%S %z")
    assert abs(until - datetime.now(UTC) - timedelta(days=5)) < timedelta(minutes=5)
    text: Any = warning.get_payload(0)
    assert "could not be delivered yet and is tried again" in text.get_payload()


async def test_only_what_waits_for_nobody_and_was_asked_for_is_told(house: House) -> None:
    soon = datetime.now(UTC) + timedelta(hours=3)
    for recipient, fields in (
        ("asked@example.net", {"notify": "DELAY"}),
        ("held@example.net", {}),
        ("never@example.net", {"notify": "NEVER"}),
        ("other@example.net", {"notify": "SUCCESS,FAILURE"}),
        ("plain@example.net", {}),
        ("scheduled@example.net", {"not_before": soon}),
        ("unsender@example.net", {"reverse_path": None}),
    ):
        await sent_by(house, recipient, **fields)
    hold = "UPDATE email_queue SET status = 'pending', pending_reason = 'held' WHERE recipient_address LIKE 'held@%'"
    await house.execute(hold)
    release = "UPDATE email_queue SET status = 'queued', pending_reason = NULL WHERE pending_reason = 'scheduled'"
    await house.execute(release)
    await look(house, hours=5)
    assert await warned(house) == ["asked@example.net", "plain@example.net"]
    assert len(await house.notifications()) == 2
    await look(house, hours=7.1)
    assert await warned(house) == ["asked@example.net", "plain@example.net", "scheduled@example.net"]
    await look(house, hours=12)
    left = await house.fetch("SELECT recipient_address FROM email_queue WHERE delay_warned_at IS NULL")
    assert [row["recipient_address"] for row in left] == ["held@example.net"], "nobody is looked at twice"


async def test_mail_behind_a_daily_limit_is_told_when_it_goes(house: House) -> None:
    # At midnight, so that the day has not turned when the warning comes.
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    to_midnight = (midnight - datetime.now(UTC)) / timedelta(hours=1) + 0.1
    await house.execute("UPDATE relayd_state SET clock_offset = $1", timedelta(hours=to_midnight))
    async with house.db.connection() as connection:
        await put_many(connection, house.sender, 5)
    await house.claim()
    await look(house, hours=to_midnight + 5)
    assert len(await warned(house)) == 2
    for warning in await house.notifications():
        recipient = blocks(warning)[1]
        assert recipient["Status"] == "4.4.5" and "Will-Retry-Until" not in recipient
        text: Any = warning.get_payload(0)
        said = " ".join(text.get_payload().split())
        assert "It waits for the mailbox daily limit to free." in said
        assert f"It is expected to leave about {midnight + timedelta(days=1):%a, %d %b %Y} 00:0" in said


async def test_a_client_may_have_events_instead(house: House) -> None:
    await house.execute("UPDATE clients SET bounces = 'event'")
    await sent_by(house, "you@example.net", reverse_path=None)
    await look(house, hours=5)
    assert await house.notifications() == []
    (event,) = await house.fetch("SELECT * FROM client_events")
    assert (event["kind"], event["payload"]["because"]) == ("delayed", "It waits for its turn.")


async def test_a_long_queue_is_seen_to_in_rounds_over_an_index(house: House) -> None:
    await house.execute("UPDATE clients SET bounces = 'event'")
    async with house.db.connection() as connection:
        await put_many(connection, house.sender, 1_050)
    await look(house, hours=5)
    assert len(await warned(house)) == 1_000
    await look(house, hours=5)
    assert len(await warned(house)) == 1_050
    await house.execute("ANALYZE email_queue")
    plan = await house.fetch(
        "EXPLAIN SELECT id FROM email_queue WHERE status = 'queued' AND delay_warned_at IS NULL"
        " AND waits_since <= relayd_now() - interval '4 hours' ORDER BY waits_since LIMIT 100"
    )
    assert "email_queue_unwarned" in "\n".join(row[0] for row in plan)
