"""What operators do to the queue, by HTTP, against the claim that would send it."""

import asyncio
import json
import os
from typing import Any
from uuid import UUID

import pytest

from relayd.store.connection import Connection
from relayd.store.operations import Operation, operate
from relayd.store.queue import NewMessage
from tests.builders import Sender, claim_all, make_sender, put, put_many
from tests.command_line import run_in_terminal
from tests.integration.conftest import Control


@pytest.fixture
async def sender(control: Control) -> Sender:
    async with control.db.connection() as connection:
        return await make_sender(connection)


@pytest.fixture
async def message(control: Control, sender: Sender) -> NewMessage:
    async with control.db.connection() as connection:
        return await put(connection, sender, "ann@example.net", "bob@example.org")


async def claimed(control: Control, sender: Sender) -> set[UUID]:
    async with control.db.connection() as connection:
        return {entry.entry_id for entry in await claim_all(connection, sender.upstream_id)}


async def states(control: Control) -> dict[str, int]:
    async with control.db.connection() as connection:
        rows = await connection.fetch("SELECT status, count(*) AS count FROM email_queue GROUP BY 1")
    return {row["status"]: row["count"] for row in rows}


async def audited(control: Control) -> list[tuple[str, Any]]:
    async with control.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT actor, row_name, after FROM audit_logs WHERE action = 'operate' ORDER BY id"
        )
    assert all(row["actor"].endswith(f"({os.getuid()})") for row in rows)
    return [(row["row_name"], row["after"]) for row in rows]


async def set_status(connection: Connection, entry_id: UUID, status: str) -> None:
    await connection.execute(
        """
        UPDATE email_queue
           SET status = $2, pending_reason = CASE $2 WHEN 'pending' THEN 'held' END,
               claimed_by = CASE $2 WHEN 'sending' THEN 'node:1:2' END,
               lease_expires_at = CASE $2 WHEN 'sending' THEN relayd_now() + interval '5 min' END,
               sent_at = CASE $2 WHEN 'sent' THEN relayd_now() END,
               failed_at = CASE $2 WHEN 'failed' THEN relayd_now() END,
               bounced_at = CASE WHEN $2 IN ('bounced', 'spam') THEN relayd_now() END
         WHERE id = $1
        """,
        entry_id,
        status,
    )


async def test_held_entries_are_not_claimed_and_released_ones_are(
    control: Control, sender: Sender, message: NewMessage
) -> None:
    held = await control.ok("POST", "queue/hold", {"ids": [str(message.queue_id)], "reason": "wrong list"})
    assert (held["changed"], held["needs_confirmation"]) == (2, False)
    assert await claimed(control, sender) == set()
    released = await control.ok("POST", "queue/release", {"ids": [str(message.entries[0].entry_id)]})
    assert released["changed"] == 1
    assert control.wakes
    assert await claimed(control, sender) == {message.entries[0].entry_id}
    log = (await control.ok("GET", f"queue/{message.entries[0].entry_id}"))["log"]
    assert [(row["event"], row["text"]) for row in log] == [
        ("queued", None),
        ("held", "wrong list"),
        ("released", None),
    ]
    assert log[1]["actor"].endswith(f"({os.getuid()})")


async def test_an_entry_in_doubt_is_released_to_be_sent_again(
    control: Control, sender: Sender, message: NewMessage
) -> None:
    async with control.db.connection() as connection:
        await connection.execute("UPDATE email_queue SET status = 'pending', pending_reason = 'uncertain'")
    await control.ok("POST", "queue/release", {"ids": [message.queue_id.hex]})
    assert len(await claimed(control, sender)) == 2


