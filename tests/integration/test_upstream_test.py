"""`relayd upstream test`: each step is shown, the first that fails ends it and says what mends it."""

import asyncio
import base64
import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relayd.rules.outcome import Stage
from tests.integration.conftest import Control
from tests.peers.mail import Authority
from tests.peers.smtp_server import Disconnect, Drip, Flood, ScriptedServer, unstuffed

PASSWORD = "canary correct horse"
LOGIN = {"username": "app", "password": PASSWORD}
FORMS = (
    PASSWORD,
    base64.b64encode(PASSWORD.encode()).decode(),
    base64.b64encode(b"\0app\0" + PASSWORD.encode()).decode(),
)
TRIAL = {"to": "you@example.net", "sender": "app@example.org"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def add(control: Control, port: int | None, **options: Any) -> None:
    said = {"name": "out", "provider": "smtp_relay", "host": "127.0.0.1", "tls": "none", **options}
    await control.ok("POST", "upstreams", {**said, **({"port": port} if port else {})})


async def tried(control: Control, **changes: Any) -> dict[str, dict[str, Any]]:
    """The steps by name; of two of one name the later."""
    answer = await control.request("POST", "upstreams/out/test", {**TRIAL, **changes})
    assert answer.status == 200, answer.text
    assert not [form for form in FORMS if form in answer.text]
    steps = answer.data["steps"]
    assert all(step["is_ok"] for step in steps[:-1])
    assert answer.data["is_ok"] == steps[-1]["is_ok"]
    assert all((step["cure"] is None) == step["is_ok"] for step in steps)
    return {step["name"]: step for step in steps}


async def test_every_step_of_an_upstream_that_works(control: Control, authority: Authority) -> None:
    async with ScriptedServer(starttls=authority.server_context("localhost")) as server:
        await add(control, server.port, host="localhost", tls="starttls", ca_file=authority.file, **LOGIN)
        steps = await tried(control)
    assert list(steps) == ["dns", "tcp", "greeting", "ehlo", "tls", "auth", "mail", "rcpt", "rset", "quit"]
    assert "127.0.0.1" in steps["dns"]["result"]
    assert f"127.0.0.1 port {server.port}: connected in" in str(steps["tcp"]["details"])
    assert steps["tls"]["result"].startswith("TLSv1.3, ") and "certificate verified" in steps["tls"]["result"]
    assert "certificate for localhost" in steps["tls"]["details"]
    assert [line for line in steps["tls"]["details"] if line.startswith(("issuer ", "subject ", "expires in "))]
    assert "AUTH PLAIN LOGIN" in steps["ehlo"]["details"]
    assert steps["auth"]["result"] == "PLAIN as app"
    assert steps["rcpt"]["result"] == "250 2.1.5 ok"
    assert server.messages == [] and server.count(b"RSET") == 1 and server.count(b"QUIT") == 1
    assert (await control.ok("GET", "upstreams/out"))["is_verified"]
    await control.ok("PATCH", "upstreams/out", {"max_connections": 2})
    assert not (await control.ok("GET", "upstreams/out"))["is_verified"]


async def test_with_send_a_small_message_arrives(control: Control) -> None:
    async with ScriptedServer() as server:
        await add(control, server.port)
        steps = await tried(control, send=True)
    assert list(steps)[-2:] == ["data", "quit"]
    assert steps["data"]["result"] == "250 2.0.0 Ok: queued as SCRIPT1"
    (message,) = server.messages
    assert message.forward_paths == [b"RCPT TO:<you@example.net>"]
    head = unstuffed(message.content).partition(b"\r\n\r\n")[0]
    for field in (b"From: <app@example.org>", b"Message-ID: <", b"Date: ", b"Subject: relayd test of upstream out"):
        assert head.count(field) == 1


REFUSALS = [
    (Stage.CONNECT, "554 5.7.1 not you", "greeting", "let it in"),
    (Stage.CONNECT, "421 4.3.2 busy", "greeting", "try again later"),
    (Stage.EHLO, "550 5.7.1 who are you", "ehlo", "relayd upstream set out --ehlo-name"),
    (Stage.AUTH, "535 5.7.8 no", "auth", "relayd upstream set out --username NAME --password-file -"),
    (Stage.AUTH, "454 4.7.0 later", "auth", "try again later"),
    (Stage.MAIL, "550 5.7.1 sender not allowed", "mail", "app@example.org"),
    (Stage.MAIL, "530 5.7.0 log in", "mail", "--username"),
    (Stage.RCPT, "554 5.7.1 Relay access denied", "rcpt", "does not relay for us"),
    (Stage.RCPT, "550 5.1.1 no such user", "rcpt", "does not know you@example.net"),
    (Stage.RCPT, "450 4.2.0 greylisted", "rcpt", "in some minutes"),
    (Stage.DATA, "451 4.3.0 later", "data", "its text"),
    (Stage.DOT, "554 5.7.1 spam", "data", "its text"),
    (Stage.DOT, Disconnect(), "data", "may have arrived all the same"),
    (Stage.EHLO, Disconnect(), "ehlo", "--ehlo-name"),
]


async def test_a_refusal_ends_it_and_names_its_cure(control: Control) -> None:
    async with ScriptedServer() as server:
        await add(control, server.port, **LOGIN, allow_plaintext_auth=True)
        for stage, reply, name, cure in REFUSALS:
            server.script.clear()
            server.on(stage, reply)
            steps = await tried(control, send=True)
            assert list(steps)[-1] == name and not steps[name]["is_ok"]
            assert cure in steps[name]["cure"], steps[name]
            if isinstance(reply, str):
                assert steps[name]["result"] == reply
    assert not (await control.ok("GET", "upstreams/out"))["is_verified"]


async def test_an_echoed_password_is_in_no_step(control: Control) -> None:
    async with ScriptedServer() as server:
        await add(control, server.port, **LOGIN, allow_plaintext_auth=True)
        for stage in (Stage.EHLO, Stage.AUTH, Stage.MAIL, Stage.RCPT, Stage.DOT):
            for form in FORMS:
                server.script.clear()
                server.on(stage, f"535 you said {form}")
                steps = await tried(control, send=True)  # which looks for it
                assert "535 you said ***" in str(steps)


async def test_a_certificate_for_another_name_is_shown(control: Control, authority: Authority) -> None:
    async with ScriptedServer(implicit_tls=authority.server_context("mail.example.net")) as server:
        await add(control, server.port, host="localhost", tls="implicit", ca_file=authority.file, **LOGIN)
        steps = await tried(control)
    assert steps["tls"]["result"] == "TLS: certificate not accepted: it is for mail.example.net, not for localhost"
    assert "certificate for mail.example.net" in steps["tls"]["details"]
    assert "relayd upstream set out --host NAME" in steps["tls"]["cure"]
    assert server.commands == []


async def test_why_a_certificate_is_not_verified(control: Control, authority: Authority) -> None:
    long_ago = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}
    for tls, context, ca_file, cure in (
        ("starttls", authority.server_context("localhost"), None, "--ca-file PATH"),
        ("implicit", authority.server_context("localhost", **long_ago), authority.file, "renew"),
    ):
        by_mode = {"starttls": context} if tls == "starttls" else {"implicit_tls": context}
        async with ScriptedServer(**by_mode) as server:
            await add(control, server.port, host="localhost", tls=tls, ca_file=ca_file)
            steps = await tried(control)
        assert cure in steps["tls"]["cure"] and "certificate for localhost" in steps["tls"]["details"]
        await control.ok("DELETE", "upstreams/out")


