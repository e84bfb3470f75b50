"""Logging an upstream in: by browser, by pasted code, by a service account's key; and everything that goes wrong."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from relayd.control.pending_logins import LIFE_SECONDS, PendingLogins
from relayd.errors import Refusal
from relayd.store import upstreams
from relayd.store.ids import new_id
from relayd.store.upstreams import UpstreamRecord
from tests.conftest import at_length
from tests.integration.conftest import Control
from tests.peers.google_oauth import Answer, Endless, GoogleOauth
from tests.peers.mail import Authority

REDIRECT = "http://127.0.0.1:4711/"


@pytest.fixture
async def google(tmp_path: Path) -> AsyncIterator[GoogleOauth]:
    async with GoogleOauth(Authority(tmp_path)) as running:
        yield running


@pytest.fixture
async def upstream(control: Control, google: GoogleOauth) -> str:
    await control.ok(
        "POST",
        "upstreams",
        {
            "name": "gw",
            "provider": "google_workspace",
            "mode": "xoauth2",
            "token_url": google.token_url,
            "authorization_url": google.authorization_url,
            "api_url": google.url,
            "ca_file": google.authority.file,
            "oauth_client_id": google.client_id,
            "oauth_client_secret": google.client_secret,
        },
    )
    return "gw"


async def stored(control: Control) -> UpstreamRecord:
    async with control.db.connection() as connection:
        return await upstreams.find(connection, "gw")


async def begin(control: Control) -> dict[str, Any]:
    begun: dict[str, Any] = await control.ok("POST", "upstreams/gw/login", {"redirect_uri": REDIRECT})
    return begun


def of_redirect(redirect: str) -> dict[str, str]:
    query = parse_qs(urlsplit(redirect).query)
    return {name: query[name][0] for name in ("state", "code")}


async def test_a_login_asks_for_the_least_and_seals_what_it_gets(
    control: Control, google: GoogleOauth, upstream: str
) -> None:
    begun = await begin(control)
    assert begun["scopes"] == ["https://mail.google.com/", "openid", "email"]
    assert google.client_secret not in json.dumps(begun)
    finished = await control.request(
        "POST", "upstreams/gw/login/finish", of_redirect(await google.consent(begun["authorization_url"]))
    )
    assert finished.status == 200 and finished.data["account"] == "noreply@example.com", finished.text
    record = await stored(control)
    assert record.oauth_account == "noreply@example.com" and record.oauth_refresh_token_sealed is not None
    token = control.house.seal.open(record.oauth_refresh_token_sealed, row=record.seal_row("oauth_refresh_token"))
    assert token.decode() in google.grants
    async with control.db.connection() as connection:
        dumped = await connection.fetchval("SELECT string_agg(a::text, '') FROM audit_logs a")
    shown = (await control.request("GET", "upstreams/gw")).text
    for text in (finished.text, dumped, shown):
        assert "canary" not in text and b"canary".hex() not in text
    assert control.wakes


@pytest.mark.parametrize("gives_id_token", [True, False])
async def test_a_login_of_another_account_stores_nothing(
    control: Control, google: GoogleOauth, upstream: str, gives_id_token: bool
) -> None:
    await control.ok("PATCH", "upstreams/gw", {"oauth_account": "noreply@example.com"})
    google.signs_in_as, google.gives_id_token = "else@example.com", gives_id_token
    begun = await begin(control)
    assert "login_hint=noreply%40example.com" in begun["authorization_url"]
    answer = await control.request(
        "POST", "upstreams/gw/login/finish", of_redirect(await google.consent(begun["authorization_url"]))
    )
    assert answer.status == 409 and "else@example.com has logged in" in answer.message, answer.text
    assert (await stored(control)).oauth_refresh_token_sealed is None


async def test_a_redirect_counts_once_with_the_state_that_it_was_sent_with(
    control: Control, google: GoogleOauth, upstream: str
) -> None:
    begun = await begin(control)
    answer = of_redirect(await google.consent(begun["authorization_url"]))
    wrong = await control.request("POST", "upstreams/gw/login/finish", {**answer, "state": "x" * 43})
    assert wrong.status == 409 and "state" in wrong.message and "nothing was stored" in wrong.message
    assert (await stored(control)).oauth_refresh_token_sealed is None and google.requests == []
    await control.ok("POST", "upstreams/gw/login/finish", answer)
    again = await control.request("POST", "upstreams/gw/login/finish", answer)
    assert again.status == 409 and "has come before" in again.message


async def test_a_login_is_of_one_upstream(control: Control, google: GoogleOauth, upstream: str) -> None:
    begun = await begin(control)
    await control.ok("POST", "upstreams", {"name": "other", "provider": "google_workspace", "mode": "xoauth2"})
    answer = await control.request("POST", "upstreams/other/login/finish", {"state": begun["state"], "code": "c"})
    assert answer.status == 409 and google.requests == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"gives_refresh_token": False}, "no refresh token.*permissions"),
        ({"withheld_scopes": frozenset({"https://mail.google.com/"})}, "missing: https://mail.google.com/.*tick"),
        ({"client_secret": "another"}, "invalid_client.*oauth-client-secret-file"),
        ({"answer": Answer(500, "canary")}, "HTTP status 500"),
        ({"answer": Answer(200, "[")}, "no refresh token"),
        ({"answer": Endless()}, "more than 1048576 octets"),
    ],
)
async def test_an_exchange_that_fails_stores_nothing(
    control: Control, google: GoogleOauth, upstream: str, change: dict[str, Any], text: str
) -> None:
    begun = await begin(control)
    answer = of_redirect(await google.consent_with(begun["authorization_url"], change))
    said = await control.request("POST", "upstreams/gw/login/finish", answer)
    assert said.status == 409 and re.search(text, said.message), said.text
    assert "nothing was stored" in said.message and "canary" not in said.text
    assert (await stored(control)).oauth_refresh_token_sealed is None


async def test_a_secret_is_taken_out_before_the_text_is_shortened(
    control: Control, google: GoogleOauth, upstream: str
) -> None:
    begun = await begin(control)
    told = Answer.error("invalid_grant", "x" * 290 + google.client_secret)
    answer = of_redirect(await google.consent_with(begun["authorization_url"], {"answer": told}))
    said = await control.request("POST", "upstreams/gw/login/finish", answer)
    assert said.status == 409 and "x***" in said.message and "cana" not in said.text


async def test_an_error_in_the_redirect_stores_nothing(control: Control, upstream: str) -> None:
    begun = await begin(control)
    answer = await control.request(
        "POST", "upstreams/gw/login/finish", {"state": begun["state"], "error": "access_denied"}
    )
    assert answer.status == 409 and "access_denied" in answer.message


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("gw/login", {"redirect_uri": "https://evil.example/"}, "must be an address of this machine"),
        ("gw/login", {"redirect_uri": "http://127.0.0.1.evil.example/"}, "must be an address of this machine"),
        ("box/login", {"redirect_uri": REDIRECT}, "nobody logs in"),
        ("plain/login", {"redirect_uri": REDIRECT}, "no OAuth client"),
        ("none/login", {"redirect_uri": REDIRECT}, "no upstream none"),
    ],
)
async def test_where_nobody_can_log_in_it_says_why(
    control: Control, upstream: str, path: str, body: dict[str, Any], text: str
) -> None:
    await control.ok("POST", "upstreams", {"name": "box", "provider": "capture", "directory": "/m"})
    await control.ok("POST", "upstreams", {"name": "plain", "provider": "google_workspace", "mode": "xoauth2"})
    answer = await control.request("POST", f"upstreams/{path}", body)
    assert answer.status in (404, 422) and text in answer.message, answer.text


def test_a_login_ends_after_ten_minutes_and_the_oldest_gives_way() -> None:
    now = [0.0]
    pending, upstream = PendingLogins(lambda: now[0]), new_id()
    state, _ = pending.begin(upstream, REDIRECT, ())
    now[0] = LIFE_SECONDS
    with pytest.raises(Refusal, match="longer than 10 minutes"):
        pending.take(state, upstream)
    states = [pending.begin(upstream, REDIRECT, ())[0] for _ in range(101)]
    with pytest.raises(Refusal, match="no login that is under way"):
        pending.take(states[0], upstream)
    assert "verifier" not in repr(pending.take(states[1], upstream))


# The command line


@asynccontextmanager
async def logging_in(control: Control, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`relayd upstream login`, waiting; and the address that it shows."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relayd", "upstream", "login", "gw", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "RELAYD_SOCKET": str(control.socket)},
    )
    assert process.stderr
    address = ""
    async with asyncio.timeout(60):
        while not address.startswith("https://"):
            address = (await process.stderr.readline()).decode().strip()
    yield process, address
    if process.returncode is None:
        process.kill()
        await process.wait()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_the_command_waits_for_the_browser(control: Control, google: GoogleOauth, upstream: str) -> None:
    async with logging_in(control) as (process, address):
        redirect = await google.consent(address)
        assert (await get(redirect.partition("?")[0] + "favicon.ico"))[0] == 404
        assert await get(redirect) == (200, "relayd has what it needs; this window may be closed.")
        out, err = await process.communicate()
    assert process.returncode == 0 and out == b"upstream gw is logged in as noreply@example.com\n", err
    assert b"canary" not in out + err and (await stored(control)).oauth_account == "noreply@example.com"


@pytest.mark.parametrize(
    ("query", "text"),
    [("state=wrong&code=c", "state is not this login's"), ("error=access_denied&state={}", "access_denied")],
)
async def test_a_redirect_that_is_not_ours_ends_the_command(
    control: Control, google: GoogleOauth, upstream: str, query: str, text: str
) -> None:
    async with logging_in(control) as (process, address):
        asked = parse_qs(urlsplit(address).query)
        status, _ = await get(f"{asked['redirect_uri'][0]}?{query.format(asked['state'][0])}")
        _, err = await process.communicate()
    assert status == 400 and process.returncode == 1 and text in err.decode() and "Traceback" not in err.decode()
    assert google.requests == [] and (await stored(control)).oauth_refresh_token_sealed is None


@at_length
async def test_no_browser_comes_back(control: Control, upstream: str) -> None:
    async with logging_in(control, "--wait-seconds", "0") as (process, _):
        _, err = await process.communicate()
    assert process.returncode == 1 and "no browser came back" in err.decode()


@at_length
@pytest.mark.parametrize("is_code_alone", [True, False])
async def test_a_machine_without_a_browser_takes_what_is_pasted(
    control: Control, google: GoogleOauth, upstream: str, is_code_alone: bool
) -> None:
    async with logging_in(control, "--paste") as (process, address):
        redirect = await google.consent(address)
        pasted = of_redirect(redirect)["code"] if is_code_alone else redirect
        out, err = await process.communicate(f"{pasted}\n".encode())
    assert process.returncode == 0 and b"logged in as noreply@example.com" in out, err


# Service accounts


def key_file(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    path = tmp_path / "key.json"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


async def test_a_service_accounts_key_is_sealed_and_the_next_step_told(
    control: Control, google: GoogleOauth, upstream: str, tmp_path: Path
) -> None:
    text = google.service_account(users=["a@example.com"], private_key_id="canary-id")
    ran = await control.cli("upstream", "set-service-account", "gw", "--file", key_file(tmp_path, text))
    assert ran.code == 0 and "relay@project.iam.example.com" in ran.out, ran.err
    assert "104000000000000000001" in ran.err and "https://mail.google.com/" in ran.err
    record = await stored(control)
    assert record.google_service_account == "relay@project.iam.example.com"
    assert record.google_service_account_sealed is not None
    row = record.seal_row("google_service_account")
    assert b"PRIVATE KEY" in control.house.seal.open(record.google_service_account_sealed, row=row)
    async with control.db.connection() as connection:
        dumped = await connection.fetchval("SELECT string_agg(a::text, '') FROM audit_logs a")
    for each in (ran.out, ran.err, dumped, (await control.request("GET", "upstreams/gw")).text):
        assert "canary" not in each and "PRIVATE" not in each
    piped = await control.cli("upstream", "set-service-account", "gw", "--file", "-", stdin=text)
    assert piped.code == 0, piped.err


@pytest.mark.parametrize(("mode", "text"), [(0o644, "everybody may read"), (0o620, "others may change")])
async def test_a_key_file_that_others_reach_is_refused(
    control: Control, google: GoogleOauth, upstream: str, tmp_path: Path, mode: int, text: str
) -> None:
    file = key_file(tmp_path, google.service_account(users=[]), mode)
    ran = await control.cli("upstream", "set-service-account", "gw", "--file", file)
    assert ran.code == 1 and text in ran.err and f"chmod 600 {file}" in ran.err
    assert (await stored(control)).google_service_account_sealed is None


async def test_a_key_that_cannot_be_used_is_told_without_quoting_it(control: Control, upstream: str) -> None:
    body = {"key": '{"type": "service_account", "private_key": "canary'}
    answer = await control.request("POST", "upstreams/gw/service-account", body)
    assert answer.status == 422 and "cut off" in answer.message, answer.text
    assert "canary" not in answer.text and (await stored(control)).google_service_account_sealed is None


async def test_only_google_knows_service_accounts(control: Control, google: GoogleOauth) -> None:
    await control.ok("POST", "upstreams", {"name": "out", "provider": "smtp_relay", "host": "smtp.example.net"})
    answer = await control.request(
        "POST", "upstreams/out/service-account", {"key": google.service_account(users=["a@example.com"])}
    )
    assert answer.status == 422 and "only Google" in answer.message


async def test_a_key_takes_the_place_of_a_login_and_a_login_that_of_a_key(
    control: Control, google: GoogleOauth, upstream: str
) -> None:
    await control.ok("POST", "upstreams/gw/service-account", {"key": google.service_account(users=["a@example.com"])})
    begun = await begin(control)
    answer = of_redirect(await google.consent(begun["authorization_url"]))
    await control.ok("POST", "upstreams/gw/login/finish", answer)
    record = await stored(control)
    assert record.google_service_account is None and record.oauth_refresh_token_sealed is not None
    await control.ok("POST", "upstreams/gw/service-account", {"key": google.service_account(users=["a@example.com"])})
    record = await stored(control)
    assert record.google_service_account is not None and record.oauth_refresh_token_sealed is None


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
async def test_no_grant_is_taken_for_a_line_that_would_tell_its_tokens(
    control: Control, google: GoogleOauth, tls: str
) -> None:
    """Without a grant smtp-relay is known by its address, and any line will do."""
    where = {"name": "gw", "provider": "google_workspace", "mode": "smtp-relay", "tls": tls}
    where |= {"oauth_client_id": google.client_id, "token_url": google.token_url, "ca_file": google.authority.file}
    await control.ok("POST", "upstreams", where)
    key = {"key": google.service_account(users=["a@example.com"])}
    for path, body in (("gw/login", {"redirect_uri": REDIRECT}), ("gw/service-account", key)):
        answer = await control.request("POST", f"upstreams/{path}", body)
        assert answer.status == 422 and "an access token would cross the network" in answer.message, answer.text
        assert "relayd upstream set gw --tls starttls" in answer.text
    record = await stored(control)
    assert record.google_service_account_sealed is None and record.oauth_refresh_token_sealed is None
    await control.ok("PATCH", "upstreams/gw", {"allow_plaintext_auth": True})
    await control.ok("POST", "upstreams/gw/service-account", key)
    await control.ok("POST", "upstreams/gw/login", {"redirect_uri": REDIRECT})
    answer = await control.request("PATCH", "upstreams/gw", {"allow_plaintext_auth": False})
    assert answer.status == 422 and "--allow-plaintext-auth permits it" in answer.text


async def test_a_line_that_came_to_tell_tokens_while_somebody_was_logging_in_gets_none(
    control: Control, google: GoogleOauth, upstream: str
) -> None:
    begun = await begin(control)
    async with control.db.transaction() as connection:
        await connection.execute("UPDATE email_configurations SET smtp_tls = 'opportunistic'")
    answer = await control.request(
        "POST", "upstreams/gw/login/finish", of_redirect(await google.consent(begun["authorization_url"]))
    )
    assert answer.status == 422 and "an access token would cross the network" in answer.message, answer.text
    assert (await stored(control)).oauth_refresh_token_sealed is None
