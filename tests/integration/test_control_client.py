"""Clients by HTTP and by command line."""

import json
import os

from tests.integration.conftest import Control


async def test_a_client_is_added_shown_changed_and_removed(control: Control) -> None:
    added = await control.ok("POST", "clients", {"name": "acme"})
    assert (added["tier"], added["status"], added["may_send_bounces"]) == ("Ignition", "active", False)
    changed = await control.ok("PATCH", "clients/acme", {"status": "suspended", "may_send_bounces": True})
    assert (changed["tier"], changed["status"], changed["may_send_bounces"]) == ("Ignition", "suspended", True)
    assert control.wakes
    shown = await control.ok("GET", "clients/acme")
    assert shown == {
        **changed,
        **{noun: shown[noun] for noun in ("domains", "mailboxes", "dedicated_ips")},
        "used": 0,
        "turns_at": None,
    }
    assert (await control.ok("DELETE", "clients/acme")) == {"name": "acme"}
    assert (await control.ok("GET", "clients")) == {"items": []}


async def test_a_removed_name_can_be_added_again(control: Control) -> None:
    first = await control.ok("POST", "clients", {"name": "acme"})
    assert (await control.request("POST", "clients", {"name": "acme"})).status == 409
    await control.ok("DELETE", "clients/acme")
    second = await control.ok("POST", "clients", {"name": "acme"})
    assert first["id"] != second["id"]


async def test_an_unknown_name_is_answered_with_the_names_there_are(control: Control) -> None:
    for name in "abcdefg":
        await control.ok("POST", "clients", {"name": name})
    for method, body in (("GET", None), ("PATCH", {"tier": "Velocity"}), ("DELETE", None)):
        answer = await control.request(method, "clients/zz", body)
        assert answer.status == 404
        assert "there is no client zz; there are: a, b, c, d, e, …" in answer.message


async def test_bad_values_are_all_listed_and_nothing_is_changed(control: Control) -> None:
    answer = await control.request("POST", "clients", {"name": "A b", "tier": 7, "bounces": True})
    assert answer.status == 422
    assert [each["field"] for each in answer.data["error"]["fields"]] == ["name", "tier", "bounces"]
    assert (await control.request("PATCH", "clients/acme", {})).status == 422
    assert (await control.ok("GET", "clients")) == {"items": []}


async def test_the_peer_is_the_audits_actor(control: Control) -> None:
    await control.ok("POST", "clients", {"name": "acme"})
    async with control.db.connection() as connection:
        actor = await connection.fetchval("SELECT actor FROM audit_logs WHERE table_name = 'clients'")
    assert actor.endswith(f"({os.getuid()})")


async def test_the_command_line_adds_lists_and_shows(control: Control) -> None:
    ran = await control.cli("client", "add", "acme", "--tier", "Velocity")
    assert (ran.code, ran.out) == (0, "client acme added\n")
    assert "relayd domain add" in ran.err
    listed = await control.cli("client", "list")
    assert listed.out.splitlines()[1].split()[:3] == ["acme", "Velocity", "active"]
    shown = await control.cli("client", "show", "acme", "--json")
    assert json.loads(shown.out)["tier"] == "Velocity"


async def test_the_command_line_fails_on_stderr_with_an_exit_code(control: Control) -> None:
    cases = (
        (
            ("client", "show", "nobody"),
            1,
            "there is no client nobody, nor any other\n  add it: relayd client add nobody",
        ),
        (("client", "add", "Not A Name"), 1, "name:"),
        (("client", "set", "acme"), 1, "nothing to change"),
        (("client", "show"), 2, "NAME"),
        (("client", "frobnicate"), 2, "frobnicate"),
        (("client", "list", "--socket", "/nonexistent/relayd.sock"), 1, "relayd is not running here"),
    )
    for argv, code, text in cases:
        ran = await control.cli(*argv)
        assert (ran.code, ran.out) == (code, ""), argv
        assert ran.err.startswith("relayd: ") and text in ran.err, ran.err
