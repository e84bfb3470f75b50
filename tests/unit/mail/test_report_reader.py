"""What is read in messages that come back: the corpus, the foreign set, and what nobody should ever send."""

import base64
import random
import re
from email.header import Header
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.mail import charsets, encoded_words
from relayd.mail.report import AutoReply, Bounce, Complaint, DelayNotice, Reply, Unrecognised
from relayd.mail.report_reader import read
from relayd.rules.bounce_class import Refusal, classify
from tests.reports.reading import mistakes
from tests.reports.table import HERE, Sample, samples

CORPUS = samples(HERE / "corpus")
FOREIGN = samples(HERE / "foreign")
DOCUMENT = Path(__file__).parents[3] / "docs" / "reports.md"
KINDS = (Bounce, DelayNotice, Complaint, Reply, AutoReply, Unrecognised)


@pytest.mark.parametrize("sample", [*CORPUS, *FOREIGN], ids=lambda sample: sample.path.stem)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_a_report_is_read(sample: Sample, line_end: bytes) -> None:
    assert mistakes(sample, sample.path.read_bytes().replace(b"\n", line_end)) == []


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len([each for each in CORPUS if each.kind in ("bounce", "delay", "complaint")]) >= 60
    assert len(FOREIGN) >= 15


def test_the_documentation_lists_the_corpus() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| ((?:hard|soft|complaint): \S+|delay|auto|reply|nothing) \|$",
                      DOCUMENT.read_text().partition("<!-- corpus -->")[2], re.MULTILINE)  # fmt: skip
    assert rows == [(each.system, each.matched, each.meaning) for each in CORPUS]


def test_the_original_is_told_with_all_that_is_known_of_it() -> None:
    found = read((CORPUS[0].path.parent / "postfix-unknown.eml").read_bytes())
    assert isinstance(found, Bounce)
    assert found.original.return_path == found.original.sender == "noreply@example.com"
    assert found.original.recipients == ("jane@example.net",)
    assert found.reporting_mta == "mx.example.com"
    assert found.recipients[0].remote_mta == "mx.example.net"
    assert found.recipients[0].diagnostic.startswith("550 5.1.1 <jane@example.net>: Recipient address rejected")


def test_a_report_within_a_forward_tells_its_envelope_id() -> None:
    found = read((CORPUS[0].path.parent / "forwarded-dsn.eml").read_bytes())
    assert isinstance(found, Bounce) and found.envelope_id == "QQ314159"


def test_only_the_failed_of_several_recipients_are_bounces() -> None:
    found = read((CORPUS[0].path.parent / "postfix-two-recipients.eml").read_bytes())
    assert isinstance(found, Bounce)
    assert [each.address for each in found.recipients] == ["john@example.org"]


def test_each_of_several_recipients_has_its_own_reply() -> None:
    found = read((CORPUS[0].path.parent / "qmail-remote-two.eml").read_bytes())
    assert isinstance(found, Bounce)
    assert {each.address: each.status for each in found.recipients} == {
        "jane@example.net": "5.1.1",
        "john@example.org": "5.2.2",
    }


def test_those_who_stand_in_one_list_failed_together() -> None:
    # One alone is in To, which makes it sure; the others had it by Bcc.
    found = read((CORPUS[0].path.parent / "qmail-three.eml").read_bytes())
    assert isinstance(found, Bounce)
    assert {each.address: each.status for each in found.recipients} == {
        "e9@example.org": "5.1.1",
        "e10@example.net": "4.4.1",
        "e11@example.com": None,
    }


@pytest.mark.parametrize("line", [b"desk@example.org", b"Our desk: <desk@example.org>", b"(desk@example.org)"])
def test_an_address_below_the_list_has_not_failed(line: bytes) -> None:
    found = read(
        b"From: MAILER-DAEMON@example.org\nSubject: Undeliverable\n\nNot delivered to:\n\njane@example.net\n"
        b"550 5.1.1 unknown user\n\nAsk us:\n\n" + line + b"\nMonday to Friday\n\n"
        b"Return-Path: <noreply@example.com>\nReceived: x\nMessage-ID: <1@example.com>\nTo: jane@example.net\n"
        b"From: noreply@example.com\nSubject: Your order\n\nx\n"
    )
    assert isinstance(found, Bounce)
    assert [each.address for each in found.recipients] == ["jane@example.net"]


