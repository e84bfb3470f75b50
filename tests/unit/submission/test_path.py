"""The arguments of MAIL and RCPT."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.mail.address import Address
from relayd.mail.envelope import RecipientNotice
from relayd.submission.path import Fault, Mail, Recipient, parse_mail, parse_rcpt

A = Address("a", "example.com")


def rcpt(argument: str, *, smtputf8: bool = False) -> Recipient | Fault:
    return parse_rcpt(argument, is_extended=True, smtputf8=smtputf8, postmaster_domain="mail.example")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("FROM:<a@example.com>", Mail(A)),
        ("from: <a@EXAMPLE.com>", Mail(A)),
        ("FROM:a@example.com", Mail(A)),
        ("From: a@example.com", Mail(A)),
        ("FROM: a@example.com SIZE=5 BODY=8BITMIME", Mail(A, 5, body_8bitmime=True)),
        ("FROM:@relay.example:a@example.com", Mail(A)),
        ('FROM:"a b"@example.com', Mail(Address('"a b"', "example.com"))),
        ("FROM:a@[192.0.2.1]", Mail(Address("a", "[192.0.2.1]"))),
        ("FROM:<a@[IPv6:::ffff:192.0.2.1]>", Mail(Address("a", "[IPv6:::ffff:192.0.2.1]"))),
        ("FROM:<a..b@example.com>", Mail(Address('"a..b"', "example.com"))),
        (f"FROM:<{'a' * 200}@example.com>", Mail(Address("a" * 200, "example.com"))),
        ("FROM:<>", Mail(None)),
        ("FROM:<@relay.example,@b.example:a@example.com>", Mail(A)),
        ('FROM:<"a>b"@example.com>', Mail(Address('"a>b"', "example.com"))),
        ("FROM:<a@example.com> SIZE=1000 BODY=8bitmime", Mail(A, 1000, body_8bitmime=True)),
        ("FROM:<a@example.com>  size=5  body=7BIT", Mail(A, 5)),
        ("FROM:<a@example.com> AUTH=<>", Mail(A)),
        ("FROM:<a@example.com> AUTH=b+3Dc@example.com", Mail(A)),
        ("FROM:<a@example.com> RET=full ENVID=qQ+3D314", Mail(A, dsn_ret="FULL", envelope_id="qQ+3D314")),
        ("FROM:<> ret=HDRS", Mail(None, dsn_ret="HDRS")),
        ("FROM:<ä@example.com> SMTPUTF8", Mail(Address("ä", "example.com"), smtputf8=True)),
    ],
)
def test_mail(argument: str, expected: Mail):
    assert parse_mail(argument, is_extended=True) == expected


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("", "501 5.5.2"),
        ("FROM:", "501 5.5.2"),
        ("TO:<a@example.com>", "501 5.5.2"),
        ("FROM a@example.com", "501 5.5.2"),
        ("FROM:a b@example.com", "501 5.5.4"),
        ("FROM:a@example.com>", "501 5.5.2"),
        ("FROM:a@example.com,b@example.com", "553 5.1.7"),
        ("FROM:a@example.com b@example.com", "501 5.5.4"),
        ("FROM:a@example.com <b@example.com>", "501 5.5.4"),
        ("FROM: Ann <a@example.com>", "501 5.5.4"),
        ("FROM:a\t@example.com", "501 5.5.2"),
        ("FROM:a", "553 5.1.7"),
        ("FROM:a@[300.1.1.1]", "553 5.1.7"),
        ("FROM:<a@[IPv6:a1:::b4]>", "553 5.1.7"),
        ("FROM:<a@example.com", "501 5.5.2"),
        ("FROM:<a@example.com>SIZE=1", "501 5.5.2"),
        ("FROM:<a@example.com> <b@example.com>", "501 5.5.4"),
        ("FROM:<a b@example.com>", "553 5.1.7"),
        ("FROM:<a@example.org)b@example.org>", "553 5.1.7"),
        ("FROM:<a>", "553 5.1.7"),
        ("FROM:<ä@example.com>", "553 5.6.7"),
        ("FROM:<a@example.com> SIZE=x", "501 5.5.4"),
        ("FROM:<a@example.com> SIZE", "501 5.5.4"),
        ("FROM:<a@example.com> SIZE=1 SIZE=2", "501 5.5.4"),
        ("FROM:<a@example.com> SMTPUTF8=1", "501 5.5.4"),
        ("FROM:<a@example.com> BODY=BINARYMIME", "555 5.5.4"),
        ("FROM:<a@example.com> RET=BOTH", "501 5.5.4"),
        ("FROM:<a@example.com> RET", "501 5.5.4"),
        ("FROM:<a@example.com> RET=FULL RET=HDRS", "501 5.5.4"),
        ("FROM:<a@example.com> ENVID", "501 5.5.4"),
        ("FROM:<a@example.com> ENVID=QQ+3d", "501 5.5.4"),
        ("FROM:<a@example.com> ENVID=QQ+0D+0AX-Evil:1", "501 5.5.4"),
        ("FROM:<a@example.com> ENVID=QQ+", "501 5.5.4"),
        ("FROM:<a@example.com> ENVID=Q\u00e4", "501 5.5.4"),
        ("FROM:<a@example.com> ENVID=" + "Q" * 101, "501 5.5.4"),
        ("FROM:<a@example.com> NOTIFY=NEVER", "555 5.5.4"),
        ("FROM:<a@example.com> =x", "501 5.5.4"),
    ],
)
def test_mail_is_refused(argument: str, reply: str):
    fault = parse_mail(argument, is_extended=True)
    assert isinstance(fault, Fault) and str(fault.reply).startswith(reply)


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("TO:<>", "553 5.1.3"),
        ("TO:<hostmaster>", "553 5.1.3"),
        ("TO: b@example.net c@example.net", "501 5.5.4"),
        (f"TO:<{'b' * 243}@example.net>", "553 5.1.3"),
        (f"TO:<{'b' * 240}..@example.net>", "553 5.1.3"),
        ("TO:<b@example.net> NOTIFY=NEVER,SUCCESS", "501 5.5.4"),
        ("TO:<b@example.net> NOTIFY=", "501 5.5.4"),
        ("TO:<b@example.net> NOTIFY", "501 5.5.4"),
        ("TO:<b@example.net> NOTIFY=SUCCESS,", "501 5.5.4"),
        ("TO:<b@example.net> NOTIFY=SOMETIMES", "501 5.5.4"),
        ("TO:<b@example.net> NOTIFY=DELAY NOTIFY=DELAY", "501 5.5.4"),
        ("TO:<b@example.net> ORCPT=b@example.net", "501 5.5.4"),
        ("TO:<b@example.net> ORCPT=rfc822;", "501 5.5.4"),
        ("TO:<b@example.net> ORCPT=;b@example.net", "501 5.5.4"),
        ("TO:<b@example.net> ORCPT", "501 5.5.4"),
        ("TO:<b@example.net> ORCPT=rfc822;b+0A@example.net", "501 5.5.4"),
        ("TO:<b@example.net> ORCPT=rfc822;b+C3+A4@example.net", "501 5.5.4"),
        ("TO:<b@example.net> ORCPT=utf-8;\u00e4@example.net", "501 5.5.4"),
        ("TO:<b@example.net> ORCPT=rfc822;" + "b" * 494, "501 5.5.4"),
        ("TO:<b@example.net> RET=FULL", "555 5.5.4"),
        ("TO:<ä@example.net>", "553 5.6.7"),
        ("FROM:<b@example.net>", "501 5.5.2"),
    ],
)
def test_rcpt_is_refused(argument: str, reply: str):
    fault = rcpt(argument)
    assert isinstance(fault, Fault) and str(fault.reply).startswith(reply)


def test_rcpt_takes_a_non_ascii_address_under_smtputf8():
    expected = Recipient(Address("ä", "example.net"))
    assert rcpt("TO:<ä@example.net>", smtputf8=True) == expected


@pytest.mark.parametrize(
    ("parameters", "notify", "orcpt"),
    [
        ("NOTIFY=never", "NEVER", None),
        ("NOTIFY=delay,Success,FAILURE,DELAY", "SUCCESS,FAILURE,DELAY", None),
        ("notify=FAILURE orcpt=RFC822;Bob+2Bx@Example.NET", "FAILURE", "RFC822;Bob+2Bx@Example.NET"),
        ("ORCPT=x400;/C+3Da+20b", None, "x400;/C+3Da+20b"),
        ("ORCPT=utf-8;\\x{E4}@example.net", None, "utf-8;\\x{E4}@example.net"),
        ("ORCPT=rfc822;" + "b" * 493, None, "rfc822;" + "b" * 493),
    ],
)
def test_what_a_recipients_sender_wants_to_know(parameters: str, notify: str | None, orcpt: str | None):
    recipient = rcpt(f"TO:<b@example.net> {parameters}")
    assert recipient == Recipient(Address("b", "example.net"), RecipientNotice(notify, orcpt))


def test_an_original_recipient_beyond_ascii_needs_smtputf8():
    parsed = rcpt("TO:<b@example.net> ORCPT=utf-8;ä@example.net", smtputf8=True)
    assert isinstance(parsed, Recipient) and parsed.notice.orcpt == "utf-8;ä@example.net"
    assert isinstance(rcpt("TO:<b@example.net> ORCPT=rfc822;ä@x", smtputf8=True), Fault)


def test_parameters_need_ehlo():
    fault = parse_mail("FROM:<a@example.com> SIZE=1", is_extended=False)
    assert isinstance(fault, Fault) and fault.reply.code == 555


@pytest.mark.parametrize("filler", ['"', '\\"', "<", "@a,", "a.", '"a"'])
def test_a_long_hostile_path_is_refused(filler: str):
    fault = parse_mail("FROM:<" + filler * (4_000 // len(filler)), is_extended=True)
    assert isinstance(fault, Fault)


@pytest.mark.parametrize("argument", ["TO:<postmaster>", "TO:<Postmaster>", "TO:<POSTMASTER>", "TO: postmaster"])
def test_postmaster_alone_gets_the_domain_given(argument: str):
    parsed = rcpt(f"{argument} NOTIFY=NEVER")
    assert isinstance(parsed, Recipient) and parsed.forward_path.key == "postmaster@mail.example"


@pytest.mark.parametrize(
    ("mailbox", "wire"),
    [
        ("a..b@docomo.test", '"a..b"@docomo.test'),
        ("name.@docomo.test", '"name."@docomo.test'),
        (".name@docomo.test", '".name"@docomo.test'),
        ("-.-..-.@docomo.test", '"-.-..-."@docomo.test'),
        ('"a..b"@docomo.test', '"a..b"@docomo.test'),
        ("..@docomo.test", '".."@docomo.test'),
        ("a.b@docomo.test", "a.b@docomo.test"),
    ],
)
def test_misplaced_dots_are_quoted(mailbox: str, wire: str):
    parsed = rcpt(f"TO:<{mailbox}>")
    assert isinstance(parsed, Recipient) and str(parsed.forward_path) == wire


_PIECES = [
    "<",
    ">",
    "@",
    ",",
    ";",
    ":",
    " ",
    "\t",
    "\r",
    "\n",
    "\x00",
    '"',
    "\\",
    "a",
    "b.test",
    "[1.2.3.4]",
    "..",
    "\xe9",
]
_PIECES += ["FROM:", "TO:", "SIZE=1", "NOTIFY=NEVER", "\u202e", "\ud800", "postmaster", "<a@b.test>", "SMTPUTF8"]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_PIECES), max_size=14).map("".join)))
def test_any_argument_is_refused_or_is_one_clean_address(text: str):
    for argument in (text, f"TO:{text}", f"FROM:{text}", f"TO:<{text}>"):
        parsed = (rcpt(argument), rcpt(argument, smtputf8=True), parse_mail(argument, is_extended=True))
        for each in parsed:
            match each:
                case Recipient():
                    address = each.forward_path
                case Mail(reverse_path=Address() as address):
                    pass
                case Fault():
                    line = each.reply.line(utf8=True)
                    assert len(line.encode()) <= 510 and not re.search("[\x00-\x1f\x7f]", line)
                    continue
                case _:
                    continue
            assert len(str(address).encode()) <= 254
            assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", str(address))
            assert Address.parse(str(address)) == address and "<" not in address.domain
