"""`relayd doctor google`: what it finds on local servers that ask for what Google asks for."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relayd.rules.grant_events import GrantDied
from relayd.rules.outcome import Stage
from relayd.store import gauges
from tests.builders import make_sender, put
from tests.integration.conftest import Control
from tests.peers.google_oauth import GoogleOauth
from tests.peers.google_smtp import GoogleSmtp
from tests.peers.mail import Authority
from tests.peers.smtp_server import Action, ScriptedServer


@pytest.fixture
async def google(tmp_path: Path) -> AsyncIterator[GoogleOauth]:
    async with GoogleOauth(Authority(tmp_path)) as running:
        yield running


async def upstream(control: Control, google: GoogleOauth, server: ScriptedServer, mode: str, **options: Any) -> None:
    """`gw`, with two mailboxes."""
    common = {"host": "localhost", "port": server.port, "ca_file": google.authority.file}
    addresses = {"token_url": google.token_url, **({"api_url": google.url} if mode == "xoauth2" else {})}
    body = {"name": "gw", "provider": "google_workspace", "mode": mode, **common, **addresses, **options}
    await control.ok("POST", "upstreams", body)
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    for address in ("a@example.com", "b@example.com"):
        await control.ok("POST", "mailboxes", {"email_address": address, "upstream": "gw"})


def user(google: GoogleOauth) -> dict[str, str]:
    return {
        "oauth_client_id": google.client_id,
        "oauth_client_secret": google.client_secret,
        "oauth_account": "a@example.com",
        "refresh_token": google.grant("a@example.com"),
    }


async def findings(control: Control) -> dict[str, tuple[str, str]]:
    """Result and text, the cure included, by check."""
    items = (await control.ok("GET", "doctor/google", params={"name": "gw"}))["items"]
    assert "canary" not in str(items)
    return {each["check"]: (each["result"], f"{each['what']} | {each['cure']}") for each in items}


async def test_a_healthy_upstream_with_a_users_grant(control: Control, google: GoogleOauth) -> None:
    google.send_as["a@example.com"] = ["b@example.com"]
    async with GoogleSmtp(google) as server:
        await upstream(control, google, server, "xoauth2", **user(google))
        found = await findings(control)
        ran = await control.cli("doctor", "google", "gw")
    assert {check: result for check, (result, _) in found.items()} == {
        "connect and relay": "ok",
        "token": "ok",
        "token age": "could not be checked",  # this was the first
        "send-as of a@example.com": "ok",
        "clock": "ok",
    }, found
    assert ran.code == 0 and "connect and relay" in ran.out and "canary" not in ran.out + ran.err
    assert server.messages == [] and server.count(b"DATA") == 0


async def test_a_healthy_upstream_with_a_service_account(control: Control, google: GoogleOauth) -> None:
    async with GoogleSmtp(google) as server:
        await upstream(control, google, server, "xoauth2")
        key = google.service_account(users=["a@example.com", "b@example.com"])
        await control.ok("POST", "upstreams/gw/service-account", {"key": key})
        found = await findings(control)
    assert found["delegation of https://mail.google.com/"][0] == "ok" and found["connect and relay"][0] == "ok", found


async def test_what_is_wrong_is_named_with_its_cure(control: Control, google: GoogleOauth) -> None:
    google.clock_offset = 400
    async with GoogleSmtp(google) as server:
        await upstream(control, google, server, "xoauth2", **user(google))
        found = await findings(control)
        assert (
            found["send-as of a@example.com"][0] == "problem"
            and "b@example.com" in found["send-as of a@example.com"][1]
        )
        assert found["clock"][0] == "problem" and "behind" in found["clock"][1] and "NTP" in found["clock"][1]
        google.grants.clear()
        await control.ok("PATCH", "upstreams/gw", {"refresh_token": "1//canary-another"})
        found = await findings(control)
        assert found["token"][0] == "problem" and "relayd upstream login gw" in found["token"][1]
        assert found["connect and relay"][0] == "problem"
        ran = await control.cli("doctor", "google")
    assert ran.code == 1 and "relayd upstream login gw" in ran.out + ran.err


async def test_a_scope_that_was_not_delegated(control: Control, google: GoogleOauth) -> None:
    async with GoogleSmtp(google) as server:
        await upstream(control, google, server, "xoauth2")
        key = google.service_account(users=["a@example.com"], scopes=["https://example.com/other"])
        await control.ok("POST", "upstreams/gw/service-account", {"key": key})
        found = await findings(control)
        result, text = found["delegation of https://mail.google.com/"]
        assert result == "problem" and "Domain-wide delegation" in text
        # The grant is dead: `show` names it, and so does the list of what mail waits for.
        shown = await control.ok("GET", "upstreams/gw")
        assert "unauthorized_client" in shown["dead_grants"][0]["error"]
        assert "unauthorized_client" in (await control.cli("upstream", "show", "gw")).out


@pytest.mark.parametrize(
    ("script", "domains", "cure"),
    [
        ({}, {"example.org"}, "allow this machine's address"),
        ({Stage.EHLO: "421 4.7.0 Try again later, closing connection. - gsmtp"}, {"example.com"}, "EHLO name"),
        ({Stage.MAIL: "421 4.7.0 Try again later, closing connection. - gsmtp"}, {"example.com"}, "SMTP relay service"),
        ({Stage.CONNECT: "554 5.7.1 go away"}, {"example.com"}, "SMTP relay service"),
    ],
)
async def test_the_symptoms_of_a_relay_that_was_not_allowed(
    control: Control, google: GoogleOauth, script: dict[Stage, Action], domains: set[str], cure: str
) -> None:
    async with GoogleSmtp(google, script, domains=domains, needs_login=False) as server:
        await upstream(control, google, server, "smtp-relay")
        found = await findings(control)
    assert found["EHLO name"][0] == "ok"
    assert found["connect and relay"][0] == "problem" and cure in found["connect and relay"][1], found


async def test_a_relay_that_lets_us_in(control: Control, google: GoogleOauth) -> None:
    async with GoogleSmtp(google, domains={"example.com"}, needs_login=False) as server:
        await upstream(control, google, server, "smtp-relay")
        found = await findings(control)
        assert {check: result for check, (result, _) in found.items()} == {"EHLO name": "ok", "connect and relay": "ok"}
        await control.ok("PATCH", "upstreams/gw", {"ehlo_name": "nowhere.invalid"})
        result, text = (await findings(control))["EHLO name"]
    assert result == "problem" and "does not resolve" in text


async def test_a_server_that_cannot_be_reached_is_no_riddle(control: Control, google: GoogleOauth) -> None:
    async with GoogleSmtp(google) as server:
        await upstream(control, google, server, "xoauth2", **user(google))
    found = await findings(control)
    assert found["connect and relay"][0] == "problem" and "connection refused" in found["connect and relay"][1]


async def test_mail_that_waits_for_a_dead_grant_says_so(control: Control, google: GoogleOauth) -> None:
    async with GoogleSmtp(google) as server:
        await upstream(control, google, server, "xoauth2", **user(google))
        async with control.db.connection() as connection:
            sender = await make_sender(connection, "c@example.com", upstream="gw")
            message = await put(connection, sender)
        google.grants.clear()
        await findings(control)
        (entry,) = (await control.ok("GET", f"explain/{message.queue_id}"))["entries"]
        assert entry["where"] == "stopped" and "upstream gw gets no token since" in entry["sentence"]
        assert "invalid_grant" in entry["sentence"] and "relayd upstream login gw" in entry["sentence"]
        async with control.db.connection() as connection:
            assert (await gauges.read(connection)).dead_grants == 1
        assert [type(event) for event in control.events] == [GrantDied]
        # A new grant is believed at once.
        await control.ok("PATCH", "upstreams/gw", {"refresh_token": google.grant("a@example.com")})
        (entry,) = (await control.ok("GET", f"explain/{message.queue_id}"))["entries"]
        assert entry["where"] == "due"


async def test_what_is_not_googles_is_refused(control: Control) -> None:
    await control.ok("POST", "upstreams", {"name": "out", "provider": "smtp_relay", "host": "smtp.example.net"})
    answer = await control.request("GET", "doctor/google", params={"name": "out"})
    assert answer.status == 422 and "not Google's" in answer.message
    assert (await control.ok("GET", "doctor/google")) == {"items": []}
