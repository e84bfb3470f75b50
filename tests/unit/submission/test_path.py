"""The arguments of MAIL and RCPT."""

import pytest

from relayd.mail.address import Address
from relayd.submission.path import Fault, Mail, parse_mail, parse_rcpt

A = Address("a", "example.com")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("FROM:<a@example.com>", Mail(A)),
        ("from: <a@EXAMPLE.com>", Mail(A)),
        ("FROM:<>", Mail(None)),
        ("FROM:<@relay.example,@b.example:a@example.com>", Mail(A)),
        ('FROM:<"a>b"@example.com>', Mail(Address('"a>b"', "example.com"))),
        ("FROM:<a@example.com> SIZE=1000 BODY=8bitmime", Mail(A, 1000, body_8bitmime=True)),
        ("FROM:<a@example.com>  size=5  body=7BIT", Mail(A, 5)),
        ("FROM:<a@example.com> AUTH=<>", Mail(A)),
        ("FROM:<a@example.com> AUTH=b+3Dc@example.com", Mail(A)),
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
        ("FROM:a@example.com", "501 5.5.2"),
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
        ("FROM:<a@example.com> RET=HDRS", "555 5.5.4"),
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
        ("TO:<postmaster>", "550 5.1.3"),
        ("TO:<Postmaster>", "550 5.1.3"),
        ("TO:<b@example.net> NOTIFY=NEVER", "555 5.5.4"),
        ("TO:<ä@example.net>", "553 5.6.7"),
        ("FROM:<b@example.net>", "501 5.5.2"),
    ],
)
def test_rcpt_is_refused(argument: str, reply: str):
    fault = parse_rcpt(argument, is_extended=True, smtputf8=False)
    assert isinstance(fault, Fault) and str(fault.reply).startswith(reply)


def test_rcpt_takes_a_non_ascii_address_under_smtputf8():
    assert parse_rcpt("TO:<ä@example.net>", is_extended=True, smtputf8=True) == Address("ä", "example.net")


def test_parameters_need_ehlo():
    fault = parse_mail("FROM:<a@example.com> SIZE=1", is_extended=False)
    assert isinstance(fault, Fault) and fault.reply.code == 555


@pytest.mark.parametrize("filler", ['"', '\\"', "<", "@a,", "a.", '"a"'])
def test_a_long_hostile_path_is_refused(filler: str):
    fault = parse_mail("FROM:<" + filler * (4_000 // len(filler)), is_extended=True)
    assert isinstance(fault, Fault)
