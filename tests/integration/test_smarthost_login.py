"""Logging in to a smarthost: which mechanism, and never where others read along."""

import base64
from pathlib import Path

import pytest
from aiosmtplib.auth import auth_crammd5_verify

from relayd.rules.outcome import Deferred, Sent, Stage
from relayd.upstream.settings import AuthMechanism
from relayd.upstream.smarthost import Smarthost, SmarthostSettings
from tests.peers.mail import Authority, settings, transmission
from tests.peers.smtp_server import CHALLENGE, ScriptedServer

LOGIN = {"username": "tim", "password": "tanstaaftanstaaf"}
# RFC 2195 2 gives the digest of its example.
PROOF = base64.b64encode(b"tim b913a602c7eda7a495b4e6e7334d3890")
PLAIN = b"AUTH PLAIN " + base64.b64encode(b"\0tim\0tanstaaftanstaaf")


async def deliver(chosen: SmarthostSettings) -> Sent | Deferred:
    smarthost = Smarthost(chosen)
    (outcome,) = await smarthost.deliver(transmission())
    await smarthost.close()
    assert isinstance(outcome, Sent | Deferred)
    return outcome


async def test_cram_md5_answers_the_challenge() -> None:
    async with ScriptedServer(extensions=("AUTH CRAM-MD5",)) as server:
        outcome = await deliver(settings(server.port, **LOGIN))
    assert isinstance(outcome, Sent)
    assert server.commands[1:3] == [b"AUTH CRAM-MD5", PROOF]


@pytest.mark.parametrize(
    ("offer", "is_safe", "permitted", "named", "expected"),
    [
        ("AUTH CRAM-MD5 LOGIN PLAIN", True, False, None, PLAIN),
        ("AUTH CRAM-MD5 LOGIN", True, False, None, b"AUTH LOGIN"),
        ("AUTH DIGEST-MD5 CRAM-MD5", True, False, None, b"AUTH CRAM-MD5"),
        ("AUTH CRAM-MD5 LOGIN PLAIN", True, False, "CRAM-MD5", b"AUTH CRAM-MD5"),
        ("AUTH CRAM-MD5 LOGIN PLAIN", False, False, None, b"AUTH CRAM-MD5"),
        ("AUTH CRAM-MD5 LOGIN PLAIN", False, True, None, b"AUTH CRAM-MD5"),
        ("AUTH LOGIN PLAIN", False, True, None, PLAIN),
        ("AUTH LOGIN PLAIN", False, False, None, None),
        ("AUTH PLAIN CRAM-MD5", False, False, "PLAIN", None),
        ("AUTH PLAIN LOGIN CRAM-MD5", False, False, "LOGIN", None),
        ("AUTH XOAUTH2", False, False, "XOAUTH2", None),
        ("AUTH XOAUTH2", True, False, "XOAUTH2", None),
    ],
)
async def test_the_mechanism_follows_offer_settings_and_line(
    offer: str,
    is_safe: bool,
    permitted: bool,
    named: AuthMechanism | None,
    expected: bytes | None,
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    tls = authority.server_context("127.0.0.1") if is_safe else None
    async with ScriptedServer(extensions=(offer,), implicit_tls=tls) as server:
        chosen = settings(
            server.port,
            tls="implicit" if is_safe else "none",
            ca_file=authority.file,
            auth_mechanism=named,
            allow_plaintext_auth=permitted,
            **LOGIN,
        )
        outcome = await deliver(chosen)
    if expected is None:
        assert isinstance(outcome, Deferred)
        assert outcome.cause.stage is Stage.AUTH
        assert server.commands == [b"EHLO relay.example.org"]
    else:
        assert isinstance(outcome, Sent)
        assert server.commands[1] == expected


async def test_a_unix_socket_is_safe_for_a_login(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp")
    async with ScriptedServer(extensions=("AUTH PLAIN",), unix_socket=path) as server:
        outcome = await deliver(settings(0, host=path, **LOGIN))
    assert isinstance(outcome, Sent)
    assert server.commands[1] == PLAIN


async def test_a_response_too_long_for_a_command_comes_after_the_challenge(tmp_path: Path) -> None:
    path, password = str(tmp_path / "smtp"), "x" * 2000
    async with ScriptedServer(extensions=("AUTH PLAIN",), unix_socket=path) as server:
        outcome = await deliver(settings(0, host=path, username="tim", password=password))
    assert isinstance(outcome, Sent)
    assert server.commands[1:3] == [b"AUTH PLAIN", base64.b64encode(b"\0tim\0" + password.encode())]


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT])
async def test_an_echoed_proof_never_leaves(stage: Stage) -> None:
    async with ScriptedServer({stage: f"451 you said {PROOF.decode()}"}, extensions=("AUTH CRAM-MD5",)) as server:
        outcome = await deliver(settings(server.port, **LOGIN))
    assert "you said ***" in outcome.cause.text
    assert auth_crammd5_verify("tim", LOGIN["password"], CHALLENGE) == PROOF


@pytest.mark.parametrize("challenge", ["334 not base64", "334 =", "334 "])
async def test_a_challenge_that_is_none_is_no_reason_to_fail_mail(challenge: str) -> None:
    async with ScriptedServer({Stage.AUTH: challenge}, extensions=("AUTH CRAM-MD5",)) as server:
        outcome = await deliver(settings(server.port, **LOGIN))
    assert isinstance(outcome, Deferred)
    assert server.messages == []
