"""SendGrid's Web API over real HTTPS: what it is given, and what its answers mean."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from relayd.mail.address import Address
from relayd.rules.breaker import Failing, sign_of
from relayd.rules.outcome import Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.upstream.http import Timeouts
from relayd.upstream.sendgrid import SendGrid, SendGridSettings
from relayd.upstream.table import DIALECTS
from relayd.upstream.verdict import GENERIC
from tests.peers.mail import Authority, transmission
from tests.peers.sendgrid_api import KEY, Cut, Say, SendGridApi

RULES = (*DIALECTS["sendgrid"], *GENERIC)
MAIL = (
    b"Received: from app by relay\r\nDKIM-Signature: v=1; d=example.org\r\n"
    b"From: =?utf-8?q?App_=E2=82=AC?= <app@example.org>\r\nTo: One <one@example.net>, two@example.net\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.org>\r\nX-App: 7\r\n\r\nhello\r\n"
)
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@asynccontextmanager
async def speaking_to(api: SendGridApi, authority: Authority, **changes: Any) -> AsyncIterator[SendGrid]:
    chosen = SendGridSettings(key=KEY, url=api.url, ca_file=authority.file, rules=RULES, timeouts=Timeouts(20, 20))
    sendgrid = SendGrid(replace(chosen, **changes), wall_clock=lambda: NOW)
    yield sendgrid
    await sendgrid.close()


async def answered(authority: Authority, *script: Say | Cut, **changes: Any) -> tuple[Outcome, ...]:
    async with (
        SendGridApi(authority.server_context("localhost"), *script) as api,
        speaking_to(api, authority, **changes) as sendgrid,
    ):
        return await sendgrid.deliver(transmission("one@example.net", "two@example.net", content=MAIL))


async def test_a_message_goes_in_pieces_to_those_who_are_named(authority: Authority) -> None:
    async with SendGridApi(authority.server_context("localhost")) as api, speaking_to(api, authority) as sendgrid:
        outcomes = await sendgrid.deliver(
            transmission("one@example.net", "two@example.net", "three@example.com", content=MAIL)
        )
        assert [type(outcome) for outcome in outcomes] == [Sent] * 3
        assert isinstance(outcomes[0], Sent) and outcomes[0].provider_message_id == "id-1"
        (mail,) = api.taken
    assert mail["personalizations"] == [
        {
            "to": [{"email": "one@example.net", "name": "One"}, {"email": "two@example.net"}],
            "bcc": [{"email": "three@example.com"}],
        }
    ]
    assert mail["from"] == {"email": "app@example.org", "name": "App €"}
    assert mail["subject"] == "Grüße"
    assert mail["content"] == [{"type": "text/plain", "value": "hello\r\n"}]
    assert mail["headers"] == {"Message-ID": "<1@example.org>", "X-App": "7"}


async def test_a_domain_beyond_ascii_is_given_as_dns_knows_it(authority: Authority) -> None:
    content = MAIL.replace(b"One <one@example.net>", "One <one@bücher.example>".encode())
    sender = Address.parse("app@bücher.example")
    recipients = ("one@bücher.example", "two@example.net", "three@例え.test", "jörg@bücher.example", "δ@example.net")
    async with SendGridApi(authority.server_context("localhost")) as api, speaking_to(api, authority) as sendgrid:
        outcomes = await sendgrid.deliver(transmission(*recipients, content=content, reverse_path=sender))
        (mail,) = api.taken
    assert [type(outcome) for outcome in outcomes] == [Sent, Sent, Sent, Failed, Failed]
    for outcome in outcomes[3:]:
        assert isinstance(outcome, Failed)
        assert (outcome.scope, outcome.cause.enhanced) == (Scope.RECIPIENT, "5.6.7")
    assert mail["personalizations"] == [
        {
            "to": [{"email": "one@xn--bcher-kva.example", "name": "One"}, {"email": "two@example.net"}],
            "bcc": [{"email": "three@xn--r8jz45g.test"}],
        }
    ]


@pytest.mark.parametrize("recipients", [("one@example.net",), ("one@example.net", "new@example.com")])
async def test_whoever_is_named_but_no_recipient_gets_nothing(
    authority: Authority, recipients: tuple[str, ...]
) -> None:
    async with SendGridApi(authority.server_context("localhost")) as api, speaking_to(api, authority) as sendgrid:
        outcomes = await sendgrid.deliver(transmission(*recipients, content=MAIL))
        assert [type(outcome) for outcome in outcomes] == [Sent] * len(recipients)
        assert api.taken[0]["personalizations"] == [{"to": [{"email": each}]} for each in recipients]


SHORT = [
    (Say(400, {"errors": [{"message": "bad", "field": "subject"}]}), Failed, Scope.MESSAGE, None),
    (Say(413, ""), Failed, Scope.MESSAGE, None),
    (Say(401, {"errors": [{"message": "invalid grant"}]}), Postponed, Scope.UPSTREAM, 300.0),
    (Say(403, {"errors": [{"message": "access forbidden"}]}), Postponed, Scope.UPSTREAM, 300.0),
    (
        Say(403, {"errors": [{"message": "from does not match a verified Sender Identity"}]}),
        *(Postponed, Scope.MAILBOX, 3600.0),
    ),
    (Say(401, {"errors": [{"message": "Maximum credits exceeded"}]}), Postponed, Scope.UPSTREAM, 3600.0),
    (Say(429, "", {"Retry-After": "17"}), Postponed, Scope.UPSTREAM, 17.0),
    (Say(429, "", {"X-RateLimit-Reset": str(int(NOW) + 42)}), Postponed, Scope.UPSTREAM, 42.0),
    (Say(429, ""), Postponed, Scope.UPSTREAM, 60.0),
    (Say(408, ""), Uncertain, None, None),
    (Say(500, "oops"), Uncertain, None, None),
    (Say(502, ""), Uncertain, None, None),
    (Say(503, ""), Uncertain, None, None),
    (Say(504, ""), Uncertain, None, None),
    (Say(501, ""), Deferred, Scope.UPSTREAM, None),
    (Say(301, "", {"Location": "https://elsewhere.example/"}), Deferred, Scope.UPSTREAM, None),
    (Say(200, "{}"), Uncertain, None, None),
    (Cut(), Uncertain, None, None),
    (Cut(is_taken=False), Uncertain, None, None),
]


@pytest.mark.parametrize(("step", "kind", "scope", "hold"), SHORT, ids=lambda value: repr(value)[:60])
async def test_each_answer_has_its_outcome(
    authority: Authority, step: Say | Cut, kind: type[Outcome], scope: Scope | None, hold: float | None
) -> None:
    outcomes = await answered(authority, step)
    assert [type(outcome) for outcome in outcomes] == [kind, kind]
    for outcome in outcomes:
        assert getattr(outcome, "scope", None) == scope
        assert getattr(outcome, "hold_seconds", None) == hold


@pytest.mark.parametrize(("step", "fails"), [(Say(503, ""), True), (Say(408, ""), True), (Cut(), False)])
async def test_an_api_that_says_it_is_in_trouble_opens_its_breaker_and_silence_does_not(
    authority: Authority, step: Say | Cut, fails: bool
) -> None:
    assert isinstance(sign_of(await answered(authority, step)), Failing) == fails


async def test_a_wrong_key_is_postponed_and_told_nowhere(authority: Authority) -> None:
    outcome, _ = await answered(authority, key="SG.canary-other")
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.UPSTREAM
    assert "canary" not in repr(outcome)
    outcome, _ = await answered(authority, Say(400, f"you sent {KEY}"))
    assert "canary" not in repr(outcome) and "you sent ***" in outcome.cause.text
    assert "canary" not in repr(SendGridSettings(key=KEY))


async def test_one_bad_recipient_fails_alone_and_the_others_go_at_once(authority: Authority) -> None:
    async with (
        SendGridApi(authority.server_context("localhost"), bad=("two@example.net",)) as api,
        speaking_to(api, authority) as sendgrid,
    ):
        first, second, third = await sendgrid.deliver(
            transmission("one@example.net", "two@example.net", "three@example.com", content=MAIL)
        )
        assert isinstance(second, Failed) and second.scope is Scope.RECIPIENT
        for other in (first, third):
            assert isinstance(other, Postponed) and (other.scope, other.hold_seconds) == (Scope.MESSAGE, 0)
        (alone,) = await sendgrid.deliver(transmission("two@example.net", content=MAIL))
        assert isinstance(alone, Failed) and alone.scope is Scope.RECIPIENT
        assert api.taken == []


async def test_addresses_beyond_ascii_fail_alone(authority: Authority) -> None:
    async with SendGridApi(authority.server_context("localhost")) as api, speaking_to(api, authority) as sendgrid:
        one, other = await sendgrid.deliver(transmission("one@example.net", "grüße@example.net", content=MAIL))
        assert isinstance(one, Sent)
        assert isinstance(other, Failed) and (other.scope, other.cause.enhanced) == (Scope.RECIPIENT, "5.6.7")
        assert [each["to"][0]["email"] for each in api.taken[0]["personalizations"]] == ["one@example.net"]


async def test_nothing_is_asked_where_the_message_cannot_be_carried(authority: Authority) -> None:
    async with SendGridApi(authority.server_context("localhost")) as api, speaking_to(api, authority) as sendgrid:
        for changes in (
            {"reverse_path": None},
            {"content": MAIL.replace(b"\r\n\r\n", b"\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n")},
            {"reverse_path": Address.parse("grüße@example.org")},
        ):
            (outcome,) = await sendgrid.deliver(transmission("one@example.net", **{"content": MAIL, **changes}))
            assert isinstance(outcome, Failed), changes
        assert api.requests == 0


async def test_a_connection_that_never_came_about_is_no_doubt(authority: Authority) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        closed = f"https://localhost:{listening.getsockname()[1]}"
        outcome, _ = await answered(authority, url=closed)
    assert isinstance(outcome, Deferred) and outcome.scope is Scope.UPSTREAM


@pytest.mark.parametrize("broken", ["ca_file", "name"])
async def test_a_certificate_that_is_not_trusted_sends_nothing(authority: Authority, broken: str) -> None:
    name = "elsewhere.example" if broken == "name" else "localhost"
    async with SendGridApi(authority.server_context(name)) as api:
        changes = {"ca_file": None} if broken == "ca_file" else {}
        async with speaking_to(api, authority, **changes) as sendgrid:
            (outcome,) = await sendgrid.deliver(transmission("one@example.net", content=MAIL))
        assert isinstance(outcome, Deferred) and "certificate" in outcome.cause.text
        assert api.requests == 0


async def test_a_missing_ca_file_is_told(authority: Authority) -> None:
    outcome, _ = await answered(authority, ca_file="/nonexistent.pem")
    assert isinstance(outcome, Deferred) and "/nonexistent.pem" in outcome.cause.text


async def test_many_at_once_share_the_connections(authority: Authority) -> None:
    async with (
        SendGridApi(authority.server_context("localhost")) as api,
        speaking_to(api, authority, max_connections=2) as sendgrid,
    ):
        mails = [sendgrid.deliver(transmission("one@example.net", content=MAIL)) for _ in range(20)]
        assert all(isinstance(outcome, Sent) for (outcome,) in await asyncio.gather(*mails))
        assert len(api.taken) == 20


async def test_what_hangs_on_a_message_arrives_whole(authority: Authority) -> None:
    picture = bytes(range(256)) * 4
    content = (
        b"From: app@example.org\r\nTo: one@example.net\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/related; boundary=r\r\n\r\n--r\r\nContent-Type: text/html; charset=iso-8859-1\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>Gr=FC=DFe</p>\r\n--r\r\nContent-Type: image/png\r\n"
        b"Content-ID: <logo@x>\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(picture).replace(b"\n", b"\r\n")
        + b"--r--\r\n"
    )
    async with SendGridApi(authority.server_context("localhost")) as api, speaking_to(api, authority) as sendgrid:
        (outcome,) = await sendgrid.deliver(transmission("one@example.net", content=content))
        assert isinstance(outcome, Sent)
    (mail,) = api.taken
    assert mail["content"] == [{"type": "text/html", "value": "<p>Grüße</p>"}]
    (attached,) = mail["attachments"]
    assert base64.b64decode(attached["content"]) == picture
    assert (attached["disposition"], attached["content_id"], attached["type"]) == ("inline", "logo@x", "image/png")


async def test_a_body_that_is_not_read_whole_was_certainly_not_sent(authority: Authority) -> None:
    opened: list[asyncio.WriteTransport] = []

    async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer.transport)
        opened[0].pause_reading()  # type: ignore[attr-defined]

    tls = authority.server_context("localhost")
    async with await asyncio.start_server(read_nothing, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        sendgrid = SendGrid(
            SendGridSettings(
                key=KEY, url=f"https://localhost:{port}", ca_file=authority.file, rules=RULES, timeouts=Timeouts(20, 2)
            )
        )
        (outcome,) = await sendgrid.deliver(transmission(content=MAIL + (b"x" * 900 + b"\r\n") * 20_000))
        await sendgrid.close()
        opened[0].abort()
        await asyncio.sleep(0.1)  # it closes its socket in the next turns of the loop
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.cause.stage) == (Scope.UPSTREAM, Stage.DATA)
