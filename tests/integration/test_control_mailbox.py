"""Mailboxes over the control socket."""

from datetime import UTC, datetime
from typing import Any

import pytest

from relayd.mail.address import Address
from relayd.store import directory, queue
from relayd.store.ids import new_id
from tests.integration.conftest import Control


@pytest.fixture
async def acme(control: Control) -> Control:
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    await control.ok("POST", "upstreams", {"name": "out", "provider": "smtp_relay", "host": "smtp.example.net"})
    return control


async def test_a_mailbox_belongs_to_its_domains_client_and_has_the_only_upstream(acme: Control) -> None:
    added = await acme.ok("POST", "mailboxes", {"email_address": "NoReply@Example.com"})
    assert (added["email_address"], added["client"], added["upstream"]) == ("NoReply@example.com", "acme", "out")
    assert (added["daily_send_limit"], added["used"], added["time_zone"]) == (10, 0, "UTC")
    assert (await acme.request("POST", "mailboxes", {"email_address": "noreply@example.com"})).status == 409
    assert (await acme.ok("GET", "mailboxes/NOREPLY@example.com")) == added | {"inbox": None}


async def test_a_mailbox_is_kept_in_its_plainest_spelling(acme: Control) -> None:
    await acme.ok("POST", "domains", {"domain": "xn--bcher-kva.example", "client": "acme"})
    added = await acme.ok("POST", "mailboxes", {"email_address": '"App"@Bücher.example'})
    assert added["email_address"] == "App@xn--bcher-kva.example"


async def test_an_unknown_domain_names_the_command_that_adds_it(acme: Control) -> None:
    answer = await acme.request("POST", "mailboxes", {"email_address": "a@example.org"})
    assert answer.status == 404 and "relayd domain add example.org" in answer.message


async def test_the_upstream_must_be_clear_and_the_clients(acme: Control) -> None:
    await acme.ok("POST", "clients", {"name": "other"})
    await acme.ok("POST", "upstreams", {"name": "theirs", "provider": "capture", "directory": "/m", "client": "other"})
    await acme.ok("POST", "mailboxes", {"email_address": "a@example.com"})
    answer = await acme.request("POST", "mailboxes", {"email_address": "b@example.com", "upstream": "theirs"})
    assert answer.status == 409 and "belongs to client other" in answer.message
    await acme.ok("POST", "upstreams", {"name": "more", "provider": "capture", "directory": "/m"})
    answer = await acme.request("POST", "mailboxes", {"email_address": "b@example.com"})
    assert answer.status == 409 and "more, out" in answer.message and "--upstream" in answer.message
    answer = await acme.request("POST", "mailboxes", {"email_address": "b@example.com", "upstream": "zz"})
    assert answer.status == 404


async def test_without_any_upstream_the_answer_says_how_to_add_one(acme: Control) -> None:
    await acme.ok("DELETE", "upstreams/out")
    answer = await acme.request("POST", "mailboxes", {"email_address": "a@example.com"})
    assert answer.status == 409 and "relayd upstream add" in answer.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"email_address": "nobody"}, "email_address"),
        ({"email_address": "a b@example.com"}, "email_address"),
        ({"daily_send_limit": -1}, "daily_send_limit"),
        ({"daily_send_limit": "5"}, "daily_send_limit"),
        ({"daily_send_limit": 2**40}, "daily_send_limit"),
        ({"daily_send_limit": True}, "daily_send_limit"),
        ({"time_zone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"time_zone": "XYZ5"}, "XYZ5"),
        ({"display_name": "a\u0000b"}, "display_name"),
        ({"display_name": "x" * 300}, "display_name"),
    ],
)
async def test_bad_values_are_refused(acme: Control, body: dict[str, Any], text: str) -> None:
    answer = await acme.request("POST", "mailboxes", {"email_address": "a@example.com"} | body)
    assert answer.status == 422 and text in answer.message, answer.text
    assert (await acme.ok("GET", "mailboxes")) == {"items": []}


async def test_everything_but_the_address_can_be_changed(acme: Control) -> None:
    await acme.ok("POST", "upstreams", {"name": "box", "provider": "capture", "directory": "/m"})
    await acme.ok("POST", "mailboxes", {"email_address": "a@example.com", "upstream": "out"})
    wanted = {
        "display_name": "Ann",
        "upstream": "box",
        "daily_send_limit": None,
        "time_zone": "Europe/Berlin",
        "is_default": True,
        "status": "paused",
        "status_reason": "holiday",
    }
    changed = await acme.ok("PATCH", "mailboxes/a@example.com", wanted)
    assert {name: changed[name] for name in wanted} == wanted
    assert acme.wakes
    back = await acme.ok("PATCH", "mailboxes/a@example.com", {"status": "active", "is_default": False})
    assert (back["status_reason"], back["is_default"], back["display_name"]) == (None, False, "Ann")
    answer = await acme.request("PATCH", "mailboxes/a@example.com", {"time_zone": "Nowhere", "display_name": "B"})
    assert answer.status == 422
    assert (await acme.ok("GET", "mailboxes/a@example.com"))["display_name"] == "Ann"


