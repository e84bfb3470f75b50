"""What clients send that is not quite SMTP: taken where it has one meaning, refused with the right form where not."""

from datetime import UTC, datetime

import pytest

from relayd.mail.address import Address
from relayd.mail.headers import scan
from relayd.mail.reply import Reply
from relayd.mail.trace import received_field
from relayd.rules.session_events import Reason, Refused
from relayd.submission.limits import SessionLimits
from tests.peers.raw_smtp import RawClient, Server, serving

STRICT = SessionLimits(reject_invalid_helo=True)
OFFERS = "250-mail.test\n"


async def recipients_of(server: Server, client: RawClient, content: str = "From: a@example.com\r\n\r\nx") -> list[str]:
    """What the door gets when the message ends here."""
    assert await client.codes("DATA", content + "\r\n.") == [354, 250]
    return [str(path) for path in server.door.submissions[-1].envelope.forward_paths]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"EHLO", "unknown"),
        (b"EHLO ", "unknown"),
        (b"HELO", "unknown"),
        (b"EHLO My PC", "My?PC"),
        (b"EHLO my_pc", "my_pc"),
        (b"EHLO J\xc3\xb6rgs-MacBook", "J?rgs-MacBook"),
        (b"ehlo J\xf6rgs-MacBook", "J?rgs-MacBook"),
        (b"EHLO \xe6\x9d\xb1\xe4\xba\xac.example", "??.example"),
        (b"HELO a(b) ;c\x1b[2J", "a?b??;c?[2J"),
        (b"EHLO <x>\tfrom evil", "?x??from?evil"),
        (b"EHLO " + b"x" * 400, "x" * 255),
        (b"EHLO [127.0.0.1]", "[127.0.0.1]"),
        (b"EHLO app.example.com", "app.example.com"),
    ],
)
async def test_any_ehlo_name_is_taken_and_made_fit_for_received(line: bytes, name: str):
    async with serving() as server:
        client = await server.connect()
        client.send(line + b"\r\n")
        assert (await client.reply()).startswith("250")
        assert await client.codes("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>") == [250, 250]
        await recipients_of(server, client)
        (submission,) = server.door.submissions
        assert submission.helo == name
    when = datetime(2026, 1, 6, tzinfo=UTC)
    field = received_field(
        helo=submission.helo, peer="::1", host="h", protocol="SMTP", queue_id="q", when=when, tls=None, recipient=None
    )
    assert field.isascii() and field.count(b"\r\n") == 4 and len(scan(field + b"\r\n").fields) == 1
    assert all(len(line) < 998 for line in field.split(b"\r\n"))


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("", False),
        ("My PC", False),
        ("J\u00f6rgs-PC", False),
        ("a(b)", False),
        ("[300.1.1.1]", False),
        ("-x.example", False),
        ("x..example", False),
        ("app.example.com", True),
        ("localhost", True),
        ("[192.0.2.1]", True),
        ("[IPv6:2001:db8::1]", True),
    ],
)
async def test_an_ehlo_name_that_names_no_host_is_refused_where_the_operator_wants_that(name: str, is_taken: bool):
    async with serving(limits=STRICT) as server:
        client = await server.connect()
        reply = await client.ask(f"EHLO {name}")
        assert reply.startswith(OFFERS) if is_taken else reply == "501 5.5.4 Syntax: EHLO hostname"
        assert [event.reason for event in server.seen(Refused)] == ([] if is_taken else [Reason.BAD_SYNTAX])


@pytest.mark.parametrize("line", [b"MAIL FROM:<\xf6@x>", b"NOOP \xf6", b"EHLOX \xf6"])
async def test_other_commands_are_utf8(line: bytes):
    async with serving() as server:
        client = await server.connect()
        client.send(line + b"\r\n")
        assert await client.reply() == "500 5.5.2 Not UTF-8"