async def test_what_is_scheduled_goes_at_once_only_if_it_is_named(
    control: Control, sender: Sender, message: NewMessage
) -> None:
    async with control.db.connection() as connection:
        await connection.execute(
            "UPDATE email_queue SET status = 'pending', pending_reason = 'scheduled',"
            " next_attempt_at = relayd_now() + interval '1 day'"
        )
        await connection.execute("UPDATE mailbox_lanes SET due_at = 'infinity'")
    everything = {"states": ["pending"], "any_count": True}
    assert (await control.ok("POST", "queue/release", everything))["changed"] == 0
    assert (await control.ok("POST", "queue/release", {"ids": [str(message.entries[0].entry_id)]}))["changed"] == 1
    async with control.db.connection() as connection:
        due = await connection.fetch(
            "SELECT id FROM email_queue WHERE status = 'queued' AND next_attempt_at <= relayd_now()"
        )
        assert [row["id"] for row in due] == [message.entries[0].entry_id]
        lane_is_due = "SELECT due_at <= relayd_now() FROM mailbox_lanes WHERE id = $1"
        assert await connection.fetchval(lane_is_due, sender.mail_lane_id)
    assert (await control.ok("POST", "queue/cancel", {"ids": [str(message.queue_id)]}))["changed"] == 2


async def test_a_retried_entry_is_due_at_once_although_its_lane_slept(
    control: Control, sender: Sender, message: NewMessage
) -> None:
    async with control.db.connection() as connection:
        await connection.execute(
            "UPDATE email_queue SET next_attempt_at = relayd_now() + interval '3 h', retry_count = 4, reason = 'x'"
        )
        await connection.execute("UPDATE mailbox_lanes SET due_at = relayd_now() + interval '3 h'")
    assert await claimed(control, sender) == set()
    await control.ok("POST", "queue/retry", {"ids": [str(message.queue_id)]})
    assert len(await claimed(control, sender)) == 2
    async with control.db.connection() as connection:
        assert await connection.fetchval("SELECT min(retry_count) FROM email_queue") == 4, "it resets nothing else"


async def _fail_to_suppressed(control: Control, message: NewMessage) -> None:
    """Both recipients failed; ann@example.net is suppressed, bob@example.org was, for a time that is over."""
    async with control.db.connection() as connection:
        for entry in message.entries:
            await set_status(connection, entry.entry_id, "failed")
        await connection.execute(
            "INSERT INTO suppressions (client_id, address, reason, fingerprint, expires_at)"
            " SELECT client_id, lower(recipient_address), 'hard_bounce', 1, relayd_now() + CASE WHEN recipient_address"
            " LIKE 'ann%' THEN interval '90 days' ELSE interval '-1 day' END FROM email_queue"
        )


@pytest.mark.parametrize("by", ["ids", "filter"])
async def test_what_failed_is_not_retried_to_a_suppressed_address_unasked(
    control: Control, message: NewMessage, by: str
) -> None:
    await _fail_to_suppressed(control, message)
    chosen = {"ids": [str(message.queue_id)]} if by == "ids" else {"states": ["failed"], "any_count": True}
    body = {**chosen, "failed_too": True}
    asked = await control.ok("POST", "queue/retry", body)
    assert (asked["needs_confirmation"], asked["changed"], asked["selected"], asked["suppressed_count"]) == (
        True,
        0,
        2,
        1,
    )
    (line,) = asked["suppressed"]
    assert (line["recipient"], line["client"], line["reason"]) == ("ann@example.net", "acme", "hard_bounce")
    assert await states(control) == {"failed": 2}
    done = await control.ok("POST", "queue/retry", {**body, "suppressed_too": True})
    assert (done["needs_confirmation"], done["changed"], done["suppressed_count"]) == (False, 2, 0)


async def test_the_command_names_a_suppressed_address_and_says_what_to_do(
    control: Control, message: NewMessage
) -> None:
    await _fail_to_suppressed(control, message)
    argv = ("queue", "retry", str(message.queue_id), "--failed")
    ran = await control.cli(*argv)
    assert ran.code == 1
    assert "ann@example.net is suppressed for client acme until" in ran.err and "bob@" not in ran.err
    assert "1 entry would go to a suppressed address; nothing was changed" in ran.err
    assert "relayd suppression remove ann@example.net --client acme" in ran.err and "--yes" in ran.err
    as_json = await control.cli(*argv, "--json")
    assert as_json.code == 1
    assert json.loads(as_json.out)["suppressed"][0]["recipient"] == "ann@example.net"
    assert await states(control) == {"failed": 2}
    assert (await control.cli(*argv, "--yes")).code == 0
    assert await states(control) == {"queued": 2}


