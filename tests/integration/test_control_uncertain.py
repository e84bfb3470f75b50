"""`relayd queue uncertain`: what is in doubt, and an operator's word on it."""

from datetime import UTC, datetime

import pytest

from relayd.intake.bounce import Bouncer
from relayd.intake.signer import Signer
from relayd.store.queue import NewMessage
from tests.builders import make_sender, put
from tests.integration.conftest import Control

IN_DOUBT = """
UPDATE email_queue SET status = 'pending', pending_reason = 'uncertain', reason = 'dot: connection lost',
       upstream_id = (SELECT id FROM email_configurations), first_attempt_at = relayd_now(), retry_count = 1
 WHERE message_id = $1
"""


@pytest.fixture
async def message(control: Control) -> NewMessage:
    async with control.db.connection() as connection:
        sender = await make_sender(connection)
        await put(connection, sender, "queued@example.net")
        message = await put(connection, sender, "a@example.net", "b@example.net")
        await connection.execute(IN_DOUBT, message.queue_id)
        return message


async def statuses(control: Control, message: NewMessage) -> list[str]:
    async with control.db.connection() as connection:
        rows = await connection.fetch("SELECT status FROM email_queue WHERE message_id = $1", message.queue_id)
        return [row["status"] for row in rows]


async def test_what_is_in_doubt_is_listed_and_nothing_else(control: Control, message: NewMessage) -> None:
    page = await control.ok("GET", "queue/uncertain")
    assert {row["recipient"] for row in page["items"]} == {"a@example.net", "b@example.net"}
    assert {row["look_at"] for row in page["items"]} == {None}
    ran = await control.cli("queue", "uncertain", "list")
    assert ran.code == 0 and "a@example.net" in ran.out and "queued@example.net" not in ran.out
    assert "relayd queue uncertain resolve ID --as sent|retry|failed" in ran.err


@pytest.mark.parametrize(("word", "status"), [("sent", "sent"), ("retry", "queued"), ("failed", "failed")])
async def test_an_operator_decides_and_it_is_audited(
    control: Control, message: NewMessage, word: str, status: str
) -> None:
    ran = await control.cli("queue", "uncertain", "resolve", str(message.queue_id), "--as", word, "--reason", "saw it")
    assert ran.code == 0 and "2 entries resolved" in ran.out, ran.err
    assert await statuses(control, message) == [status, status]
    log = (await control.ok("GET", f"queue/{message.entries[0].entry_id}"))["log"]
    resolved = next(row for row in log if row["event"] == "resolved")
    assert resolved["text"] == f"{word}: an operator says so: saw it" and resolved["actor"]
    (row,) = [each for each in (await control.ok("GET", "audit"))["items"] if each["action"] == "operate"]
    assert f"resolve as {word}" in row.values() and "saw it" in str(row)
    assert control.wakes
    again = await control.request("POST", "queue/uncertain/resolve", {"ids": [str(message.queue_id)], "answer": word})
    assert again.status >= 400 and f"nothing is in doubt: 2 {status}" in again.message


async def test_what_is_called_failed_tells_its_sender(control: Control, message: NewMessage) -> None:
    signer = Signer(control.db, control.house.seal)
    bouncer = Bouncer(control.db, signer, host="relay.test", max_retries=5, now=lambda: datetime.now(UTC))
    object.__setattr__(control.house, "bouncer", bouncer)
    body = {"ids": [str(message.queue_id)], "answer": "failed"}
    assert (await control.ok("POST", "queue/uncertain/resolve", body))["changed"] == 2
    async with control.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM messages WHERE origin = 'dsn'") == 1


async def test_a_filter_acts_on_a_count_that_was_confirmed(control: Control, message: NewMessage) -> None:
    asked = {"mailbox": "noreply@example.com", "answer": "sent"}
    first = await control.ok("POST", "queue/uncertain/resolve", asked)
    assert first["needs_confirmation"] and (first["selected"], first["changed"]) == (2, 0)
    wrong = await control.request("POST", "queue/uncertain/resolve", {**asked, "confirm_count": 3})
    assert wrong.status >= 400 and "2 entries are in doubt now" in wrong.message
    assert (await control.ok("POST", "queue/uncertain/resolve", {**asked, "confirm_count": 2}))["changed"] == 2


async def test_nothing_said_is_no_answer(control: Control, message: NewMessage) -> None:
    ran = await control.cli("queue", "uncertain", "resolve", "--as", "sent")
    assert ran.code == 1 and "say what to resolve" in ran.err
    ran = await control.cli("queue", "uncertain", "resolve", str(message.queue_id), "--as", "maybe")
    assert ran.code == 2
