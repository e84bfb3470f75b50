"""Hostile octets: SMTP smuggling, lines that end wrongly, other protocols."""

import asyncio
import random

import pytest

from relayd.rules.session_events import Ending, Reason, Refused, SessionClosed
from relayd.submission.limits import SessionLimits
from tests.peers.raw_smtp import serving

HIDDEN = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nhidden\r\n"
FALSE_ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r"]
FALSE_ENDS += [b"\r\n\x00.\r\n", b"\r\r\n.\r\r\n"]
AMBIGUOUS = ["<a b@c.example>", "<a@x.example)b@x.example>", "<a@x.example", "<a\x01@x>", "a b@c.example"]
AMBIGUOUS += [
    "a@x.example b@x.example",
    "a@x.example,b@x.example",
    "a@x.example>",
    "a\t@x.example",
    "Ann <a@x.example>",
]
WORDS = [b"MAIL FROM:<", b"RCPT TO:<a@b>", b"DATA", b"AUTH PLAIN ", b"EHLO x"]
WORDS += [b"\r\n", b"\r\n", b"\n", b"=", b"*", b"\xff", b">"]


@pytest.mark.parametrize("false_end", FALSE_ENDS)
async def test_nothing_but_crlf_dot_crlf_ends_a_message(false_end: bytes):
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        client.send(b"Subject: x\r\n\r\nseen" + false_end + HIDDEN + b".\r\n")
        assert (await client.reply()).startswith("550 5.6.0 ")
        assert (await client.ask("NOOP")).startswith("250 ")
        assert server.door.submissions == []
        assert server.seen(Refused)[0].reason in {Reason.BARE_LF, Reason.BARE_CR, Reason.NUL}


@pytest.mark.parametrize(
    ("octets", "reason"), [(b"a\nb", Reason.BARE_LF), (b"a\rb", Reason.BARE_CR), (b"a\x00b", Reason.NUL)]
)
async def test_bare_newlines_and_nul_in_a_message_are_named(octets: bytes, reason: Reason):
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        client.send(octets + b"\r\n.\r\n")
        text = {
            Reason.BARE_LF: "Bare LF in the message: end each line with CRLF",
            Reason.BARE_CR: "Bare CR in the message: end each line with CRLF",
            Reason.NUL: "NUL in the message: remove it, or send the part in base64",
        }[reason]
        assert await client.reply() == f"550 5.6.0 {text}"
        assert [event.reason for event in server.seen(Refused)] == [reason]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"NOOP\nNOOP\r\n", Reason.BARE_LF),
        (b"NOOP\rNOOP\r\n", Reason.BARE_CR),
        (b"NO\x00OP\r\n", Reason.NUL),
        (b"MAIL FROM:<a@example.com>\nRCPT TO:<b@example.net>\r\n", Reason.BARE_LF),
        (b"NOOP\r\r\n", Reason.BARE_CR),
    ],
)
async def test_a_command_that_ends_wrongly_ends_the_session(octets: bytes, reason: Reason):
    async with serving() as server:
        client = await server.connect()
        client.send(octets + b"NOOP\r\n")
        assert (await client.reply()).startswith("500 5.5.2 ")
        assert await client.is_closed()
        assert [event.reason for event in server.seen(Refused)] == [reason]
        await server.until(lambda: [event.reason for event in server.seen(SessionClosed)] == [Ending.BARE_NEWLINE])


async def test_a_crlf_that_comes_in_two_pieces_is_one():
    async with serving() as server:
        client = await server.connect()
        for octet in b"NOOP\r\nNOOP\r\n":
            client.send(bytes([octet]))
            await asyncio.sleep(0.002)
        assert [reply[:3] for reply in await client.replies(2)] == ["250", "250"]


@pytest.mark.parametrize("octets", [4_097, 100_000, 2_000_000])
async def test_an_overlong_command_is_refused_and_forgotten(octets: int):
    async with serving() as server:
        client = await server.connect()
        client.send(b"NOOP " + b"x" * octets + b"\r\nNOOP\r\n")
        assert await client.replies(2) == ["500 5.5.2 Line too long", "250 2.0.0 OK"]


async def test_a_line_of_64_kib_is_taken_and_a_longer_one_refused():
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        assert (await client.ask("x" * 65_536 + "\r\n.")).startswith("250 ")
        await client.begin_message()
        assert await client.ask("x" * 65_537 + "\r\n.") == (
            "550 5.6.0 A line of the message is too long: write that part as quoted-printable or base64"
        )


@pytest.mark.parametrize("octets", [b"NOOP \xff\r\n", b"\xc3\x28\r\n"])
async def test_a_command_that_is_not_utf8_is_refused(octets: bytes):
    async with serving() as server:
        client = await server.connect()
        client.send(octets)
        assert await client.reply() == "500 5.5.2 Not UTF-8"


async def test_a_browser_is_sent_away_before_its_body_is_read():
    async with serving() as server:
        client = await server.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO x\r\n" + HIDDEN + b".\r\n")
        assert (await client.reply()).startswith("421 4.7.0 ")
        assert await client.is_closed()
        assert server.door.submissions == []


@pytest.mark.parametrize("sender", AMBIGUOUS)
async def test_an_address_that_could_be_read_in_two_ways_is_refused(sender: str):
    async with serving() as server:
        client = await server.connect()
        await client.ask("EHLO x")
        assert (await client.ask(f"MAIL FROM:{sender}"))[:3] in {"501", "553"}


async def test_control_characters_do_not_reach_the_log():
    async with serving() as server:
        client = await server.connect()
        await client.ask("EHLO x")
        await client.ask("MAIL FROM:<\x1b[2J@x>")
        assert all(event.detail.isprintable() and event.detail.isascii() for event in server.seen(Refused))


async def test_a_message_cut_at_any_border_is_the_same_message():
    chance = random.Random(7)
    stream = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\na\r\n..b\r\n\r\n..\r\n.\r\n"
    async with serving(limits=SessionLimits(max_connections_per_peer=1_000)) as server:
        for cut in range(1, len(stream)):
            client = await server.connect()
            client.send(stream[:cut])
            await asyncio.sleep(0.001 * chance.random())
            client.send(stream[cut:])
            assert [reply[:3] for reply in await client.replies(5)] == ["250", "250", "250", "354", "250"]
        assert {submission.content for submission in server.door.submissions} == {b"a\r\n.b\r\n\r\n.\r\n"}


async def test_noise_never_breaks_a_session():
    chance = random.Random(11)
    async with serving(allow_plaintext_auth=True) as server:
        for _ in range(100):
            client = await server.connect()
            client.send(b"".join(chance.choice(WORDS) for _ in range(60)) + b"\r\n.\r\nQUIT\r\n")
            client.writer.write_eof()
            await asyncio.wait_for(client.reader.read(), 20)
        await server.until(lambda: server.listener.connections == 0)
        assert Ending.BROKEN not in {event.reason for event in server.seen(SessionClosed)}