@pytest.mark.parametrize(("answer", "code", "state"), [("y\n", 0, "queued"), ("n\n", 1, "failed"), ("", 1, "failed")])
async def test_the_command_asks_on_a_terminal(
    control: Control, message: NewMessage, answer: str, code: int, state: str
) -> None:
    await _fail_to_suppressed(control, message)
    argv = ["queue", "retry", str(message.queue_id), "--failed"]
    socket = {"RELAYD_SOCKET": str(control.socket)}
    ran = await asyncio.to_thread(run_in_terminal, argv, answer=answer, environment=socket)
    assert ran.code == code
    assert "retry 2 entries (1 to a suppressed address)? [y/N]" in ran.out
    assert await states(control) == {state: 2}


async def test_a_retry_after_the_suppression_was_lifted_does_not_ask(control: Control, message: NewMessage) -> None:
    await _fail_to_suppressed(control, message)
    assert (await control.cli("suppression", "remove", "ann@example.net", "--client", "acme")).code == 0
    assert (await control.cli("queue", "retry", str(message.queue_id), "--failed")).code == 0
    assert await states(control) == {"queued": 2}


async def test_what_failed_is_retried_only_when_asked_and_with_a_fresh_budget(
    control: Control, sender: Sender, message: NewMessage
) -> None:
    failed, bounced = (entry.entry_id for entry in message.entries)
    async with control.db.connection() as connection:
        await set_status(connection, failed, "failed")
        await set_status(connection, bounced, "bounced")
        await connection.execute(
            "UPDATE email_queue SET retry_count = 51, first_attempt_at = relayd_now() - interval '9 days'"
        )
        await connection.execute("UPDATE mailbox_lanes SET due_at = 'infinity'")
    body: dict[str, Any] = {"ids": [str(message.queue_id)]}
    refused = await control.request("POST", "queue/retry", body)
    assert refused.status == 409
    assert "nothing to retry: 1 failed, 1 bounced; nothing was changed" in refused.message
    assert "--failed" in refused.message
    done = await control.ok("POST", "queue/retry", {**body, "failed_too": True})
    assert done["changed"] == 2
    async with control.db.connection() as connection:
        rows = await connection.fetch("SELECT * FROM email_queue")
    for row in rows:
        assert (row["retry_count"], row["first_attempt_at"], row["failed_at"], row["bounced_at"]) == (
            0,
            None,
            None,
            None,
        )
    assert await claimed(control, sender) == {failed, bounced}


async def test_cancelled_entries_end_without_a_bounce(control: Control, sender: Sender, message: NewMessage) -> None:
    done = await control.ok("POST", "queue/cancel", {"ids": [str(message.queue_id)]})
    assert done["changed"] == 2
    assert await states(control) == {"failed": 2}
    async with control.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM messages") == 1, "no DSN"
        assert set(await connection.fetchrow("SELECT DISTINCT reason FROM email_queue")) == {"cancelled"}
    assert await claimed(control, sender) == set()
    assert [name for name, _ in await audited(control)] == ["cancel"]


async def test_cancelled_mail_comes_back_only_by_its_id(control: Control, sender: Sender, message: NewMessage) -> None:
    await control.ok("POST", "queue/cancel", {"ids": [str(message.queue_id)]})
    by_filter = {"mailbox": sender.address, "failed_too": True, "any_count": True}
    assert (await control.ok("POST", "queue/retry", by_filter))["selected"] == 0
    by_id = {"ids": [str(message.queue_id)], "failed_too": True}
    assert (await control.ok("POST", "queue/retry", by_id))["changed"] == 2


