"""Finding, showing, exporting and resending messages, by HTTP."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from relayd.store.queue import NewMessage
from tests.builders import Sender, claim_all, make_sender, put
from tests.integration.conftest import Control

EVERY_BYTE = b"From: app@example.com\r\n\r\n" + bytes(range(1, 256)) * 10


@pytest.fixture
async def sender(control: Control) -> Sender:
    async with control.db.connection() as connection:
        return await make_sender(connection)


async def found(control: Control, **query: Any) -> set[str]:
    answer = await control.ok("GET", "messages", params=query)
    return {item["subject"] for item in answer["items"]}


async def test_find_by_each_criterion(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        other = await make_sender(connection, "news@other.example")
        invoice = await put(
            connection,
            sender,
            "Ann@Example.NET",
            "bob@example.org",
            subject="Invoice 100%",
            reverse_path="b@example.com",
        )
        await put(connection, other, "carl@sub.example.net", subject="Weekly news", reverse_path=None)
    await control.ok("POST", "queue/hold", {"ids": [str(invoice.queue_id)]})
    both = {"Invoice 100%", "Weekly news"}
    now = datetime.now(UTC)
    cases: list[tuple[dict[str, str], set[str]]] = [
        ({}, both),
        ({"recipient": "ann@example.net"}, {"Invoice 100%"}),
        ({"recipient": "@sub.example.net"}, {"Weekly news"}),
        ({"sender": "NEWS@other.example"}, {"Weekly news"}),
        ({"sender": "b@example.com"}, {"Invoice 100%"}),
        ({"sender": "@example.com"}, {"Invoice 100%"}),
        ({"subject": "100%"}, {"Invoice 100%"}),
        ({"subject": "NEWS"}, {"Weekly news"}),
        ({"subject": "_"}, set()),
        ({"message_id": invoice.message_id_header}, {"Invoice 100%"}),
        ({"message_id": invoice.message_id_header.strip("<>")}, {"Invoice 100%"}),
        ({"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}, both),
        ({"since": (now + timedelta(minutes=5)).isoformat()}, set()),
        ({"until": "2020-01-01T00:00:00"}, set()),
        ({"state": "pending"}, {"Invoice 100%"}),
        ({"state": "queued", "subject": "news"}, {"Weekly news"}),
    ]
    for query, expected in cases:
        assert await found(control, **query) == expected, query


async def test_find_looks_back_seven_days_and_says_so(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        old = await put(connection, sender, "old@example.net", subject="old")
        await connection.execute("UPDATE relayd_state SET clock_offset = '8 days'")
        await put(connection, sender, "new@example.net", subject="new")
    answer = await control.ok("GET", "messages")
    assert [item["subject"] for item in answer["items"]] == ["new"]
    assert "(7 days); --since looks further" in answer["note"]
    for selective in ({"recipient": "old@example.net"}, {"message_id": old.message_id_header}):
        answer = await control.ok("GET", "messages", params=selective)
        assert [item["subject"] for item in answer["items"]] == ["old"]
        assert answer["note"] is None
    async with control.db.connection() as connection:
        since = await connection.fetchval("SELECT relayd_now() - interval '9 days'")
    assert await found(control, since=since.isoformat()) == {"old", "new"}


async def test_find_lists_the_newest_first_and_says_when_there_are_more(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        for number in range(3):
            await put(connection, sender, subject=f"number {number}")
    answer = await control.ok("GET", "messages", params={"limit": 2})
    assert ([item["subject"] for item in answer["items"]], answer["more"]) == (["number 2", "number 1"], True)


async def test_show_has_facts_entries_and_log(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        message = await put(connection, sender, "ann@example.net", "bob@example.org")
    await control.ok("POST", "queue/cancel", {"ids": [str(message.entries[0].entry_id)]})
    for text in (str(message.queue_id), message.queue_id.hex, str(message.entries[1].entry_id)):
        shown = await control.ok("GET", f"messages/{text}")
        assert shown["message"]["states"] == {"failed": 1, "queued": 1}
        assert shown["message"]["header_from"] == sender.address
        assert [entry["status"] for entry in shown["entries"]] == ["failed", "queued"]
        assert [row["event"] for row in shown["log"]] == ["queued", "cancelled", "queued"]
    unknown = await control.request("GET", f"messages/{UUID(int=7)}")
    assert (unknown.status, "no message and no queue entry" in unknown.message) == (404, True)


async def test_export_answers_exactly_the_stored_bytes(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        message = await put(connection, sender, content=EVERY_BYTE)
    url = f"http://relayd/v1/messages/{message.queue_id}/content"
    async with control.session.get(url) as response:
        assert (response.status, response.content_type) == (200, "application/octet-stream")
        assert await response.read() == EVERY_BYTE
    assert (await control.request("GET", f"messages/{UUID(int=7)}/content")).status == 404
    async with control.db.connection() as connection:
        await connection.execute("DELETE FROM message_bodies")
    gone = await control.request("GET", f"messages/{message.queue_id}/content")
    assert (gone.status, "its bytes have been removed" in gone.message) == (404, True)


async def test_resend_makes_a_new_message_of_the_same_bytes(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        original = await put(connection, sender, "Ann@example.net", "bob@example.org", content=EVERY_BYTE)
        await claim_all(connection, sender.upstream_id)
        await connection.execute("UPDATE mailbox_lanes SET due_at = 'infinity'")
    answer = await control.ok("POST", f"messages/{original.queue_id}/resend", {"recipients": ["ann@EXAMPLE.net"]})
    assert answer["recipients"] == ["Ann@example.net"]
    assert control.wakes
    async with control.db.connection() as connection:
        (entry,) = await claim_all(connection, sender.upstream_id)
        row = await connection.fetchrow(
            "SELECT m.*, b.content FROM messages m JOIN message_bodies b ON b.message_id = m.id WHERE m.id = $1",
            UUID(answer["queue_id"]),
        )
        audited = await connection.fetchval("SELECT after FROM audit_logs WHERE row_name = 'resend'")
    assert row is not None
    assert entry.queue_id == row["id"] != original.queue_id
    assert (row["origin"], row["parent_id"]) == ("resend", original.queue_id)
    assert hashlib.sha256(row["content"]).digest() == hashlib.sha256(EVERY_BYTE).digest()
    assert (row["reverse_path"], row["header_from"]) == ("bounces@example.com", sender.address)
    assert audited["resent_as"] == answer["queue_id"]
    everyone = await control.ok("POST", f"messages/{original.queue_id}/resend")
    assert everyone["recipients"] == ["Ann@example.net", "bob@example.org"]


async def test_a_resent_bounce_keeps_to_the_lane_of_bounces(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        bounce = await put(connection, sender, reverse_path=None)
        await connection.execute("UPDATE email_queue SET lane_id = $1", sender.dsn_lane_id)
    answer = await control.ok("POST", f"messages/{bounce.queue_id}/resend")
    async with control.db.connection() as connection:
        query = "SELECT lane_id FROM email_queue WHERE message_id = $1"
        assert await connection.fetchval(query, UUID(answer["queue_id"])) == sender.dsn_lane_id


async def message_count(control: Control) -> int:
    async with control.db.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM messages")
        return count


@pytest.mark.parametrize(
    ("spoil", "body", "text"),
    [
        ("UPDATE email_mailboxes SET deleted_at = relayd_now()", {}, "mailbox noreply@example.com, which sent message"),
        ("DELETE FROM message_bodies", {}, "have been removed; it cannot be sent again"),
        ("SELECT 1", {"recipients": ["eve@example.com"]}, "was not for eve@example.com"),
    ],
)
async def test_resend_is_refused_with_the_reason(
    control: Control, sender: Sender, spoil: str, body: dict[str, Any], text: str
) -> None:
    async with control.db.connection() as connection:
        message: NewMessage = await put(connection, sender)
        await connection.execute(spoil)
    answer = await control.request("POST", f"messages/{message.queue_id}/resend", body)
    assert answer.status == 409
    assert text in answer.message
    assert await message_count(control) == 1
