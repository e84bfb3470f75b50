"""`explain` on a real queue: the facts that the pure verdict is given, and what becomes of them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from relayd.rules.outcome import Cause, Deferred, Scope, Sent, Stage, Uncertain
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted, OnUncertain, settle
from relayd.store import attempts, explanation, settlement
from relayd.store.claim import ClaimedEntry
from relayd.store.connection import Connection
from relayd.store.settlement import Result
from tests.builders import Sender, claim_all, make_sender, put, put_many
from tests.integration.conftest import Control


@pytest.fixture
async def sender(control: Control) -> Sender:
    async with control.db.connection() as connection:
        return await make_sender(connection)


async def explained(control: Control, some_id: UUID) -> dict[str, Any]:
    answer = await control.ok("GET", f"explain/{some_id}")
    verdict: dict[str, Any] = answer["entries"][0]
    return verdict


async def attempt(
    connection: Connection, entry: ClaimedEntry, outcome: Any, *, on_uncertain: OnUncertain = "retry"
) -> None:
    now = await connection.fetchval("SELECT relayd_now()")
    assert (await attempts.start(connection, [(entry, "capture")], lease_seconds=60)).entries == {entry}
    settled = settle(
        outcome,
        Attempted(entry.retry_count, entry.max_retries, now),
        RetryPolicy(),
        on_uncertain=on_uncertain,
        now=now,
        dice=0.5,
    )
    async with connection.transaction():
        assert await settlement.settle(
            connection, [Result(entry.entry_id, entry.fence, entry.claimed_by, "capture", settled)]
        )


async def test_a_daily_limit_is_named_with_the_day_that_each_entry_leaves(control: Control) -> None:
    async with control.db.connection() as connection:
        sender = await make_sender(connection, daily_limit=50, time_zone="Europe/Berlin")
        messages = await put_many(connection, sender, 500)
        assert len(await claim_all(connection, sender.upstream_id)) == 50
    async with control.db.connection() as connection:
        midnight = await connection.fetchval("SELECT window_ends_at FROM email_mailbox_usage")
    assert midnight.astimezone(ZoneInfo("Europe/Berlin")).hour == 0
    last = await explained(control, messages[-1].queue_id)
    assert (last["where"], last["ahead"]) == ("limited", 449)
    assert "mailbox noreply@example.com may send 50 a day and has sent 50" in last["sentence"]
    assert "449 entries are ahead" in last["sentence"]
    nine_days = midnight.astimezone(ZoneInfo("Europe/Berlin")) + timedelta(days=8)
    assert timedelta() <= datetime.fromisoformat(last["goes_at"]) - nine_days.astimezone(UTC) < timedelta(minutes=5)
    next_one = await explained(control, messages[50].queue_id)
    assert next_one["ahead"] == 0
    assert timedelta() <= datetime.fromisoformat(next_one["goes_at"]) - midnight < timedelta(minutes=15)
    assert [(budget["kind"], budget["used"], budget["binds"]) for budget in next_one["budgets"]] == [
        ("mailbox_day", 50, True)
    ]


async def test_every_attempt_is_told(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        message = await put(connection, sender)
        (entry,) = await claim_all(connection, sender.upstream_id)
        assert (await explained(control, message.queue_id))["where"] == "sending"
        await attempt(connection, entry, Deferred(Scope.UPSTREAM, Cause(Stage.CONNECT, "connection refused")))
        deferred = await explained(control, message.queue_id)
        assert deferred["where"] == "deferred"
        assert "deferred after attempt 1 of at most 51 (connect: connection refused)" in deferred["sentence"]
        await connection.execute("UPDATE relayd_state SET clock_offset = '1 hour'")
        (entry,) = await claim_all(connection, sender.upstream_id)
        await attempt(connection, entry, Sent(Cause(Stage.DOT, "2.0.0 ok", 250, "2.0.0"), "abc"))
    sent = await explained(control, entry.entry_id)
    assert sent["where"] == "sent"
    assert "through capture (its id there: abc); the reply: dot: 250 2.0.0 ok" in sent["sentence"]
    assert [(row["event"], row["attempt"], row["upstream"]) for row in sent["log"]] == [
        ("queued", None, None),
        ("sending", 1, "capture"),
        ("deferred", 1, "capture"),
        ("sending", 2, "capture"),
        ("sent", 2, "capture"),
    ]


async def test_doubt_waits_for_a_decision(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        message = await put(connection, sender)
        (entry,) = await claim_all(connection, sender.upstream_id)
        await attempt(connection, entry, Uncertain(Cause(Stage.DOT, "connection lost")), on_uncertain="hold")
    verdict = await explained(control, message.queue_id)
    assert (verdict["where"], verdict["goes_at"]) == ("uncertain", None)
    assert "dot: connection lost; it may have been delivered" in verdict["sentence"]
    assert f"relayd queue uncertain resolve {entry.entry_id} --as sent" in verdict["next_step"]


async def test_who_held_or_cancelled_it_is_named(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        message = await put(connection, sender)
    ids = {"ids": [str(message.queue_id)]}
    await control.ok("POST", "queue/hold", {**ids, "reason": "check the list"})
    held = await explained(control, message.queue_id)
    assert held["where"] == "held" and "check the list" in held["sentence"] and "held by " in held["sentence"]
    await control.ok("POST", "queue/cancel", ids)
    cancelled = await explained(control, message.queue_id)
    assert cancelled["where"] == "cancelled" and "cancelled by " in cancelled["sentence"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("UPDATE relayd_state SET paused_at = relayd_now(), paused_reason = 'storm'", "everything is paused since"),
        ("UPDATE email_configurations SET paused_at = relayd_now(), paused_reason = 'x'", "upstream capture is paused"),
        ("UPDATE email_configurations SET is_active = false", "upstream capture is not active"),
        (
            "UPDATE email_mailboxes SET status = 'paused', status_reason = 'y'",
            "noreply@example.com is paused: y",
        ),
        ("UPDATE email_mailboxes SET status = 'suspended'", "mailbox noreply@example.com is suspended"),
        ("UPDATE email_domains SET status = 'suspended'", "domain example.com is suspended"),
        ("UPDATE clients SET status = 'suspended'", "client acme is suspended"),
        ("UPDATE email_mailboxes SET daily_send_limit = 0", "may send 0 a day, so it never leaves"),
    ],
)
async def test_what_stops_it_stops_the_claim_too(control: Control, sender: Sender, change: str, text: str) -> None:
    async with control.db.connection() as connection:
        message = await put(connection, sender)
        assert (await explained(control, message.queue_id))["where"] == "due"
        await connection.execute(change)
        verdict = await explained(control, message.queue_id)
        assert (verdict["where"], verdict["goes_at"]) == ("stopped", None)
        assert text in verdict["sentence"]
        assert await claim_all(connection, sender.upstream_id) == []


async def test_a_message_is_explained_recipient_by_recipient_up_to_a_limit(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        message = await put(connection, sender, *(f"user{number}@example.net" for number in range(30)))
    answer = await control.ok("GET", f"explain/{message.queue_id.hex}", params={"limit": 5})
    assert (len(answer["entries"]), answer["total"]) == (5, 30)
    assert [entry["ahead"] for entry in answer["entries"]] == [0, 1, 2, 3, 4]
    unknown = await control.request("GET", f"explain/{UUID(int=7)}")
    assert (unknown.status, "no message and no queue entry has the id" in unknown.message) == (404, True)


async def test_the_count_of_those_ahead_is_capped(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        messages = await put_many(connection, sender, 30)
        last = messages[-1].entries[0].entry_id
        (one,) = await explanation.gather(connection, [last], control.house.terms, most_ahead=10)
    assert (one.facts.entry.ahead, one.facts.entry.ahead_is_capped) == (10, True)


@pytest.mark.parametrize(
    ("status", "expires", "until"),
    [
        ("bounced", "relayd_now() + interval '90 days'", "until 20"),
        ("failed", "relayd_now() + interval '90 days'", "until 20"),
        ("bounced", "NULL", "until it is removed from the list"),
        ("bounced", "relayd_now() - interval '1 s'", None),
    ],
)
@pytest.mark.parametrize("stage", ["rcpt", "report"])
async def test_a_bounce_says_that_its_address_is_suppressed_as_long_as_it_is(
    control: Control, sender: Sender, status: str, expires: str, until: str | None, stage: str
) -> None:
    async with control.db.connection() as connection:
        message = await put(connection, sender, "You@example.net")
        await connection.execute(
            "UPDATE email_queue SET status = $1, reason = $2, failed_at = CASE $1 WHEN 'failed' THEN relayd_now() END,"
            " bounced_at = CASE $1 WHEN 'bounced' THEN relayd_now() END,"
            " sent_at = CASE WHEN $3 AND $1 = 'bounced' THEN relayd_now() END",
            status,
            "suppressed" if status == "failed" else "rcpt: 550 5.1.1 user unknown",
            stage == "report",
        )
        await connection.execute(
            "INSERT INTO suppressions (client_id, address, reason, fingerprint, expires_at)"
            f" SELECT client_id, 'you@example.net', 'hard_bounce', 1, {expires} FROM email_queue"
        )
    told = await explained(control, message.queue_id)
    claims = "You@example.net is now suppressed for client acme" in told["sentence"]
    assert claims is (until is not None)
    lift = "relayd suppression remove You@example.net --client acme"
    assert (lift in told["next_step"]) is claims
    assert f"relayd queue retry {message.entries[0].entry_id} --failed" in told["next_step"]
    if until:
        assert until in told["sentence"] and "reason: hard bounce" in told["sentence"]
        assert (await control.cli("suppression", "remove", "you@example.net", "--client", "acme")).code == 0
        after = await explained(control, message.queue_id)
        assert "is now suppressed" not in after["sentence"] and lift not in after["next_step"]