def _nested(levels: int) -> bytes:
    begin = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(levels))
    return b"From: MAILER-DAEMON@example.net\n" + begin + b"\nFinal-Recipient: rfc822; a@example.net\nAction: failed\n"


HOSTILE = {
    "a thousand levels": _nested(1000),
    "ten thousand parts": b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 10_000,
    "messages in messages": b"Content-Type: message/rfc822\n\n" * 5000,
    "a boundary of everything": b"Content-Type: multipart/mixed; boundary=\"(.*)+$\"\n\n--(.*)+$\n\nx",
    "an empty boundary": b"Content-Type: multipart/report; boundary=\"\"\n\n----\n\nx",
    "forty thousand addresses": b"To: " + b", ".join(b"u%d@example.net" % n for n in range(40_000)) + b"\n\nx",
    "a header without an end": b"Subject: " + b"x " * 1_000_000,
    "fields without an end": b"X: y\n" * 300_000,
    "brackets": b"From: MAILER-DAEMON@example.net\nContent-Type: text/html\n\n" + b"<" * 500_000,
    "opened styles": b"From: MAILER-DAEMON@example.net\nContent-Type: text/html\n\n" + b"<style" * 80_000,
    "addresses": b"From: MAILER-DAEMON@example.net\nSubject: failure notice\n\n" + b"a@b.example " * 80_000,
    "half addresses": b"From: MAILER-DAEMON@example.net\nSubject: failure notice\n\n" + b"a@" * 250_000,
    "codes": b"From: MAILER-DAEMON@example.net\nSubject: failure notice\n\n" + b"550 5.1.1 " * 50_000,
    "blanks": b"From: MAILER-DAEMON@example.net\nSubject: failure notice\n\n" + b" " * 500_000 + b"a@b.example",
    "quotes": b"Content-Type: multipart/report; boundary=\"" + b"\\" * 100_000 + b"\n\nx",
    "encoded words": b"Subject: " + b"=?utf-8?q?=" * 100_000 + b"\n\nx",
    "a lying charset": b"Content-Type: text/plain; charset=zlib_codec\n\n\xff\xfe",
    "a charset that is code": b"Content-Type: text/plain; charset=unicode_escape\n\n\\ud800 \\N{x",
    "a charset of domain names": b"From: MAILER-DAEMON@example.net\nContent-Type: text/plain; charset=punycode\n\n\xff-"
    + b"a" * 400_000,
    "a subject in punycode": b"Subject: " + b" ".join([b"=?punycode?q?x-" + b"a" * 60 + b"?="] * 250) + b"\n\nx",
    "a list of addresses": b"From: MAILER-DAEMON@example.net\nSubject: failure notice\n\n<a@b.example>:\n550 no\n"
    + b"".join(b"<u%d@example.net>:\n" % n for n in range(800)) + b"\nReceived: y\nDate: z\nTo: a@b.example\n",
    "a long subject": b"Subject: " + b"ticket case request " * 10_000 + b"\nIn-Reply-To: <a@b.example>\n\nx",
    "labelled ids": b"From: MAILER-DAEMON@example.net\n\nSubject: x\nReceived: y\nDate: z\n"
    + (b"msgid msgid msgid <" + b"@" * 1200 + b"\n") * 400,
    "many recipients": b"Content-Type: multipart/report; boundary=b\n\n--b\n\n" + b"user 550 unknown\n" * 1000
    + b"\n--b\nContent-Type: message/delivery-status\n" + b"\nFinal-Recipient: rfc822; u@example.net\n" * 1000,
    "escapes": b"From: MAILER-DAEMON@example.net\nContent-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B\xff\x1b(",
    "deep json": b"X-XARF: 4\nContent-Type: application/json\n\n" + b"[" * 90_000,
    "nothing": b"",
    "zeros": b"\0" * 10_000,
    "line ends": b"\r" * 10_000 + b"\n" * 10_000,
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_input_is_only_not_recognised(content: bytes) -> None:
    assert isinstance(read(content), KINDS)


PIECES = st.sampled_from(
    [*(line for each in CORPUS for line in each.path.read_bytes().splitlines(keepends=True)),
     b"Content-Transfer-Encoding: base64\n", b"Content-Type: multipart/report; boundary=b\n", b"--b\n", b"--b--\n",
     b"\n"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=40)), max_size=60))
