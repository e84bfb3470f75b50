"""TLS to a smarthost, by policy: what is demanded, what is shown, and what the operator is told when it fails."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relayd.rules.outcome import Deferred, Outcome, Sent, Stage
from relayd.upstream.settings import AuthMechanism
from relayd.upstream.smarthost import Smarthost
from tests.peers.mail import Authority, settings, transmission
from tests.peers.smtp_server import Disconnect, ScriptedServer

LOGIN = {"username": "app", "password": "correct horse"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


async def deliver(port: int, **changes: Any) -> Outcome:
    smarthost = Smarthost(settings(port, **changes))
    (outcome,) = await smarthost.deliver(transmission())
    await smarthost.close()
    return outcome


# Opportunistic


async def test_opportunistic_takes_tls_from_whomever(stranger: Authority) -> None:
    async with ScriptedServer(starttls=stranger.server_context("elsewhere.example")) as server:
        assert isinstance(await deliver(server.port, tls="opportunistic"), Sent)
    assert [session.is_tls for session in server.sessions] == [True]


async def test_opportunistic_does_without() -> None:
    async with ScriptedServer() as server:
        assert isinstance(await deliver(server.port, tls="opportunistic"), Sent)
    assert server.count(b"STARTTLS") == 0


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", Disconnect(), "220 go\nand this is no TLS"], ids=str)
async def test_opportunistic_does_without_when_it_fails(reply: "str | Disconnect", stranger: Authority) -> None:
    context = stranger.server_context("elsewhere.example")
    async with ScriptedServer({Stage.STARTTLS: reply}, starttls=context) as server:
        assert isinstance(await deliver(server.port, tls="opportunistic"), Sent)
    assert [session.is_tls for session in server.sessions][-1] is False
    assert len(server.messages) == 1


@pytest.mark.parametrize("reply", [None, "454 4.7.0 not now"])
async def test_opportunistic_never_logs_in_in_the_clear(reply: str | None, stranger: Authority) -> None:
    context = stranger.server_context("elsewhere.example") if reply else None
    async with ScriptedServer({Stage.STARTTLS: reply} if reply else None, starttls=context) as server:
        outcome = await deliver(server.port, tls="opportunistic", **LOGIN)
    assert isinstance(outcome, Deferred)
    assert outcome.cause.stage is Stage.AUTH
    assert server.count(b"AUTH") == 0


@pytest.mark.parametrize(
    ("offer", "mechanism", "expected"),
    [
        ("AUTH PLAIN LOGIN XOAUTH2", None, None),
        ("AUTH PLAIN", "PLAIN", None),
        ("AUTH LOGIN", "LOGIN", None),
        ("AUTH PLAIN CRAM-MD5", None, b"AUTH CRAM-MD5"),
    ],
)
async def test_opportunistic_tells_no_password_to_whoever_answers(
    offer: str, mechanism: AuthMechanism | None, expected: bytes | None, stranger: Authority
) -> None:
    async with ScriptedServer(extensions=(offer,), starttls=stranger.server_context("elsewhere.example")) as server:
        outcome = await deliver(server.port, tls="opportunistic", auth_mechanism=mechanism, **LOGIN)
    said = [command for command in server.commands if command.startswith(b"AUTH")]
    assert server.sessions[0].is_tls
    if expected is not None:
        assert isinstance(outcome, Sent) and said == [expected]
        return
    assert isinstance(outcome, Deferred) and outcome.cause.stage is Stage.AUTH and said == []
    assert "over opportunistic TLS, which verifies no certificate: set tls to starttls" in outcome.cause.text


@pytest.mark.parametrize(
    "word", [{"tls": "opportunistic", "allow_plaintext_auth": True}, {"tls": "starttls", "verify_certificate": False}]
)
async def test_the_operators_word_lets_a_password_go_to_whoever_answers(
    word: dict[str, Any], stranger: Authority
) -> None:
    async with ScriptedServer(
        extensions=("AUTH PLAIN",), starttls=stranger.server_context("elsewhere.example")
    ) as server:
        assert isinstance(await deliver(server.port, **word, **LOGIN), Sent)
    assert server.count(b"AUTH PLAIN") == 1


# What fails, and what is said of it


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_certificate_for_another_name_is_told_with_both_names(tls: str, authority: Authority) -> None:
    context = authority.server_context("mail.example.net", "mail2.example.net")
    by_mode = {"starttls": context} if tls == "starttls" else {"implicit_tls": context}
    async with ScriptedServer(**by_mode) as server:
        outcome = await deliver(server.port, host="localhost", tls=tls, ca_file=authority.file, **LOGIN)
    assert isinstance(outcome, Deferred)
    assert outcome.cause.text == (
        "TLS: certificate not accepted: it is for mail.example.net, mail2.example.net, not for localhost"
    )
    assert not [command for command in server.commands if command.split()[0] not in (b"EHLO", b"STARTTLS")]


async def test_an_expired_certificate_is_refused_and_told(authority: Authority) -> None:
    long_ago = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}
    async with ScriptedServer(implicit_tls=authority.server_context("localhost", **long_ago)) as server:
        outcome = await deliver(server.port, host="localhost", tls="implicit", ca_file=authority.file)
    assert isinstance(outcome, Deferred)
    assert outcome.cause.text == "TLS: certificate not accepted: certificate has expired"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_of_tls_are_not_spoken(authority: Authority) -> None:
    context = authority.server_context("localhost")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with ScriptedServer(implicit_tls=context) as server:
        outcome = await deliver(
            server.port, host="localhost", tls="implicit", ca_file=authority.file, verify_certificate=False
        )
    assert isinstance(outcome, Deferred)
    assert outcome.cause.stage is Stage.CONNECT
    assert server.commands == []


# The client's certificate


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_client_certificate_is_shown(tls: str, authority: Authority, stranger: Authority) -> None:
    chain, key = stranger.pair("relay.example.org")
    context = authority.server_context("localhost", client=stranger)
    by_mode = {"starttls": context} if tls == "starttls" else {"implicit_tls": context}
    async with ScriptedServer(**by_mode) as server:
        common = {"host": "localhost", "tls": tls, "ca_file": authority.file}
        assert isinstance(await deliver(server.port, **common, client_certificate=chain, client_key=key), Sent)
        assert server.sessions[0].client["subjectAltName"] == (("DNS", "relay.example.org"),)
        assert isinstance(await deliver(server.port, **common), Deferred)
    assert len(server.messages) == 1


@pytest.mark.parametrize("key", [b"", b"-----BEGIN PRIVATE KEY-----\ncanary\n", b"canary"])
async def test_a_client_key_of_no_use_is_told_and_not_shown(
    key: bytes, authority: Authority, stranger: Authority
) -> None:
    chain, _ = stranger.pair("relay.example.org")
    async with ScriptedServer(implicit_tls=authority.server_context("localhost")) as server:
        outcome = await deliver(server.port, host="localhost", tls="implicit", client_certificate=chain, client_key=key)
    assert isinstance(outcome, Deferred)
    assert outcome.cause.text.startswith("the client certificate cannot be used")
    assert "canary" not in repr(outcome)
    assert server.sessions == []


# A Unix socket


async def test_a_unix_socket_is_an_upstream(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp")
    async with ScriptedServer(unix_socket=path) as server:
        assert isinstance(await deliver(0, host=path), Sent)
    assert len(server.messages) == 1


async def test_a_unix_socket_that_is_not_there_is_deferred(tmp_path: Path) -> None:
    outcome = await deliver(0, host=str(tmp_path / "smtp"))
    assert isinstance(outcome, Deferred)
    assert (outcome.cause.stage, outcome.cause.text) == (Stage.CONNECT, "No such file or directory")


async def test_tls_over_a_unix_socket_is_refused(tmp_path: Path) -> None:
    outcome = await deliver(0, host=str(tmp_path / "smtp"), tls="starttls")
    assert isinstance(outcome, Deferred)
    assert "set tls to none" in outcome.cause.text