@pytest.mark.parametrize(
    ("mail", "rcpt"),
    [
        ("MAIL FROM: a@example.com", "RCPT TO: b@example.net"),
        ("MAIL FROM:a@example.com", "RCPT TO:b@example.net"),
        ("mail from: a@example.com  BODY=8BITMIME size=100", "rcpt to: b@example.net NOTIFY=NEVER"),
        ("MAIL FROM: <a@example.com>", "RCPT TO: <b@example.net>"),
        ("MAIL FROM: @r.example:a@example.com", "RCPT TO: @r.example,@s.example:b@example.net"),
        ("MAIL FROM:a@EXAMPLE.com ", "RCPT TO:b@EXAMPLE.net "),
    ],
)
async def test_an_address_needs_no_brackets_where_it_is_clear(mail: str, rcpt: str):
    async with serving() as server:
        client = await server.connect()
        assert await client.codes("EHLO x", mail, rcpt) == [250, 250, 250]
        assert await recipients_of(server, client) == ["b@example.net"]
        assert str(server.door.submissions[0].envelope.reverse_path) == "a@example.com"


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (
            "RCPT TO:b c@example.net",
            "501 5.5.4 Malformed or repeated parameter. Syntax: RCPT TO:<address> KEYWORD=value",
        ),
        (
            "RCPT TO: b@example.net c@example.net",
            "501 5.5.4 Malformed or repeated parameter. Syntax: RCPT TO:<address>",
        ),
        ("RCPT TO: b@example.net,c@example.net", "553 5.1.3 Bad address: malformed local part: it holds a comma"),
        ("RCPT TO:<b@example.net>,<c@example.net>", "501 5.5.2 Syntax: RCPT TO:<address>"),
        ("RCPT TO:b@example.net;", "553 5.1.3 Bad address: malformed domain: it holds a semicolon"),
        ("RCPT TO:b@example.net>", "501 5.5.2 Syntax: RCPT TO:<address>"),
        ("RCPT TO:<b@example.net", "501 5.5.2 Syntax: RCPT TO:<address>"),
        ("RCPT b@example.net", "501 5.5.2 Syntax: RCPT TO:<address>"),
        ("RCPT TO:", "501 5.5.2 Syntax: RCPT TO:<address>"),
        ("RCPT TO:Bob", "553 5.1.3 Bad address: address has no domain; write name@example.com"),
        ("RCPT TO:<'b@example.net'>", "553 5.1.3 Bad address: malformed domain: it holds a single quote"),
        ("RCPT TO:<u@[300.1.1.1]>", "553 5.1.3 Bad address: malformed domain: no IP address; write [192.0.2.1] or [IP"),
        ("RCPT TO:<u@[IPv6:a1:::b4]>", "553 5.1.3 Bad address: malformed domain: no IP address; write [192.0.2.1] or "),
    ],
)
async def test_a_refused_recipient_says_what_is_wrong(line: str, reply: str):
    async with serving() as server:
        client = await server.connect()
        assert await client.codes("EHLO x", "MAIL FROM:<a@example.com>") == [250, 250]
        assert (await client.ask(line)).startswith(reply)
        assert await client.ask("DATA") == "554 5.5.1 No valid recipients"


@pytest.mark.parametrize(
    ("mail", "domain"),
    [("<a@example.com>", "example.com"), ("<>", "mail.test"), ("<a@sub.example.com>", "sub.example.com")],
)
@pytest.mark.parametrize("name", ["Postmaster", "postmaster", "POSTMASTER"])
async def test_postmaster_alone_is_the_senders_own_or_this_hosts(mail: str, domain: str, name: str):
    async with serving() as server:
        client = await server.connect()
        assert await client.codes("EHLO x", f"MAIL FROM:{mail}", f"RCPT TO:<{name}>") == [250, 250, 250]
        assert await recipients_of(server, client) == [f"{name}@{domain}"]