@pytest.mark.parametrize(
    ("operation", "allowed"),
    [
        (Operation.HOLD, {"queued"}),
        (Operation.RELEASE, {"pending"}),
        (Operation.RETRY, {"queued"}),
        (Operation.CANCEL, {"pending", "queued"}),
    ],
)
async def test_an_operation_acts_on_no_other_state(
    control: Control, sender: Sender, operation: Operation, allowed: set[str]
) -> None:
    for status in ("pending", "queued", "sending", "sent", "failed", "bounced", "spam"):
        async with control.db.transaction() as connection:
            (entry,) = (await put(connection, sender)).entries
            await set_status(connection, entry.entry_id, status)
            changed = await operate(connection, operation, [entry.entry_id])
            assert changed == int(status in allowed), status
        if status not in allowed:
            answer = await control.request("POST", f"queue/{operation}", {"ids": [str(entry.entry_id)]})
            assert answer.status == 409
            assert f"nothing to {operation}: 1 {status}" in answer.message


async def test_a_filter_is_counted_first_and_acts_on_the_confirmed_count_alone(
    control: Control, sender: Sender, message: NewMessage
) -> None:
    body: dict[str, Any] = {"domain": "example.com"}
    counted = await control.ok("POST", "queue/cancel", body)
    assert (counted["selected"], counted["changed"], counted["needs_confirmation"]) == (2, 0, True)
    assert await states(control) == {"queued": 2}
    async with control.db.connection() as connection:
        await put(connection, sender)
    refused = await control.request("POST", "queue/cancel", {**body, "confirm_count": 2})
    assert refused.status == 409
    assert "3 entries match now, not 2; nothing was changed | if that is right: --count 3" in refused.message
    assert await states(control) == {"queued": 3}
    assert await audited(control) == []
    done = await control.ok("POST", "queue/cancel", {**body, "confirm_count": 3, "reason": "storm"})
    assert (done["changed"], done["cursor"]) == (3, None)
    assert await audited(control) == [("cancel", {"selected": 3, "domain": "example.com", "reason": "storm"})]


