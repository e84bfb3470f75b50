"""Credentials over the control socket."""

import json
from typing import Any

import pytest

from relayd.store import directory
from relayd.submission.auth import ScramVerifier, matches
from tests.integration.conftest import Control


@pytest.fixture
async def acme(control: Control) -> Control:
    for client, domain in (("acme", "example.com"), ("other", "example.org")):
        await control.ok("POST", "clients", {"name": client})
        await control.ok("POST", "domains", {"domain": domain, "client": client})
    return control


async def test_the_secret_opens_the_login_and_is_told_once(acme: Control) -> None:
    added = await acme.ok("POST", "credentials", {"login": "app", "client": "acme"})
    secret = added["secret"]
    assert await _opens(acme, "app", secret)
    for path in ("credentials", "credentials/app", "audit"):
        assert secret not in (await acme.request("GET", path)).text
    async with acme.db.connection() as connection:
        verifier = await connection.fetchrow("SELECT salt, stored_key, server_key FROM smtp_credentials")
        dumped = await connection.fetchval("SELECT string_agg(a::text, '') FROM audit_logs a")
    assert verifier is not None and secret not in dumped
    assert not [value for value in verifier if value.hex() in dumped]


async def test_a_new_secret_ends_the_old_one(acme: Control) -> None:
    first = (await acme.ok("POST", "credentials", {"login": "app", "client": "acme"}))["secret"]
    unchanged = await acme.ok("PATCH", "credentials/app", {"is_active": False})
    assert (unchanged["secret"], unchanged["credential"]["is_active"]) == (None, False)
    second = (await acme.ok("PATCH", "credentials/app", {"new_secret": True, "is_active": True}))["secret"]
    assert await _opens(acme, "app", second) and not await _opens(acme, "app", first)


async def test_senders_are_the_clients_own(acme: Control) -> None:
    senders = ["Example.com", "A@Example.com", "a@example.com"]
    added = await acme.ok("POST", "credentials", {"login": "app", "client": "acme", "senders": senders})
    assert added["credential"]["senders"] == ["example.com", "a@example.com"]
    for foreign in ("example.org", "a@example.org", "a@sub.example.com"):
        answer = await acme.request("PATCH", "credentials/app", {"senders": [foreign]})
        assert answer.status == 409 and "client acme has no domain" in answer.message
    assert (await acme.ok("PATCH", "credentials/app", {"senders": None}))["credential"]["senders"] is None


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"login": "a b"}, 422, "login"),
        ({"login": ""}, 422, "login"),
        ({"client": "nobody"}, 404, "nobody"),
        ({"senders": []}, 422, "senders"),
        ({"senders": ["not a sender"]}, 422, "senders"),
        ({"senders": "example.com"}, 422, "senders"),
        ({"password": "mine"}, 422, "password: is not known here"),
    ],
)
async def test_bad_values_are_refused(acme: Control, body: dict[str, Any], status: int, text: str) -> None:
    answer = await acme.request("POST", "credentials", {"login": "app", "client": "acme"} | body)
    assert answer.status == status and text in answer.message, answer.text
    assert (await acme.ok("GET", "credentials")) == {"items": []}


async def test_a_removed_login_opens_nothing_and_can_be_added_again(acme: Control) -> None:
    first = (await acme.ok("POST", "credentials", {"login": "app", "client": "acme"}))["secret"]
    await acme.ok("DELETE", "credentials/app")
    assert not await _opens(acme, "app", first)
    await acme.ok("POST", "credentials", {"login": "app", "client": "other"})
    assert (await acme.request("POST", "credentials", {"login": "app", "client": "acme"})).status == 409


async def test_the_command_line_shows_the_secret_on_adding_alone(acme: Control) -> None:
    added = await acme.cli("credential", "add", "app", "--client", "acme", "--sender", "example.com")
    secret = added.out.strip().splitlines()[-1].split()[-1]
    assert added.code == 0 and await _opens(acme, "app", secret)
    for argv in (("list",), ("show", "app"), ("list", "--json"), ("show", "app", "--json")):
        assert secret not in (await acme.cli("credential", *argv)).out
    rotated = json.loads((await acme.cli("credential", "set", "app", "--new-secret", "--any-sender", "--json")).out)
    assert rotated["credential"]["senders"] is None
    assert await _opens(acme, "app", rotated["secret"])


async def _opens(control: Control, login: str, secret: str) -> bool:
    async with control.db.connection() as connection:
        found = await directory.find_login(connection, login)
    if found is None:
        return False
    return matches(ScramVerifier(found.salt, found.iterations, found.stored_key, found.server_key), secret)


async def test_a_login_says_whether_long_lines_are_made_shorter_or_refused(acme: Control) -> None:
    assert (await acme.cli("credential", "add", "app", "--client", "acme")).code == 0
    assert "lines over 998 octets      are made shorter" in (await acme.cli("credential", "show", "app")).out
    assert (await acme.cli("credential", "set", "app", "--long-lines", "refuse")).code == 0
    assert "lines over 998 octets      are refused" in (await acme.cli("credential", "show", "app")).out
    assert (await acme.cli("credential", "set", "app", "--inactive")).code == 0
    assert (await acme.cli("credential", "add", "strict", "--client", "acme", "--long-lines", "refuse")).code == 0
    for login in ("app", "strict"):
        async with acme.db.connection() as connection:
            found = await directory.find_login(connection, login)
        assert found and found.refuses_long_lines
    assert (await acme.request("PATCH", "credentials/app", {"long_lines": "cut"})).status == 422
    audit = await acme.ok("GET", "audit", params={"table": "credential", "row": "app", "limit": 2})
    assert {each["column"] for each in audit["items"][1]["changes"]} == {"long_lines"}