@pytest.mark.parametrize(
    ("spellings", "kept"),
    [
        (["a..b@docomo.test", '"a..b"@docomo.test'], ['"a..b"@docomo.test']),
        (['"a..b"@DOCOMO.test', "a..b@docomo.test"], ['"a..b"@docomo.test']),
        (["name.@docomo.test", ".name@docomo.test"], ['"name."@docomo.test', '".name"@docomo.test']),
        (["jo\u0308@example.net", "j\u00f6@example.net"], ["jo\u0308@example.net"]),
        (["j\u00f6@b\u00fccher.example", "j\u00f6@xn--bcher-kva.example"], ["j\u00f6@b\u00fccher.example"]),
        (['"b"@example.net', "b@example.net", "B@example.net"], ['"b"@example.net', "B@example.net"]),
        (["r" * 200 + "@example.net"], ["r" * 200 + "@example.net"]),
    ],
)
async def test_a_recipient_gets_one_copy_in_whatever_spelling_it_is_named(spellings: list[str], kept: list[str]):
    async with serving() as server:
        client = await server.connect()
        assert await client.codes("EHLO x", "MAIL FROM:<a@example.com> SMTPUTF8") == [250, 250]
        assert await client.codes(*(f"RCPT TO:<{each}>" for each in spellings)) == [250] * len(spellings)
        assert await recipients_of(server, client) == kept


@pytest.mark.parametrize(
    ("first", "is_dropped"),
    [
        ("From a@example.com Tue Jan  6 10:00:00 2026", True),
        (">From a@example.com Tue Jan  6 10:00:00 2026", True),
        ("From MAILER-DAEMON Tue Jan  6 10:00:00 2026 +0100", True),
        ("From x", True),
        (">>From - Tue, 6 Jan 2026", True),
        ("From : a@example.com", False),
        ("From: b@example.com", False),
        ("From\t: a@example.com", False),
        ("Fromage: x", False),
    ],
)
async def test_the_separator_of_an_mbox_is_dropped(first: str, is_dropped: bool):
    rest = "From: a@example.com\r\nSubject: x\r\n\r\nFrom the body\r\nFrom x\r\n"
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        assert (await client.ask(f"{first}\r\n{rest}.")).startswith("250")
        kept = "" if is_dropped else f"{first}\r\n"
        assert server.door.submissions[0].content == f"{kept}{rest}".encode()


async def test_only_the_first_line_is_a_separator():
    async with serving() as server:
        client = await server.connect()
        await client.begin_message()
        content = "From x\r\nFrom y\r\nFrom: a@example.com\r\n\r\nx\r\n"
        assert (await client.ask(f"{content}.")).startswith("250")
        assert server.door.submissions[0].content == content.removeprefix("From x\r\n").encode()


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("MAIL FROM:<a@example.com> SMTPUTF8", "j\u00f6rg@example.net"),
        ("MAIL FROM:<a@example.com> SMTPUTF8", "\u6771@xn--bcher-kva.example"),
        ("MAIL FROM:<a@example.com>", "j?rg@example.net"),
        ("MAIL FROM:<a@example.com>", "???@example.net"),
        ("MAIL FROM:<a@example.com>", "plain@example.net"),
    ],
)
async def test_a_reply_is_in_utf8_where_the_session_speaks_it_and_readable_ascii_elsewhere(line: str, address: str):
    text = address.replace("?", "\u00f6")
    async with serving() as server:
        server.door.suppressed = {Address.parse("b@example.net"): Reply(550, "5.7.1", f"<{text}> is suppressed")}
        client = await server.connect()
        assert await client.codes("EHLO x", line) == [250, 250]
        assert await client.ask("RCPT TO:<b@example.net>") == f"550 5.7.1 <{address}> is suppressed"


@pytest.mark.parametrize(
    "text", ["a\r\n250 2.0.0 forged", "\x1b[2J", "x" * 5000, "\u00f6" * 5000, "\u202eevil", "\udc80"]
)
async def test_whatever_a_reply_says_it_is_one_line_of_at_most_512_octets(text: str):
    for utf8 in ("", " SMTPUTF8"):
        async with serving() as server:
            server.door.final = Reply(550, "5.7.1", text)
            client = await server.connect()
            lines = ("EHLO x", f"MAIL FROM:<a@example.com>{utf8}", "RCPT TO:<b@example.net>", "DATA")
            assert await client.codes(*lines) == [250, 250, 250, 354]
            reply = await client.ask("From: a@example.com\r\n\r\nx\r\n.")
            assert reply.startswith("550 5.7.1 ") and len(reply.encode()) <= 510 and reply.isprintable()
            assert (await client.ask("NOOP")) == "250 2.0.0 OK"