def test_no_mixture_of_lines_raises(lines: list[bytes]) -> None:
    found = read(b"".join(lines))
    assert isinstance(found, KINDS)
    if isinstance(found, Bounce):
        assert found.recipients and all(len(each.diagnostic) <= 1000 for each in found.recipients)


def test_a_report_cut_anywhere_or_with_broken_bytes_never_raises() -> None:
    dice = random.Random(5)
    for sample in CORPUS:
        content = bytearray(sample.path.read_bytes())
        assert isinstance(read(bytes(content[: dice.randrange(len(content))])), KINDS)
        for _ in range(10):
            content[dice.randrange(len(content))] = dice.randrange(256)
        assert isinstance(read(bytes(content)), KINDS)


def test_texts_are_printable_and_short() -> None:
    reply = b"550 \x1b[31m\x00\xe2\x80\xae" + b"x" * 5000
    content = (
        b"From: MAILER-DAEMON@example.net\nContent-Type: multipart/report; boundary=b\n\n--b\n"
        b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(b"Final-Recipient: rfc822; a@example.net\nAction: failed\nDiagnostic-Code: smtp; " + reply)
        + b"\n--b--\n"
    )
    found = read(content)
    assert isinstance(found, Bounce)
    assert found.recipients[0].diagnostic.startswith("550 [31m") or found.recipients[0].diagnostic.startswith(
        "550  [31m"
    )
    assert found.recipients[0].diagnostic.isprintable() and len(found.recipients[0].diagnostic) <= 1000


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO-8859-1", "ä"),
        ("latin1", "ä"),
        ("Windows-1252", "ä"),
        ("koi8-r", "Д"),
        ("ISO_8859-5", "ф"),
        *((each, None) for each in ("punycode", "idna", "unicode_escape", "raw-unicode-escape", "zlib", "undefined")),
        ("x-unknown", None),
        ("../../etc", None),
        ("", None),
        ("x" * 1000, None),
    ],
)
def test_only_known_charsets_are_decoded(charset: str, text: str | None) -> None:
    assert charsets.decoded(b"\xe4", charset, "strict") == text


def test_what_no_charset_may_be_stays_as_it_is() -> None:
    assert encoded_words.decode(b"=?punycode?q?bcher-kva?=", 100) == "bcher-kva"
    assert encoded_words.decode(b"=?iso-8859-1?q?B=FCcher?=", 100) == "Bücher"


def _failing(said: bytes, recipients: int = 1) -> Bounce:
    fields = b"".join(b"\nFinal-Recipient: rfc822; u%d@example.net\nAction: failed\n" % n for n in range(recipients))
    found = read(
        b"From: MAILER-DAEMON@example.net\nContent-Type: multipart/report; boundary=b\n\n--b\n\n"
        + said
        + b"\n--b\nContent-Type: message/delivery-status\n"
        + fields
        + b"\n--b--\n"
    )
    assert isinstance(found, Bounce)
    return found


@pytest.mark.parametrize(("lines_before", "diagnostic"), [(163, "550 unknown user"), (164, "")])
def test_reasons_are_looked_for_in_the_first_sixteen_thousand_characters(lines_before: int, diagnostic: str) -> None:
    (one,) = _failing((b"-" * 99 + b"\n") * lines_before + b"550 unknown user\n").recipients
    assert one.diagnostic == diagnostic


def test_reasons_are_looked_for_of_the_first_recipients() -> None:
    said = b"".join(b"u%d@example.net: 550 unknown user\n" % n for n in range(60))
    found = _failing(said, recipients=60).recipients
    wanted = [f"u{n}@example.net: 550 unknown user" for n in range(50)] + [""] * 10
    assert [each.diagnostic for each in found] == wanted


def test_a_labelled_id_is_one_with_a_sign_in_it() -> None:
    found = _failing(b"Message-ID was <a.b@example.com>\nmsgid: <nothing>\n")
    assert found.original.message_ids == ("<a.b@example.com>",)


REPORT = """\
From: Mail Delivery System <MAILER-DAEMON@mx.example.org>
To: shop@a.test
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=x

--x
Content-Type: text/plain

The message could not be delivered.

{said}

--x
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org

Final-Recipient: rfc822; u@b.test
Action: failed
Status: 5.0.0

Final-Recipient: rfc822; v@d.test
Action: failed
Status: 5.0.0

--x--
"""


