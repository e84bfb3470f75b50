"""Upstreams over the control socket."""

from typing import Any

import pytest

from relayd.store import upstreams
from tests.integration.conftest import Control

SMTP = {"name": "out", "provider": "smtp_relay", "host": "smtp.example.net"}
LOGIN = {"username": "relay", "password": "canary-hunter2"}


async def test_what_is_left_out_has_sound_defaults(control: Control) -> None:
    added = await control.ok("POST", "upstreams", SMTP)
    assert (added["tls"], added["port"], added["verify_certificate"]) == ("starttls", 587, True)
    assert (added["has_password"], added["client"], added["on_uncertain"]) == (False, None, "retry")
    assert (await control.ok("POST", "upstreams", {**SMTP, "name": "tls", "tls": "implicit"}))["port"] == 465


async def test_every_option_comes_back_and_can_be_changed(control: Control) -> None:
    await control.ok("POST", "clients", {"name": "acme"})
    options = {
        "port": 2525,
        "tls": "implicit",
        "verify_certificate": False,
        "ca_file": "/etc/ssl/own.pem",
        "username": "relay",
        "auth_mechanism": "LOGIN",
        "ehlo_name": "relay.example.com",
        "source_address": "192.0.2.7",
        "max_connections": 3,
        "max_recipients": 50,
        "max_messages_per_connection": 10,
        "on_uncertain": "hold",
        "sender_address": "noreply@example.com",
        "sender_name": "Example",
    }
    added = await control.ok("POST", "upstreams", {**SMTP, **options, "password": "x", "client": "acme"})
    assert {name: added[name] for name in options} == options
    assert (added["client"], added["has_password"]) == ("acme", True)
    changes = {"source_address": None, "max_recipients": 1, "is_active": False, "username": None, "password": None}
    changed = await control.ok("PATCH", "upstreams/out", changes)
    assert (changed["source_address"], changed["max_recipients"], changed["is_active"]) == (None, 1, False)
    assert (changed["has_password"], changed["ehlo_name"]) == (False, "relay.example.com")
    assert control.wakes


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"name": "x", "provider": "smtp_relay"}, "host is required"),
        ({**SMTP, "username": "relay"}, "username and password go together"),
        ({**SMTP, "password": "p"}, "username and password go together"),
        ({**SMTP, **LOGIN, "tls": "none"}, "in the clear"),
        ({**SMTP, "directory": "/var/mail"}, "directory cannot be used with smtp_relay"),
        ({"name": "x", "provider": "capture"}, "directory is required"),
        ({"name": "x", "provider": "capture", "directory": "mail"}, "absolute path"),
        ({"name": "x", "provider": "capture", "directory": "/m", "host": "h", "port": 25}, "host, port cannot be used"),
        ({"name": "x", "provider": "sendgrid", "mode": "xoauth2"}, "sendgrid has no mode xoauth2"),
        ({"name": "x", "provider": "google_workspace", "mode": "gmail_api", "host": "h"}, "host cannot be used with"),
        ({"name": "x", "provider": "sendgrid", "mode": "api", "api_url": "http://example.net"}, "must be https"),
        ({"name": "x", "provider": "carrier-pigeon"}, "provider"),
        ({**SMTP, "port": 0}, "port"),
        ({**SMTP, "port": "25"}, "port"),
        ({**SMTP, "tls": "ssl3"}, "tls"),
        ({**SMTP, "source_address": "nowhere"}, "source_address"),
        ({**SMTP, "max_connections": 10**12}, "max_connections"),
        ({**SMTP, "host": "a\r\nb"}, "host"),
        ({**SMTP, "username": "relay", "password": "a\nb"}, "password"),
    ],
)
async def test_bad_values_are_refused_with_their_reason(control: Control, body: dict[str, Any], text: str) -> None:
    answer = await control.request("POST", "upstreams", body)
    assert answer.status == 422 and text in answer.message, answer.text
    assert (await control.ok("GET", "upstreams")) == {"items": []}


async def test_a_password_is_sealed_and_never_told(control: Control) -> None:
    seen = [(await control.request("POST", "upstreams", {**SMTP, **LOGIN})).text]
    seen.append((await control.request("PATCH", "upstreams/out", {"password": "canary-second"})).text)
    seen.append((await control.request("PATCH", "upstreams/out", {"password": ["canary-third"]})).text)
    seen.append((await control.request("POST", "upstreams", {**SMTP, "name": "no", "password": "canary\u0000"})).text)
    for path in ("upstreams", "upstreams/out", "audit"):
        seen.append((await control.request("GET", path)).text)
    ran = await control.cli("upstream", "add", "two", *_smtp_options(), "--password-file", "-", stdin="canary-four\n")
    seen += [ran.out, ran.err]
    assert ran.code == 0, ran.err
    assert not [text for text in seen if "canary" in text]
    async with control.db.connection() as connection:
        dumped = await connection.fetchval("SELECT string_agg(a::text, '') FROM audit_logs a")
        assert "canary" not in dumped and b"canary".hex() not in dumped
        for name, password in (("out", b"canary-second"), ("two", b"canary-four")):
            stored = await upstreams.find(connection, name)
            assert stored.smtp_password_sealed and password not in stored.smtp_password_sealed
            row = stored.seal_row("smtp_password")
            assert control.house.seal.open(stored.smtp_password_sealed, row=row) == password
            assert "canary" not in repr(stored)


async def test_an_upstream_in_use_stays(control: Control) -> None:
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    await control.ok("POST", "upstreams", SMTP)
    await control.ok("POST", "mailboxes", {"email_address": "a@example.com"})
    answer = await control.request("DELETE", "upstreams/out")
    assert answer.status == 409 and "needed by 1 mailbox" in answer.message
    await control.ok("DELETE", "mailboxes/a@example.com")
    await control.ok("DELETE", "upstreams/out")
    await control.ok("POST", "upstreams", SMTP)


async def test_the_command_line_takes_every_option(control: Control) -> None:
    added = await control.cli(
        *("upstream", "add", "out", *_smtp_options(), "--password-file", "-", "--no-verify-certificate"),
        *("--ehlo-name", "me.example", "--max-connections", "5", "--on-uncertain", "hold"),
        stdin="secret",
    )
    assert added.code == 0, added.err
    shown = await control.cli("upstream", "show", "out")
    assert "me.example" in shown.out and "smtp.example.net" in shown.out
    assert (await control.cli("upstream", "set", "out", "--no-login", "--inactive")).code == 0
    listed = (await control.cli("upstream", "list")).out.splitlines()
    assert listed[1].startswith("out ") and "smtp.example.net:587" in listed[1]
    assert (await control.cli("upstream", "add", "box", "--provider", "capture", "--directory", "/m")).code == 0
    missing = await control.cli("upstream", "add", "x", *_smtp_options(), "--password-file", "/nonexistent")
    assert missing.code == 1 and "/nonexistent" in missing.err
    assert (await control.cli("upstream", "remove", "out")).out == "upstream out removed\n"


def _smtp_options() -> tuple[str, ...]:
    return ("--provider", "smtp_relay", "--host", "smtp.example.net", "--username", "relay")
