"""What a sender wants to be told goes on to an upstream that offers to tell it (RFC 3461)."""

from typing import Any

import pytest

from relayd.mail.envelope import RecipientNotice
from relayd.rules.outcome import Failed, Sent, Stage
from relayd.upstream.smarthost import Smarthost
from tests.peers.mail import settings, transmission
from tests.peers.smtp_server import ScriptedServer

ASKED = {
    "notices": (
        RecipientNotice("SUCCESS,DELAY", "rfc822;One+2B1@Example.NET"),
        RecipientNotice("NEVER"),
        RecipientNotice(),
    ),
    "dsn_ret": "HDRS",
    "envelope_id": "Order+2B17",
}
RECIPIENTS = ("one@example.net", "two@example.net", "three@example.net")


async def sent(server: ScriptedServer, **changes: Any) -> tuple[list[bytes], Sent]:
    """The envelope's commands, without what else stands on MAIL, and the outcome of the last recipient."""
    smarthost = Smarthost(settings(server.port))
    outcomes = await smarthost.deliver(transmission(*RECIPIENTS, **changes))
    await smarthost.close()
    assert isinstance(outcomes[-1], Sent)
    return [command for command in server.commands if command[:4] in (b"MAIL", b"RCPT")], outcomes[-1]


@pytest.mark.parametrize("others", [(), ("PIPELINING",)])
async def test_what_was_asked_goes_on_as_it_came(others: tuple[str, ...]) -> None:
    async with ScriptedServer(extensions=("DSN", *others)) as server:
        commands, outcome = await sent(server, **ASKED)
    assert commands == [
        b"MAIL FROM:<app@example.org> RET=HDRS ENVID=Order+2B17",
        b"RCPT TO:<one@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;One+2B1@Example.NET",
        b"RCPT TO:<two@example.net> NOTIFY=NEVER",
        b"RCPT TO:<three@example.net>",
    ]
    assert outcome.dsn_passed


@pytest.mark.parametrize("others", [(), ("PIPELINING",), ("SIZE", "8BITMIME", "SMTPUTF8")])
async def test_nothing_is_said_of_it_where_it_is_not_offered(others: tuple[str, ...]) -> None:
    async with ScriptedServer(extensions=("X-NOTHING", *others)) as server:
        commands, outcome = await sent(server, **ASKED)
    assert not [command for command in commands if b"NOTIFY" in command or b"RET=" in command or b"ORCPT" in command]
    assert not outcome.dsn_passed


async def test_where_nothing_was_asked_nothing_is_said() -> None:
    async with ScriptedServer(extensions=("DSN",)) as server:
        commands, outcome = await sent(server)
    assert commands == [b"MAIL FROM:<app@example.org>", *(b"RCPT TO:<%s>" % each.encode() for each in RECIPIENTS)]
    assert outcome.dsn_passed


@pytest.mark.parametrize(
    "notice",
    [
        RecipientNotice("SUCCESS ORCPT=x"),
        RecipientNotice("SUCCESS\r\nRCPT TO:<thief@example.net>"),
        RecipientNotice("NEVER,SUCCESS"),
        RecipientNotice(orcpt="rfc822;a SIZE=1"),
        RecipientNotice(orcpt="rfc822;a\r\nDATA"),
        RecipientNotice(orcpt="rfc822;a\nDATA"),
        RecipientNotice(orcpt="rfc822;a+b"),
        RecipientNotice(orcpt="no-type"),
        RecipientNotice(orcpt="rfc822;jörg@example.net"),
        RecipientNotice(orcpt="utf-8;jörg @example.net"),
        RecipientNotice(orcpt="utf-8;jörg+b@example.net"),
        RecipientNotice(orcpt="utf-8;" + "ö" * 400),
        RecipientNotice(orcpt="rfc822;" + "a" * 500),
    ],
)
@pytest.mark.parametrize("identifier", ["a b", "a\r\nRSET", "a=b", "x" * 101, "", "é"])
async def test_a_parameter_that_is_no_parameter_is_left_out(notice: RecipientNotice, identifier: str) -> None:
    async with ScriptedServer(extensions=("DSN",)) as server:
        changes = {"notices": (notice,) * 3, "dsn_ret": "FULL SIZE=1", "envelope_id": identifier}
        commands, _ = await sent(server, **changes)
    assert commands == [b"MAIL FROM:<app@example.org>", *(b"RCPT TO:<%s>" % each.encode() for each in RECIPIENTS)]
    assert len(server.messages) == 1


async def test_an_address_of_utf8_goes_on_where_utf8_is_spoken() -> None:
    notices = (RecipientNotice("DELAY", "utf-8;jörg@example.net"),) * 3
    async with ScriptedServer(extensions=("DSN", "SMTPUTF8", "8BITMIME")) as server:
        commands, _ = await sent(server, notices=notices, smtputf8=True)
    assert commands[1] == "RCPT TO:<one@example.net> NOTIFY=DELAY ORCPT=utf-8;jörg@example.net".encode()


@pytest.mark.parametrize(
    ("orcpt", "spelled"),
    [
        ("utf-8;jörg@example.net", rb"utf-8;j\x{F6}rg@example.net"),
        ("UTF-8;jo@bücher.example", rb"UTF-8;jo@b\x{FC}cher.example"),
        ("utf-8;δ@b.test", rb"utf-8;\x{3B4}@b.test"),
        ("utf-8;\U0001f600@b.test", rb"utf-8;\x{1F600}@b.test"),
        (r"utf-8;j\x{F6}rg@b.test", rb"utf-8;j\x{F6}rg@b.test"),
    ],
)
async def test_an_address_of_utf8_is_spelled_out_where_utf8_is_not_spoken(orcpt: str, spelled: bytes) -> None:
    """RFC 6533 3."""
    async with ScriptedServer(extensions=("DSN", "8BITMIME")) as server:
        commands, _ = await sent(server, notices=(RecipientNotice(orcpt=orcpt),) * 3)
    assert commands[1] == b"RCPT TO:<one@example.net> ORCPT=" + spelled


async def test_a_refused_recipient_was_not_taken_over() -> None:
    async with ScriptedServer({Stage.RCPT: ["250 ok", "550 5.1.1 no", "250 ok"]}, extensions=("DSN",)) as server:
        smarthost = Smarthost(settings(server.port))
        outcomes = await smarthost.deliver(transmission(*RECIPIENTS, **ASKED))
        await smarthost.close()
    assert [type(outcome) for outcome in outcomes] == [Sent, Failed, Sent]
