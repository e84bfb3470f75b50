"""Servers of long ago: HELO where EHLO is not known, and AUTH in several lines or in the old form."""

from typing import Any

import pytest

from relayd.rules.outcome import Deferred, Outcome, Scope, Sent, Stage
from relayd.upstream.connection import Connection
from relayd.upstream.handshake import open_connection
from relayd.upstream.settings import SmarthostSettings
from relayd.upstream.smarthost import Smarthost
from tests.peers.mail import Authority, settings, transmission
from tests.peers.smtp_server import ScriptedServer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


async def deliver(chosen: SmarthostSettings) -> Outcome:
    smarthost = Smarthost(chosen)
    (outcome,) = await smarthost.deliver(transmission())
    await smarthost.close()
    return outcome


@pytest.mark.parametrize("reply", ["502 5.5.1 what", "500 unknown", "501 syntax", "504 no", "550 what", "502"])
async def test_a_server_that_knows_no_ehlo_is_greeted_with_helo(reply: str) -> None:
    async with ScriptedServer({Stage.EHLO: [reply, "250 old"]}) as server:
        assert isinstance(await deliver(settings(server.port)), Sent)
    assert server.commands[:3] == [
        b"EHLO relay.example.org",
        b"HELO relay.example.org",
        b"MAIL FROM:<app@example.org>",
    ]


@pytest.mark.parametrize("reply", ["550 5.7.1 who are you", "554 5.7.1 no", "421 4.3.2 busy", "451 later", "503 no"])
async def test_a_refusal_of_another_kind_is_not_answered_with_helo(reply: str) -> None:
    async with ScriptedServer({Stage.EHLO: reply}) as server:
        outcome = await deliver(settings(server.port))
    assert isinstance(outcome, Deferred) and server.count(b"HELO") == 0
    assert f"{outcome.cause.code} {outcome.cause.text}" == reply


async def test_a_refusal_of_both_is_told_as_that_of_ehlo() -> None:
    async with ScriptedServer({Stage.EHLO: ["502 5.5.1 no EHLO", "550 5.7.1 nor HELO"]}) as server:
        outcome = await deliver(settings(server.port))
    assert (outcome.cause.stage, outcome.cause.code, outcome.cause.text) == (Stage.EHLO, 502, "5.5.1 no EHLO")


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"tls": "starttls"}, "does not offer STARTTLS, which its settings require"),
        ({"username": "app", "password": "x", "allow_plaintext_auth": True}, "does not offer AUTH"),
        ({"username": "app", "password": "x", "auth_mechanism": "CRAM-MD5"}, "does not offer AUTH"),
        ({"username": "app", "password": "x", "tls": "opportunistic"}, "does not offer AUTH"),
        ({"tls": "starttls", "username": "app", "password": "x"}, "does not offer STARTTLS"),
    ],
)
async def test_what_helo_cannot_give_is_named(changes: dict[str, Any], missing: str, authority: Authority) -> None:
    async with ScriptedServer({Stage.EHLO: ["502 5.5.2 EHLO?", "250 old"]}) as server:
        outcome = await deliver(settings(server.port, ca_file=authority.file, **changes))
    assert isinstance(outcome, Deferred) and outcome.scope is Scope.UPSTREAM
    assert missing in outcome.cause.text and "HELO alone (EHLO: 502 5.5.2 EHLO?)" in outcome.cause.text
    assert server.count(b"MAIL") == server.count(b"AUTH") == 0


@pytest.mark.parametrize(
    ("lines", "mechanisms"),
    [
        (("AUTH PLAIN", "AUTH LOGIN"), "PLAIN LOGIN"),
        (("AUTH GSSAPI NTLM", "AUTH=LOGIN PLAIN"), "GSSAPI NTLM LOGIN PLAIN"),
        (("AUTH=LOGIN PLAIN", "AUTH GSSAPI"), "LOGIN PLAIN GSSAPI"),
        (("AUTH plain", "AUTH PLAIN login"), "PLAIN LOGIN"),
        (("AUTH=PLAIN",), "PLAIN"),
        (("AUTH XOAUTH2 PLAIN", "SIZE 9", "AUTH CRAM-MD5"), "XOAUTH2 PLAIN CRAM-MD5"),
    ],
)
async def test_all_lines_of_auth_count_together(lines: tuple[str, ...], mechanisms: str) -> None:
    async with ScriptedServer(extensions=lines) as server:
        login: dict[str, Any] = {"username": "app", "password": "secret", "allow_plaintext_auth": True}
        opened = await open_connection(settings(server.port, **login), None)
        assert isinstance(opened, Connection) and opened.extensions["auth"] == mechanisms
        opened.abort()
