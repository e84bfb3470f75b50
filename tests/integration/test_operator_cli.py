"""The operator's commands as they are typed, and what an operator reads."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from relayd.store.queue import NewMessage
from tests.builders import CONTENT, Sender, claim_all, make_sender, put, put_many
from tests.command_line import run_in_terminal
from tests.integration.conftest import Control


@pytest.fixture
async def sender(control: Control) -> Sender:
    async with control.db.connection() as connection:
        return await make_sender(connection, daily_limit=50, time_zone="Europe/Berlin")


@pytest.fixture
async def message(control: Control, sender: Sender) -> NewMessage:
    async with control.db.connection() as connection:
        return await put(connection, sender, "ann@example.net", "bob@example.org")


async def in_terminal(control: Control, *argv: str, answer: str) -> tuple[int, str]:
    """Run a command whose stdin and stdout are a terminal, and type the answer to its question."""
    ran = await asyncio.to_thread(
        run_in_terminal, argv, answer=answer, environment={"RELAYD_SOCKET": str(control.socket)}
    )
    return ran.code, ran.out


async def test_a_filter_asks_before_it_acts(control: Control, message: NewMessage) -> None:
    argv = ("queue", "cancel", "--domain", "example.com")
    code, seen = await in_terminal(control, *argv, answer="n\n")
    assert (code, "cancel 2 entries? [y/N]" in seen, "nothing was changed" in seen) == (1, True, True)
    piped = await control.cli(*argv)
    assert piped.code == 1
    assert piped.err == "relayd: 2 entries match; nothing was changed\n  to cancel them: --count 2, or --yes\n"
    wrong = await control.cli(*argv, "--count", "3")
    assert (wrong.code, "2 entries match now, not 3; nothing was changed" in wrong.err) == (1, True)
    code, seen = await in_terminal(control, *argv, answer="y\n")
    assert (code, "2 entries cancelled" in seen) == (0, True), seen


async def test_yes_and_count_do_not_ask(control: Control, sender: Sender, message: NewMessage) -> None:
    held = await control.cli("queue", "hold", "--mailbox", sender.address, "--count", "2", "--reason", "wrong list")
    assert (held.code, held.out) == (0, "2 entries held\n")
    released = await control.cli("queue", "release", "--state", "pending", "--yes", "--json")
    assert json.loads(released.out)["changed"] == 2


async def test_ids_need_no_confirmation_and_what_is_in_flight_is_told(
    control: Control, sender: Sender, message: NewMessage
) -> None:
    async with control.db.connection() as connection:
        while not await claim_all(connection, sender.upstream_id):
            pass
        waiting = await put(connection, sender)
    ran = await control.cli("queue", "cancel", str(message.queue_id), waiting.queue_id.hex)
    assert (ran.code, ran.out) == (0, "1 entry cancelled\n2 are being sent right now and were left alone\n")


async def test_list_and_show_read_well(control: Control, sender: Sender, message: NewMessage) -> None:
    async with control.db.connection() as connection:
        await connection.execute(
            "UPDATE email_queue SET retry_count = 1, reason = $1, next_attempt_at = relayd_now() + interval '2 hours'"
            " WHERE id = $2",
            "rcpt: 450 try\nlater \x1b[31m",
            message.entries[0].entry_id,
        )
    listed = await control.cli("queue", "list", "--recipient", "@example.net")
    header, row = listed.out.splitlines()
    assert header.split() == ["ID", "AGE", "STATE", "MAILBOX", "RECIPIENT", "DUE", "REASON"]
    assert str(message.entries[0].entry_id) in row and " in 2 h " in row and "\x1b" not in row
    by_both = await control.cli("queue", "list", "--state", "queued", "--state", "pending", message.queue_id.hex)
    assert len(by_both.out.splitlines()) == 3
    more = await control.cli("queue", "list", "--limit", "1")
    assert "1 more; go on with --cursor queued." in more.err
    cursor = more.err.split()[-1]
    rest = await control.cli("queue", "list", "--limit", "1", "--cursor", cursor)
    assert len(rest.out.splitlines()) == 2 and rest.err.endswith("relayd explain ID\n")
    shown = await control.cli("queue", "show", message.queue_id.hex)
    lines = shown.out.splitlines()
    assert lines[0] == f"message {message.queue_id}: Hello"
    assert "ann@example.net: queued" in lines
    assert "  reason    rcpt: 450 try later \\x1b[31m" in lines
    assert "  attempts  1 of at most 51" in lines


async def test_explain_reads_well(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        messages = await put_many(connection, sender, 60)
        while await claim_all(connection, sender.upstream_id):
            pass
    ran = await control.cli("explain", str(messages[-1].queue_id))
    lines = ran.out.splitlines()
    assert lines[0] == f"message {messages[-1].queue_id}: Hello"
    assert "@example.net: limited, goes about 20" in lines[3]
    assert "mailbox noreply@example.com may send 50 a day and has sent 50" in lines[4]
    assert lines[5].startswith("  > mailbox noreply@example.com  50 of 50 a day, turns ")
    assert lines[6].endswith("queued")
    assert json.loads((await control.cli("explain", str(messages[-1].queue_id), "--json")).out)["total"] == 1


async def test_messages_are_found_shown_exported_and_sent_again(
    control: Control, message: NewMessage, tmp_path: Path
) -> None:
    found = await control.cli("message", "find", "--subject", "HELL", "--since", "1h")
    assert str(message.queue_id) in found.out and "2 queued" in found.out
    shown = await control.cli("message", "show", str(message.queue_id))
    assert "Message-ID" in shown.out and "bob@example.org: queued" in shown.out
    file = tmp_path / "message.eml"
    exported = await control.cli("message", "export", str(message.queue_id), "--output", str(file))
    assert exported.code == 0
    assert file.read_bytes() == CONTENT
    again = await control.cli("message", "export", str(message.queue_id), "-o", str(file))
    assert (again.code, "File exists" in again.err) == (1, True)
    resent = await control.cli("message", "resend", str(message.queue_id), "--recipient", "bob@example.org")
    assert resent.out.startswith("queued as ") and resent.out.endswith(" for bob@example.org\n")
    assert "relayd explain" in resent.err


async def test_export_writes_every_byte_to_stdout(control: Control, message: NewMessage) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relayd", "message", "export", str(message.queue_id)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "RELAYD_SOCKET": str(control.socket)},
    )
    out, _ = await process.communicate()
    assert out == CONTENT


async def test_pause_and_resume_say_what_they_did(control: Control, sender: Sender) -> None:
    for target in (("everything",), ("mailbox", sender.address), ("upstream", "capture")):
        what = " ".join(target)
        paused = await control.cli("pause", *target, "--reason", "storm")
        assert paused.out == f"{what} is paused (storm); what is in flight ends by itself\n"
        assert paused.err == f"to go on: relayd resume {what}\n"
        again = await control.cli("pause", *target)
        assert again.out.startswith(f"{what} was paused already") and "(storm); nothing was changed" in again.out
        assert (await control.cli("resume", *target)).out == f"{what} is resumed\n"
        assert (await control.cli("resume", *target)).out == f"{what} was not paused; nothing was changed\n"


async def test_status_reads_well_and_fails_without_a_database(control: Control, message: NewMessage) -> None:
    await control.cli("pause", "upstream", "capture", "--reason", "storm")
    ran = await control.cli("status")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "relayd 0.0.test on test-node"
    assert lines[1] == "  database  ok"
    assert lines[2].startswith("  queue     2 queued (the oldest for ") and lines[2].endswith("0 sending, 0 pending")
    assert lines[3] == "  24 hours  2 accepted, 0 sent, 0 deferred, 0 failed"
    assert lines[4].startswith("  upstream  capture (capture): 0 in flight, paused since ") and "storm" in lines[4]
    await control.db.close()
    down = await control.cli("status")
    assert (down.code, "database" in down.out) == (1, True)


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (("queue", "cancel"), 1, "say what to cancel"),
        (("queue", "show", "nonsense"), 1, "must be an id such as"),
        (("explain", "00000000-0000-0000-0000-000000000007"), 1, "no message and no queue entry has the id"),
        (("explain",), 2, ""),
        (("queue", "list", "--older-than", "soon"), 1, "is not a duration"),
        (("queue", "list", "--state", "gone"), 1, "states"),
        (("message", "find", "--since", "soon"), 1, "soon is no time"),
        (("pause", "mailbox", "x@example.com"), 1, "there is no mailbox x@example.com"),
        (("pause", "nothing"), 2, "nothing"),
    ],
)
async def test_bad_input_says_what_is_wrong(control: Control, argv: tuple[str, ...], code: int, text: str) -> None:
    ran = await control.cli(*argv)
    assert ran.code == code, ran
    assert text in ran.err and ran.out == ""
