"""Upstreams over the control socket."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from relayd.store import upstreams
from tests.integration.conftest import Control
from tests.peers.mail import Authority

SMTP = {"name": "out", "provider": "smtp_relay", "host": "smtp.example.net"}
LOGIN = {"username": "relay", "password": "canary-hunter2"}


async def test_what_is_left_out_has_sound_defaults(control: Control) -> None:
    added = await control.ok("POST", "upstreams", SMTP)
    assert (added["tls"], added["port"], added["verify_certificate"]) == ("starttls", 587, True)
    assert (added["has_password"], added["client"], added["on_uncertain"]) == (False, None, "retry")
    assert (await control.ok("POST", "upstreams", {**SMTP, "name": "tls", "tls": "implicit"}))["port"] == 465


@pytest.mark.parametrize(
    ("said", "port", "tls", "is_cautioned"),
    [
        ({"port": 465}, 465, "implicit", False),
        ({"port": 465, "tls": "starttls"}, 465, "starttls", True),
        ({"port": 465, "tls": "none"}, 465, "none", True),
        ({"port": 465, "tls": "opportunistic"}, 465, "opportunistic", True),
        ({"port": 587}, 587, "starttls", False),
        ({"port": 2465}, 2465, "starttls", False),
        ({"port": 587, "tls": "implicit"}, 587, "implicit", False),
        ({"port": 465, "provider": "google_workspace"}, 465, "implicit", False),
        ({"port": 465, "provider": "sendgrid"}, 465, "implicit", False),
        ({"host": "/run/smtp"}, None, "none", False),
    ],
)
async def test_port_465_begins_with_tls(
    control: Control, said: dict[str, Any], port: int | None, tls: str, is_cautioned: bool
) -> None:
    added = await control.ok("POST", "upstreams", {**SMTP, **said})
    assert (added["port"], added["tls"]) == (port, tls)
    assert ("RFC 8314" in (added["caution"] or "")) == is_cautioned


@pytest.mark.parametrize(
    ("before", "change", "tls", "is_cautioned"),
    [
        ({}, {"port": 465}, "implicit", False),
        ({"tls": "none"}, {"port": 465}, "implicit", False),
        ({"port": 465}, {"port": 587}, "starttls", False),
        ({"port": 465}, {"port": 2465}, "implicit", False),
        ({"port": 2525, "tls": "implicit"}, {"port": 587}, "implicit", False),
        ({"port": 465, "tls": "starttls"}, {"port": 465}, "starttls", True),
        ({}, {"port": 465, "tls": "starttls"}, "starttls", True),
        ({"port": 465}, {"tls": "starttls"}, "starttls", True),
        ({"port": 465}, {"host": "other.example.net"}, "implicit", False),
    ],
)
async def test_a_port_that_is_set_later_says_how_tls_is_spoken(
    control: Control, before: dict[str, Any], change: dict[str, Any], tls: str, is_cautioned: bool
) -> None:
    await control.ok("POST", "upstreams", {**SMTP, **before})
    shown = await control.ok("PATCH", "upstreams/out", change)
    assert shown["tls"] == tls and ("RFC 8314" in (shown["caution"] or "")) == is_cautioned


async def test_the_command_shows_which_tls_a_port_brings(control: Control) -> None:
    to = ("--provider", "smtp_relay", "--host", "smtp.example.net")
    assert "--tls implicit" in (await control.cli("upstream", "add", "out", *to, "--port", "465")).out
    assert "--tls starttls" in (await control.cli("upstream", "set", "out", "--port", "587")).out
    ran = await control.cli("upstream", "set", "out", "--port", "465", "--tls", "starttls")
    assert ran.code == 0 and "mind: port 465 begins with TLS (RFC 8314)" in ran.err


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
        "dkim": "rsa",
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
        ({**SMTP, **LOGIN, "tls": "opportunistic"}, "in the clear"),
        ({**SMTP, **LOGIN, "tls": "none", "auth_mechanism": "PLAIN"}, "--auth-mechanism CRAM-MD5"),
        ({**SMTP, **LOGIN, "auth_mechanism": "SCRAM-SHA-256"}, "auth_mechanism"),
        ({**SMTP, "host": "/run/smtp", "port": 25}, "neither port nor source_address"),
        ({**SMTP, "host": "/run/smtp", "tls": "starttls"}, "TLS is not spoken over a Unix socket"),
        ({**SMTP, "host": "/" + "x" * 107}, "at most 107 octets"),
        ({**SMTP, "dkim": "ed25519"}, "dkim"),
        ({"name": "x", "provider": "capture", "directory": "/m", "dkim": "rsa"}, "dkim cannot be used with capture"),
        (
            {"name": "x", "provider": "google_workspace", "mode": "gmail_api", "dkim": "none"},
            "dkim cannot be used with",
        ),
        ({"name": "x", "provider": "sendgrid", "mode": "api", "dkim": "rsa"}, "dkim cannot be used with sendgrid api"),
    ],
)
async def test_bad_values_are_refused_with_their_reason(control: Control, body: dict[str, Any], text: str) -> None:
    answer = await control.request("POST", "upstreams", body)
    assert answer.status == 422 and text in answer.message, answer.text
    assert (await control.ok("GET", "upstreams")) == {"items": []}


@pytest.mark.parametrize(
    ("said", "signatures"),
    [
        ({}, "all"),
        ({"host": "email-smtp.eu-west-1.amazonaws.com"}, "rsa, without date and message-id"),
        ({"dialect": "ses"}, "rsa, without date and message-id"),
        ({"dialect": "ses", "dkim": "all"}, "all, without date and message-id"),
        ({"dialect": "ses", "dkim": "none"}, "none"),
        ({"host": "ec2-192-0-2-1.compute.amazonaws.com"}, "all"),
        ({"dkim": "rsa"}, "rsa"),
    ],
)
async def test_which_signatures_it_gets_is_shown(control: Control, said: dict[str, Any], signatures: str) -> None:
    added = await control.ok("POST", "upstreams", {**SMTP, **said})
    assert (added["dkim"], added["signatures"]) == (said.get("dkim"), signatures)
    # What is known of its host comes back.
    changed = await control.ok("PATCH", "upstreams/out", {"dkim": None})
    assert changed["dkim"] is None


@pytest.mark.parametrize(
    ("provider", "mode", "wanted", "host"),
    [
        ("google_workspace", "gmail_api", "xoauth2", "smtp.gmail.com"),
        ("google_workspace", "xoauth2", "smtp-relay", "smtp-relay.gmail.com"),
        ("google_workspace", "smtp-relay", "gmail_api", None),
        ("google_workspace", "gmail_api", "gmail_api", None),
        ("sendgrid", "smtp", "api", None),
        ("sendgrid", "api", "smtp", "smtp.sendgrid.net"),
    ],
)
async def test_another_mode_is_where_it_would_be_if_it_had_been_added_so(
    control: Control, provider: str, mode: str, wanted: str, host: str | None
) -> None:
    await control.ok("POST", "upstreams", {"name": "out", "provider": provider, "mode": mode})
    await control.ok("POST", "upstreams", {"name": "new", "provider": provider, "mode": wanted})
    shown = await control.ok("PATCH", "upstreams/out", {"mode": wanted})
    assert shown["host"] == host
    own = ("id", "name", "created_at", "updated_at")
    new = await control.ok("GET", "upstreams/new")
    assert {k: v for k, v in shown.items() if k not in own} == {k: v for k, v in new.items() if k not in own}


async def test_another_mode_keeps_what_somebody_said(control: Control) -> None:
    body = {"name": "out", "provider": "google_workspace", "mode": "xoauth2", "host": "proxy.example.net", "port": 26}
    await control.ok("POST", "upstreams", body)
    shown = await control.ok("PATCH", "upstreams/out", {"mode": "smtp-relay", "tls": "implicit"})
    assert (shown["host"], shown["port"], shown["tls"]) == ("proxy.example.net", 26, "implicit")
    answer = await control.request("PATCH", "upstreams/out", {"mode": "gmail_api"})
    assert answer.status == 422 and "host, port, tls cannot be used with google_workspace gmail_api" in answer.message


async def test_a_login_that_nobody_can_read_along_needs_no_permission(control: Control) -> None:
    socket = await control.ok("POST", "upstreams", {**SMTP, **LOGIN, "host": "/run/smtp"})
    assert (socket["tls"], socket["port"]) == ("none", None)
    digest = {**SMTP, **LOGIN, "name": "digest", "tls": "none", "auth_mechanism": "CRAM-MD5"}
    assert (await control.ok("POST", "upstreams", digest))["port"] == 25


async def test_a_client_key_of_no_use_is_refused_and_not_told(control: Control, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.pair("relay.example.org")
    other_chain, other_key = authority.pair("relay.example.org")
    loaded = load_pem_private_key(key, None)
    encrypted = loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary"))
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    weak_key = weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    old_chain, old_key = authority.pair(
        "relay.example.org", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2021, 1, 1, tzinfo=UTC)
    )
    leaf, _, _ = chain.partition("-----END CERTIFICATE-----\n")
    for client_certificate, client_key, text in (
        (chain, encrypted, "client_key has a passphrase"),
        (chain, key[: len(key) // 2], "client_key is not a private key in PEM, or is cut off"),
        (chain, key.replace(b"-----END", b"canary-----END"), "client_key is not a private key in PEM"),
        (chain, b"canary", "client_key is not a private key in PEM"),
        (chain, chain.encode(), "client_key is not a private key in PEM"),
        (chain, other_key, "not the key of the first certificate"),
        (chain, weak_key, "not the key of the first certificate"),
        (key.decode(), key, "client_certificate is not a certificate in PEM"),
        (leaf, key, "client_certificate is not a certificate in PEM, or is cut off"),
        ("canary", key, "client_certificate is not a certificate in PEM"),
        (old_chain, old_key, "has expired on 2021-01-01"),
        (chain, None, "go together"),
        (None, key, "go together"),
    ):
        body = {"client_certificate": client_certificate, "client_key": client_key and client_key.decode()}
        given = {name: value for name, value in body.items() if value is not None}
        answer = await control.request("POST", "upstreams", {**SMTP, **given})
        assert answer.status == 422 and text in answer.message, (text, answer.text)
        assert "canary" not in answer.text and "PRIVATE KEY-----\\n" not in answer.text
    assert (await control.ok("GET", "upstreams")) == {"items": []}
    good = {"client_certificate": chain, "client_key": key.decode()}
    await control.ok("POST", "upstreams", {**SMTP, **good})
    # Against the key that is sealed already.
    answer = await control.request("PATCH", "upstreams/out", {"client_certificate": other_chain})
    assert answer.status == 422 and "not the key" in answer.message
    await control.ok("PATCH", "upstreams/out", {"client_certificate": other_chain, "client_key": other_key.decode()})
    answer = await control.request("PATCH", "upstreams/out", {"tls": "none"})
    assert answer.status == 422 and "of no use without TLS" in answer.message


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


@pytest.mark.parametrize(
    ("options", "first"),
    [
        (("--provider", "google_workspace", "--mode", "xoauth2"), "relayd upstream set-service-account new --file"),
        (("--provider", "sendgrid"), "next, its key: relayd upstream set new --api-key-file FILE"),
        (("--provider", "google_workspace"), "next, try it: relayd upstream test new"),
    ],
)
async def test_the_next_step_is_what_is_missing(control: Control, options: tuple[str, ...], first: str) -> None:
    ran = await control.cli("upstream", "add", "new", *options)
    assert ran.code == 0 and first in ran.err.splitlines()[0], ran.err


async def test_another_mode_is_cautioned_of(control: Control) -> None:
    await control.ok("POST", "upstreams", {"name": "out", "provider": "sendgrid"})
    ran = await control.cli("upstream", "set", "out", "--mode", "api")
    assert ran.code == 0 and "mind: the API takes messages apart" in ran.err, ran.err