async def test_what_is_not_verified_is_said(control: Control, authority: Authority) -> None:
    async with ScriptedServer(starttls=authority.server_context("elsewhere.example")) as server:
        await add(control, server.port, tls="opportunistic")
        assert "certificate not verified" in (await tried(control))["tls"]["result"]
        await control.ok("PATCH", "upstreams/out", {"tls": "starttls", "verify_certificate": False})
        assert "certificate not verified" in (await tried(control))["tls"]["result"]
    async with ScriptedServer() as server:
        await control.ok("PATCH", "upstreams/out", {"tls": "opportunistic", "port": server.port})
        assert (await tried(control))["tls"]["result"] == "not offered: mail goes there in the clear"


async def test_nothing_to_connect_to(control: Control, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        await add(control, port)
        refused = (await tried(control))["tcp"]
    assert refused["result"] == "connection refused"
    assert "587" in refused["cure"] and f"127.0.0.1 port {port}: connection refused" in refused["details"]
    await control.ok("PATCH", "upstreams/out", {"host": "no-such-host.invalid"})
    unknown = (await tried(control))["dns"]
    assert "cannot be resolved" in unknown["result"] and "getent hosts no-such-host.invalid" in unknown["cure"]
    await control.ok("DELETE", "upstreams/out")
    await add(control, None, host=str(tmp_path / "nothing"))
    assert "the server whose socket it is" in (await tried(control))["tcp"]["cure"]


async def test_a_missing_starttls_and_a_port_of_the_other_kind(control: Control, authority: Authority) -> None:
    async with ScriptedServer() as server:
        await add(control, server.port, tls="starttls")
        assert "--tls implicit" in (await tried(control))["tls"]["cure"]
        await control.ok("PATCH", "upstreams/out", {"tls": "implicit"})
        assert "--tls starttls" in (await tried(control))["tls"]["cure"]
    assert server.count(b"MAIL") == 0


async def test_a_reply_without_end_ends_the_test(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer({Stage.EHLO: Flood()}) as server:
        await add(control, server.port)
        assert "the reply does not end" in (await tried(control))["ehlo"]["result"]
        server.on(Stage.EHLO, Drip())
        monkeypatch.setattr("relayd.control.upstream_test.TEST_SECONDS", 0.5)
        assert (await tried(control))["ehlo"]["result"] == "not done in the time that a test has"


async def test_the_sender_is_the_upstreams_or_a_mailbox_of_it(control: Control) -> None:
    async with ScriptedServer() as server:
        await add(control, server.port)
        answer = await control.request("POST", "upstreams/out/test", {"to": "you@example.net"})
        assert answer.status == 422 and "--from ADDRESS" in answer.message
        await control.ok("POST", "clients", {"name": "acme"})
        await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
        await control.ok("POST", "mailboxes", {"email_address": "box@example.com"})
        await tried(control, sender=None)
        assert b"MAIL FROM:<box@example.com>" in server.commands[1]
        await control.ok("PATCH", "upstreams/out", {"sender_address": "own@example.com"})
        await tried(control, sender=None)
    assert b"MAIL FROM:<own@example.com>" in server.commands[-4]


async def test_what_cannot_be_signed_is_not_sent(control: Control) -> None:
    async with ScriptedServer() as server:
        await add(control, server.port, dkim="rsa")
        await control.ok("POST", "clients", {"name": "acme"})
        await control.ok("POST", "domains", {"domain": "example.org", "client": "acme"})
        assert (await tried(control, send=True))["sign"]["result"] == "DKIM signatures of example.org: 1"
        sent = len(server.messages)
        async with control.db.connection() as connection:
            await connection.execute("UPDATE dkim_keys SET status = 'retired' WHERE algorithm = 'rsa-sha256'")
        async with asyncio.timeout(20):  # which keys are active is known as it was a second ago
            while (steps := await tried(control, send=True))["sign"]["is_ok"]:
                sent = len(server.messages)
                await asyncio.sleep(0.1)
        assert len(server.messages) == sent
        assert "example.org has no active RSA DKIM key" in steps["sign"]["result"]
        assert "relayd upstream set out --dkim none" in steps["sign"]["cure"]
        # Nothing is signed where nothing is sent.
        assert "sign" not in await tried(control)


async def test_capture_is_tried_by_writing(control: Control, tmp_path: Path) -> None:
    directory = tmp_path / "mail"
    await control.ok("POST", "upstreams", {"name": "out", "provider": "capture", "directory": str(directory)})
    steps = await tried(control)
    assert list(steps) == ["directory"] and str(directory) in steps["directory"]["result"]
    assert not list((directory / "tmp").iterdir()) and not list((directory / "new").iterdir())
    await tried(control, send=True)
    assert b"Subject: relayd test of upstream out" in next((directory / "new").iterdir()).read_bytes()
    (tmp_path / "file").write_text("")
    await control.ok("PATCH", "upstreams/out", {"directory": str(tmp_path / "file" / "mail")})
    failed = (await tried(control))["directory"]
    assert "Not a directory" in failed["result"] and "--directory PATH" in failed["cure"]


async def test_an_http_api_is_asked_something_harmless(control: Control, authority: Authority) -> None:
    replies = ["200 OK", "401 Unauthorized"]
    heard: list[bytes] = []

    async def serve(reader: Any, writer: Any) -> None:
        try:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(f"HTTP/1.1 {replies.pop(0)}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server_context("localhost"))
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    options = {"provider": "sendgrid", "mode": "api", "api_url": url, "api_key": PASSWORD, "ca_file": authority.file}
    await control.ok("POST", "upstreams", {"name": "out", **options})
    steps = await tried(control)
    assert list(steps) == ["dns", "tcp", "tls", "request"]
    assert steps["request"]["result"] == "GET /v3/scopes: 200"
    assert b"GET /v3/scopes" in heard[-1] and f"Bearer {PASSWORD}".encode() in heard[-1]
    refused = (await tried(control))["request"]
    assert refused["result"] == "GET /v3/scopes: 401" and "not taken" in refused["cure"]
    server.close()


async def test_the_command_prints_the_steps_and_its_exit_code_tells(control: Control) -> None:
    async with ScriptedServer({Stage.RCPT: ["250 2.1.5 ok", "550 5.1.1 nobody"]}) as server:
        await add(control, server.port)
        ran = await control.cli("upstream", "test", "out", "--to", "you@example.net", "--from", "app@example.org")
        assert ran.code == 0, ran.err
        assert [line.split()[0] for line in ran.out.splitlines() if not line.startswith(" ")] == [
            *("dns", "tcp", "greeting", "ehlo", "auth", "mail", "rcpt", "rset", "quit")
        ]
        failed = await control.cli(
            "upstream", "test", "out", "--to", "you@example.net", "--from", "app@example.org", "--send"
        )
        assert failed.code == 1
        assert "FAILED" in failed.out and "-> it does not know you@example.net" in failed.out
        again = await control.cli(
            "upstream", "test", "out", "--to", "a@example.net", "--from", "b@example.org", "--json"
        )
    assert again.code == 1 and json.loads(again.out)["steps"][-1]["name"] == "rcpt"