async def test_what_is_being_sent_is_left_alone_and_said_so(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        await put(connection, sender, "one@example.net", "two@example.net", "three@example.net")
        assert len(await claim_all(connection, sender.upstream_id)) == 3
        await put(connection, sender)
    done = await control.ok("POST", "queue/cancel", {"mailbox": sender.address, "any_count": True})
    assert (done["changed"], done["left_alone"]) == (1, {"sending": 3})
    assert await states(control) == {"sending": 3, "failed": 1}


async def test_batches_cover_five_thousand_entries(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        await put_many(connection, sender, 5_000)
    held = await control.ok("POST", "queue/hold", {"mailbox": sender.address, "confirm_count": 5_000})
    assert (held["changed"], held["cursor"]) == (5_000, None)
    assert await states(control) == {"pending": 5_000}
    released = await control.ok("POST", "queue/release", {"recipient": "@example.net", "any_count": True})
    assert released["changed"] == 5_000
    assert len(await audited(control)) == 2
    cancelled = await control.ok("POST", "queue/cancel", {"states": ["queued"], "any_count": True})
    assert cancelled["changed"] == 5_000
    async with control.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM email_delivery_logs WHERE event = 'cancelled'") == 5_000


async def test_a_request_that_runs_out_of_time_goes_on_from_its_cursor(
    control: Control, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relayd.control.queue_operations._SECONDS", 0.0)
    async with control.db.connection() as connection:
        await put_many(connection, sender, 2_500)
    body: dict[str, Any] = {"mailbox": sender.address, "confirm_count": 2_500}
    first = await control.ok("POST", "queue/retry", body)
    assert first["changed"] == 1_000
    async with control.db.connection() as connection:
        await put(connection, sender)
    second = await control.ok("POST", "queue/retry", {**body, "cursor": first["cursor"]})
    third = await control.ok("POST", "queue/retry", {**body, "cursor": second["cursor"]})
    assert (second["changed"], third["changed"], third["cursor"]) == (1_000, 500, None)
    assert len(await audited(control)) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("queue/cancel", {}, 422, "say which entries"),
        ("queue/cancel", {"ids": ["nonsense"]}, 422, "must be an id such as"),
        ("queue/cancel", {"ids": [str(UUID(int=7))]}, 404, f"no message and no queue entry has the id {UUID(int=7)}"),
        ("queue/cancel", {"mailbox": "nobody@example.com"}, 404, "there is no mailbox nobody@example.com"),
        ("queue/cancel", {"states": ["gone"]}, 422, "'queued'"),
        ("queue/cancel", {"older_than": "soon"}, 422, "is not a duration"),
        ("queue/hold", {"states": ["sent"]}, 409, "hold acts on entries that are queued, not on sent"),
        ("queue/cancel", {"states": ["queued"], "cursor": "x.y"}, 422, "the cursor is not one that relayd gave"),
    ],
)
async def test_bad_requests_say_what_is_wrong(
    control: Control, message: NewMessage, path: str, body: Any, status: int, text: str
) -> None:
    answer = await control.request("POST", path, body)
    assert answer.status == status, answer.text
    assert text in answer.message
    assert await states(control) == {"queued": 2}


async def test_list_pages_through_the_queue_and_says_how_many_more(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        messages = await put_many(connection, sender, 7)
    page = await control.ok("GET", "queue", params={"limit": 3})
    assert (len(page["items"]), page["total"], page["more"]) == (3, 7, 4)
    seen = [item["entry_id"] for item in page["items"]]
    while page["cursor"]:
        page = await control.ok("GET", "queue", params={"limit": 3, "cursor": page["cursor"]})
        seen += [item["entry_id"] for item in page["items"]]
    assert page["more"] == 0
    assert sorted(seen) == sorted(str(message.entries[0].entry_id) for message in messages)


async def test_list_takes_filters_and_ended_states(control: Control, sender: Sender, message: NewMessage) -> None:
    await control.ok("POST", "queue/cancel", {"ids": [str(message.entries[0].entry_id)]})
    listed = await control.ok("GET", "queue", params=[("states", "failed"), ("states", "sent")])
    assert [item["recipient"] for item in listed["items"]] == ["ann@example.net"]
    assert "last 7 d" in listed["note"]
    live = await control.ok("GET", "queue", params={"recipient": "@example.org", "younger_than": "1h"})
    assert [item["recipient"] for item in live["items"]] == ["bob@example.org"]
    assert live["note"] is None
    by_id = await control.ok("GET", "queue", params={"ids": message.queue_id.hex})
    assert by_id["total"] == 2


async def test_show_takes_ids_with_and_without_dashes(control: Control, message: NewMessage) -> None:
    for text in (str(message.queue_id), message.queue_id.hex, message.queue_id.hex.upper()):
        shown = await control.ok("GET", f"queue/{text}")
        assert [entry["recipient"] for entry in shown["entries"]] == ["ann@example.net", "bob@example.org"]
    one = await control.ok("GET", f"queue/{message.entries[1].entry_id.hex}")
    assert [entry["recipient"] for entry in one["entries"]] == ["bob@example.org"]
    assert [row["event"] for row in one["log"]] == ["queued"]
    unknown = await control.request("GET", f"queue/{UUID(int=7)}")
    assert unknown.status == 404
    assert "no message and no queue entry has the id" in unknown.message


@pytest.mark.parametrize(
    "spoil", ["UPDATE email_mailboxes SET deleted_at = relayd_now()", "DELETE FROM message_bodies"]
)
async def test_what_can_no_longer_be_sent_is_not_retried(
    control: Control, sender: Sender, message: NewMessage, spoil: str
) -> None:
    await control.ok("POST", "queue/cancel", {"ids": [str(message.queue_id)]})
    async with control.db.connection() as connection:
        await connection.execute(spoil)
    done = await control.ok("POST", "queue/retry", {"ids": [str(message.queue_id)], "failed_too": True})
    assert (done["selected"], done["changed"]) == (2, 0)
    assert await states(control) == {"failed": 2}