async def test_a_new_display_name_leaves_a_parked_lane_parked(acme: Control) -> None:
    await acme.ok("POST", "mailboxes", {"email_address": "a@example.com"})
    async with acme.db.connection() as connection:
        until = datetime(2199, 1, 1, tzinfo=UTC)
        await connection.execute("UPDATE mailbox_lanes SET blocked_until = $1, blocked_reason = 'quota'", until)
        await acme.ok("PATCH", "mailboxes/a@example.com", {"display_name": "Ann"})
        assert {row[0] for row in await connection.fetch("SELECT blocked_until FROM mailbox_lanes")} == {until}
        await acme.ok("PATCH", "mailboxes/a@example.com", {"daily_send_limit": 20})
        assert until not in {row[0] for row in await connection.fetch("SELECT blocked_until FROM mailbox_lanes")}


@pytest.mark.parametrize(
    ("status", "columns"),
    [
        ("queued", ""),
        ("pending", ", pending_reason = 'held'"),
        ("sending", ", claimed_by = 'w', lease_expires_at = relayd_now()"),
    ],
)
async def test_a_mailbox_with_live_mail_stays(acme: Control, status: str, columns: str) -> None:
    await acme.ok("POST", "mailboxes", {"email_address": "a@example.com"})
    await _enqueue(acme, "a@example.com", recipients=2)
    async with acme.db.connection() as connection:
        await connection.execute(f"UPDATE email_queue SET status = '{status}'{columns}")
        answer = await acme.request("DELETE", "mailboxes/a@example.com")
        assert answer.status == 409 and f"2 recipients still to be sent to (2 {status})" in answer.message
        assert "relayd queue list --mailbox a@example.com" in answer.message
        await connection.execute(
            "UPDATE email_queue SET status = 'sent', sent_at = relayd_now(), pending_reason = NULL,"
            " claimed_by = NULL, lease_expires_at = NULL"
        )
    await acme.ok("DELETE", "mailboxes/a@example.com")
    assert (await acme.request("GET", "mailboxes/a@example.com")).status == 404
    await acme.ok("POST", "mailboxes", {"email_address": "a@example.com"})


async def test_addresses_with_odd_characters_can_be_named_in_a_path(acme: Control) -> None:
    for local_part in ("a/b", "a%2Fb", "a?b", "a#b", "{a}", "ä"):
        await acme.ok("POST", "mailboxes", {"email_address": f"{local_part}@example.com"})
        assert (await acme.cli("mailbox", "show", f"{local_part}@example.com")).code == 0
        removed = await acme.cli("mailbox", "remove", f"{local_part}@example.com")
        assert removed.out == f"mailbox {local_part}@example.com removed\n", removed.err


async def test_the_command_line_adds_lists_and_sets(acme: Control) -> None:
    added = await acme.cli("mailbox", "add", "a@example.com", "--daily-limit", "unlimited", "--default")
    assert added.code == 0, added.err
    assert "unlimited" in (await acme.cli("mailbox", "list", "--domain", "example.com")).out
    assert (await acme.cli("mailbox", "set", "a@example.com", "--daily-limit", "50", "--no-default")).code == 0
    shown = await acme.ok("GET", "mailboxes/a@example.com")
    assert (shown["daily_send_limit"], shown["is_default"]) == (50, False)
    bad = await acme.cli("mailbox", "set", "a@example.com", "--daily-limit", "many")
    assert bad.code == 2 and "many" in bad.err


async def _enqueue(control: Control, address: str, *, recipients: int) -> None:
    async with control.db.connection() as connection:
        mailbox = await directory.find_mailbox(connection, Address.parse(address))
        assert mailbox is not None
        message = queue.NewMessage(
            queue_id=new_id(),
            client_id=mailbox.client_id,
            mailbox_id=mailbox.id,
            lane_id=mailbox.mail_lane_id,
            credential_id=None,
            origin="submission",
            reverse_path=mailbox.address,
            header_from=mailbox.address,
            message_id_header="<1@example.com>",
            subject="",
            content=b"From: a@example.com\r\n\r\nx\r\n",
            smtputf8=False,
            body_8bitmime=False,
            parent_id=None,
            helo="test",
            peer="192.0.2.1",
            max_retries=5,
            entries=tuple(
                queue.NewEntry(new_id(), Address.parse(f"r{number}@example.net")) for number in range(recipients)
            ),
        )
        await queue.enqueue(connection, [message])


async def test_a_mailbox_says_what_becomes_of_eight_bit_bodies(acme: Control) -> None:
    assert (await acme.cli("mailbox", "add", "a@example.com")).code == 0
    assert (await acme.cli("mailbox", "add", "b@example.com", "--eight-bit", "convert")).code == 0
    shown = [(await acme.cli("mailbox", "show", f"{name}@example.com")).out for name in "ab"]
    lines = [next(line for line in text.splitlines() if line.startswith("8-bit bodies")) for text in shown]
    assert [line.split()[2:] for line in lines] == [["are", "kept"], ["are", "converted"]]
    before = (await acme.ok("GET", "mailboxes/a@example.com"))["updated_at"]
    changed = await acme.ok("PATCH", "mailboxes/a@example.com", {"eight_bit": "convert"})
    assert changed["eight_bit"] == "convert" and changed["updated_at"] > before
    assert (await acme.request("PATCH", "mailboxes/a@example.com", {"eight_bit": "drop"})).status == 422
    audit = await acme.ok("GET", "audit", params={"table": "mailbox", "row": "a@example.com", "limit": 1})
    assert {each["column"] for each in audit["items"][0]["changes"]} == {"eight_bit"}
    async with acme.db.connection() as connection:
        found = await directory.find_mailbox(connection, Address.parse("a@example.com"))
    assert found and found.converts_eight_bit
