"""`relayd mailbox forecast` and `relayd warmup simulate`: the days to come of a real queue."""

import json

from relayd.store.connection import Connection
from tests.builders import Sender, make_sender, put_many
from tests.integration.conftest import Control
from tests.integration.test_outlook import at_noon, use


async def waiting(connection: Connection, count: int, *, limit: int | None = 11) -> Sender:
    await at_noon(connection)
    sender = await make_sender(connection, daily_limit=limit)
    await put_many(connection, sender, count)
    return sender


async def test_the_coming_days_by_both_lanes_and_what_is_scheduled(control: Control) -> None:
    async with control.db.connection() as connection:
        sender = await waiting(connection, 30)
        await use(connection, "mailbox_day", sender.mailbox_id, 4)
        await connection.execute(
            "UPDATE email_queue SET lane_id = (SELECT id FROM mailbox_lanes WHERE class = 'bulk')"
            " WHERE id IN (SELECT id FROM email_queue LIMIT 15)"
        )
        await connection.execute("UPDATE mailbox_lanes SET due_at = relayd_now()")
        await connection.execute(
            "UPDATE email_queue SET status = 'pending', pending_reason = 'scheduled',"
            " next_attempt_at = relayd_now() + interval '2 days'"
            " WHERE id IN (SELECT q.id FROM email_queue q JOIN mailbox_lanes l ON l.id = lane_id WHERE class = 'mail'"
            " LIMIT 5)"
        )
    answer = await control.ok("GET", f"mailboxes/{sender.address}/forecast", params={"days": 5})
    assert (answer["backlog"], answer["scheduled"], answer["used"]) == (25, 5, 4)
    rows = [(day["day"], day["limit"], day["leaves"], day["joins"], day["waiting"]) for day in answer["items"]]
    assert rows == [
        ("2027-03-02", 11, 7, 0, 18),
        ("2027-03-03", 11, 11, 0, 7),
        ("2027-03-04", 11, 11, 5, 1),
        ("2027-03-05", 11, 1, 0, 0),
        ("2027-03-06", 11, 0, 0, 0),
    ]
    assert answer["done_on"] == "2027-03-05"
    assert [day["held_by"] for day in answer["items"]][:2] == ["mailbox noreply@example.com"] * 2


async def test_a_paused_mailbox_is_told_what_would_follow(control: Control) -> None:
    async with control.db.connection() as connection:
        await waiting(connection, 20)
        await connection.execute("UPDATE email_mailboxes SET status = 'paused'")
    ran = await control.cli("mailbox", "forecast", "noreply@example.com", "--days", "3")
    assert ran.code == 0
    assert "20 recipients wait; the last leave on 2027-03-03" in ran.err and "nothing leaves now" in ran.err


async def test_the_plot_and_the_table(control: Control) -> None:
    async with control.db.connection() as connection:
        sender = await waiting(connection, 40, limit=32)
        await connection.execute("UPDATE clients SET daily_send_limit = 24")
    ran = await control.cli("mailbox", "forecast", sender.address, "--days", "2")
    lines = ran.out.splitlines()
    title = "DAY LIMIT LEAVES SCHEDULED WAITING THEN WAITS FOR LEAVES OF LIMIT (█ ░)"
    assert lines[0].split() == title.split()
    assert lines[1].split() == ["2027-03-02", "32", "24", "0", "16", "client", "acme", "█" * 24 + "░" * 8]
    assert lines[2].split() == ["2027-03-03", "32", "16", "0", "0", "█" * 16 + "░" * 16]
    plain = await control.cli("mailbox", "forecast", sender.address, PYTHONIOENCODING="ascii")
    assert plain.code == 0 and "#" * 24 + "." * 8 in plain.out
    as_json = await control.cli("mailbox", "forecast", sender.address, "--json")
    assert len(json.loads(as_json.out)["items"]) == 14
    wrong = await control.cli("mailbox", "forecast", sender.address, "--days", "0")
    assert wrong.code != 0 and "days" in wrong.err
    unknown = await control.cli("mailbox", "forecast", "nobody@example.com")
    assert unknown.code != 0 and "noreply@example.com" in unknown.err


async def test_a_mailbox_without_mail_or_limit(control: Control) -> None:
    async with control.db.connection() as connection:
        sender = await waiting(connection, 3, limit=None)
    answer = await control.ok("GET", f"mailboxes/{sender.address}/forecast", params={"days": 1})
    assert [(day["limit"], day["leaves"], day["waiting"]) for day in answer["items"]] == [(None, 3, 0)]
    async with control.db.connection() as connection:
        await connection.execute("DELETE FROM email_queue")
    ran = await control.cli("mailbox", "forecast", sender.address)
    assert "0 recipients wait; nothing has to leave" in ran.err


async def test_a_simulation_keeps_to_the_other_limits_too(control: Control) -> None:
    async with control.db.connection() as connection:
        sender = await waiting(connection, 60, limit=10)
        await connection.execute("UPDATE clients SET daily_send_limit = 25")
    path = f"mailboxes/{sender.address}/warmup/simulation"
    answer = await control.ok("GET", path, params={"schedule": "10x1,20x1,500", "days": 5})
    assert [(day["limit"], day["leaves"], day["total"]) for day in answer["items"]] == [
        (10, 10, 10),
        (20, 20, 30),
        (500, 25, 55),
        (500, 5, 60),
        (500, 0, 60),
    ]
    assert (answer["backlog"], answer["done_on_day"]) == (60, 4)