@pytest.mark.parametrize(
    ("said", "of_u", "of_v"),
    [
        ("u@b.test: Connection timed out\nv@d.test: 550 5.1.1 User unknown", "Connection timed out", "User unknown"),
        ("v@d.test: 550 5.1.1 User unknown\nu@b.test: Connection timed out", "Connection timed out", "User unknown"),
        (
            "<v@d.test>:\n550 5.1.1 User unknown\n\n<u@b.test>:\nConnection timed out",
            "Connection timed out",
            "User unknown",
        ),
        ("v@d.test\n  550 5.1.1 User unknown\n\nu@b.test\n", "", "User unknown"),
        ("v@d.test: 550 5.1.1 User unknown", "", "User unknown"),
        ("u@b.test: no reason given\n\nReason: v@d.test 550 5.1.1 User unknown", "no reason given", "User unknown"),
        ("* u@b.test - host is down\n* v@d.test - 550 5.1.1 User unknown", "host is down", "User unknown"),
    ],
)
def test_no_recipient_is_given_the_reply_of_another(said: str, of_u: str, of_v: str) -> None:
    found = read(REPORT.format(said=said).replace("\n", "\r\n").encode())
    assert isinstance(found, Bounce)
    u, v = found.recipients
    assert of_u in u.diagnostic and "User unknown" not in u.diagnostic
    assert of_v in v.diagnostic
    told = classify(Refusal(u.diagnostic, status=u.status, recipients=("u@b.test",), explanation=found.explanation))
    assert not told.suppresses


RETURNED = """\
From: {sender}
To: shop@a.test
Subject: {subject}
{fields}MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

{said}

--x
Content-Type: message/rfc822

From: shop@a.test
To: u@b.test
Subject: Order
Message-ID: <4711@a.test>

Hello
--x--
"""


@pytest.mark.parametrize(
    ("sender", "subject", "said"),
    [
        ("no-reply@mail.example.jp", "メールエラー通知", "以下の宛先に配信できませんでした: u@b.test"),
        ("noreply@mail.example.jp", "配信エラー通知", "u@b.test 宛のメールは送信できませんでした"),
        ("info@mail.example.jp", "[通知] メールエラー", "宛先が見つかりません u@b.test"),
        ("no-reply@mail.example.cn", "退信通知", "无法投递到 u@b.test"),
        ("service@mail.example.kr", "반송 메일", "u@b.test 배달하지 못했습니다"),
        ("no-reply@mail.example.org", "Mail could not be delivered", "u@b.test: delivery failed, no such user here"),
        ("no-reply@mail.example.de", "Nachricht nicht zustellbar", "u@b.test konnte nicht zugestellt werden"),
    ],
)
def test_a_message_that_is_returned_under_any_name_is_a_bounce(sender: str, subject: str, said: str) -> None:
    coded = Header(subject, "utf-8").encode()
    content = RETURNED.format(sender=sender, subject=coded, said=said, fields="").replace("\n", "\r\n")
    found = read(content.encode())
    assert isinstance(found, Bounce), found
    assert [each.address for each in found.recipients] == ["u@b.test"]
    assert "<4711@a.test>" in found.original.message_ids


@pytest.mark.parametrize(
    "sender",
    ["post_master@b.test", "Post-Master@b.test", "mailer.daemon@b.test", "mail_daemon@b.test", "mail-delivery@b.test"],
)
def test_a_daemon_that_answers_is_a_daemon(sender: str) -> None:
    content = (
        f"From: {sender}\r\nTo: shop@a.test\r\nSubject: Re: Order\r\nIn-Reply-To: <4711@a.test>\r\n\r\n"
        "u@b.test\r\nno such user here\r\n"
    )
    found = read(content.encode())
    assert isinstance(found, Bounce)
    assert [each.address for each in found.recipients] == ["u@b.test"]


@pytest.mark.parametrize("sender", ["jane@b.test", "post.martin@b.test", "bob.master@b.test"])
def test_a_person_who_answers_in_the_same_words_is_a_person(sender: str) -> None:
    content = (
        f"From: {sender}\r\nTo: shop@a.test\r\nSubject: Re: Undeliverable mail\r\nIn-Reply-To: <4711@a.test>\r\n\r\n"
        "Your mail to u@b.test could not be delivered: no such user here. Please use my new address.\r\n"
    )
    assert isinstance(read(content.encode()), Reply)
