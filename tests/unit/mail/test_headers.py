"""The header scan, and what preparing a message changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.mail import headers
from relayd.mail.headers import prepare, scan

RECEIVED = b"Received: from a by b\r\n\tid 1; now\r\n"


def _prepared(content: bytes) -> bytes:
    prepared = prepare(content, scan(content), received=RECEIVED, message_id="<new@relay.example>", date="today")
    assert prepared.scan == scan(prepared.content)
    return prepared.content


def test_fields_keep_their_bytes_and_values_are_unfolded() -> None:
    found = scan(b"SUBJECT:  a\r\n  b\t\r\n\tc \r\nX-Empty:\r\n\r\nbody: no field\r\n")
    assert [(field.name, field.raw, field.value) for field in found.fields] == [
        (b"SUBJECT", b"SUBJECT:  a\r\n  b\t\r\n\tc \r\n", b"a  b\t\tc"),
        (b"X-Empty", b"X-Empty:\r\n", b""),
    ]
    assert found.body_offset == 36


@pytest.mark.parametrize(
    ("content", "fields", "body_offset", "needs_empty_line"),
    [
        (b"", 0, 0, True),
        (b"\r\n", 0, 2, False),
        (b"\r\nA: b\r\n", 0, 2, False),
        (b"A: b\r\n", 1, 6, False),
        (b"A: b\r\n\r\n", 1, 8, False),
        (b"A: b\r\n\r\n\r\n", 1, 8, False),
        (b"Hello,\r\nA: b\r\n\r\nhow are you?\r\n", 0, 0, True),
        (b"no line end", 0, 0, True),
    ],
)
def test_where_the_body_starts(content: bytes, fields: int, body_offset: int, needs_empty_line: bool) -> None:
    found = scan(content)
    assert (len(found.fields), found.body_offset, found.needs_empty_line) == (fields, body_offset, needs_empty_line)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"A: b\r\nSubject : x\r\n\r\n", "header line 2 has whitespace before its colon"),
        (b"From \t: a@b.org\r\n\r\n", "header line 1 has whitespace before its colon"),
        (b"A: b\r\n c\r\nno colon\r\n\r\n", "header line 3 is not a header field"),
        (b" A: b\r\n\r\n", "header line 1 is not a header field"),
        (b"From a@b Mon Jan 1 10:00:00\r\nA: b\r\n\r\n", "header line 1 is not a header field"),
        (b": b\r\n\r\n", "header line 1 is not a header field"),
        (b"S\xc3\xbcbject: b\r\n\r\n", "header line 1 is not a header field"),
        (b"A: b\rBcc: c\r\n\r\n", "header line 1 is not a header field"),
        (b"A: b\nBcc: c\r\n\r\n", "header line 1 is not a header field"),
        (b"A: \0\r\n\r\n", "header line 1 is not a header field"),
        (b"A: b", "header line 1 is not a header field"),
        (b"A: b\r\n" * 1001 + b"\r\n", "header has over 1000 fields"),
        (b"A: b\r\n" + (b" " * 998 + b"\r\n") * 600 + b"\r\n", "header is over 524288 octets"),
        (b"A:" + b" " * 600_000, "header is over 524288 octets"),
    ],
)
def test_an_ambiguous_or_excessive_header_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        scan(content)


def test_the_limits_themselves_are_allowed() -> None:
    assert len(scan(b"A: b\r\n" * 1000 + b"\r\n").fields) == 1000
    exact = b"A: " + b"b" * (512 * 1024 - 5) + b"\r\n"
    assert scan(exact + b"\r\n" + b"body" * 1000).body_offset == 512 * 1024 + 2


@given(st.lists(st.sampled_from([b"A: b\r\n", b" fold\r\n", b"\r\n", b"x", b":", b" ", b"Bcc: c\r\n"]), max_size=12))
def test_a_scan_that_succeeds_loses_no_byte(parts: list[bytes]) -> None:
    content = b"".join(parts)
    try:
        found = scan(content)
    except ValueError:
        return
    block = b"".join(field.raw for field in found.fields)
    assert content.startswith(block)
    assert content[len(block) : found.body_offset] in (b"", b"\r\n")


def test_names_are_found_in_any_case() -> None:
    found = scan(b"to: 1\r\nTO: 2\r\n\r\n")
    assert [field.value for field in found.all(b"To")] == [b"1", b"2"]
    first = found.first(b"tO")
    assert first is not None and first.value == b"1"
    assert found.first(b"Cc") is None


def test_preparing_adds_what_is_missing_and_changes_no_other_byte() -> None:
    content = b"from:  A <a@b.org>\r\nX:\t1\r\n  2 \r\n\r\nBcc: in the body\r\n"
    assert _prepared(content) == (RECEIVED + b"Message-ID: <new@relay.example>\r\nDate: today\r\n" + content)


def test_preparing_keeps_what_is_there() -> None:
    content = b"MESSAGE-ID: <old@x>\r\ndate: yesterday\r\n\r\nbody\r\n"
    assert _prepared(content) == RECEIVED + content


def test_preparing_removes_blind_copies_and_return_paths() -> None:
    content = (
        b"Return-Path: <r@x>\r\nDate: d\r\nBcc: secret@x,\r\n more@x\r\nMessage-ID: <m>\r\n"
        b'resent-bcc: s@x\r\nBCC: again@x\r\nX-SMTPAPI: {"to": ["more@x"]}\r\nX-Bcc: kept\r\n'
        b"X-Relayd-Class: bulk\r\nx-RELAYD-anything:\r\n else\r\n\r\nbody\r\n"
    )
    assert _prepared(content) == RECEIVED + b"Date: d\r\nMessage-ID: <m>\r\nX-Bcc: kept\r\n\r\nbody\r\n"


@pytest.mark.parametrize("content", [b"Hello, world\r\n", b"", b"\r\nbody: x\r\n", b"Date: d\r\n"])
def test_a_prepared_message_scans_with_its_body_where_it_was(content: bytes) -> None:
    body = content[scan(content).body_offset :]
    prepared = _prepared(content)
    again = scan(prepared)
    assert prepared[again.body_offset :] == body
    assert [field.name for field in again.fields][:3] == [b"Received", b"Message-ID", b"Date"]


@pytest.mark.parametrize(
    ("raw", "subject"),
    [
        (b"plain  text", "plain  text"),
        (b"=?utf-8?q?caf=C3=A9_noir?= ok", "café noir ok"),
        (b"=?UTF-8?B?Y2Fmw6k?=", "café"),
        (b"=?utf-8*fr?q?caf=C3=A9?=", "café"),
        (b"=?utf-8?q?a?= \t =?utf-8?q?b?= c", "ab c"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "é"),
        (b"=?iso-8859-1?q?=E9?= =?utf-8?q?=C3=A9?=", "éé"),
        (b"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "日本"),
        ("réglé".encode(), "réglé"),
        (b"r\xe9gl\xe9", "r\ufffdgl\ufffd"),
        (b"=?no-such-charset?q?a=C3=A9?=", "aé"),
        (b"=?zlib?q?abc?= =?idna?q?x?= =?undefined?q?y?=", "abcxy"),
        (b"=?utf-8?b?!?=", ""),
        (b"=?utf-8?q?a=00b=0D=0ABcc:_x=7F=C2=85?=", "a b  Bcc: x"),
        (b"=?utf-7?q?+2AA-?=", ""),
        (b"=?utf-8?q?=E2=80=AEevil?=", "evil"),
        (b"=?utf-8?x?a?= =??q?a?= =?a?q?", "=?utf-8?x?a?= =??q?a?= =?a?q?"),
    ],
)
def test_subjects_are_decoded_for_people(raw: bytes, subject: str) -> None:
    assert headers.decoded_subject(scan(b"Subject: " + raw + b"\r\n\r\n")) == subject


def test_subjects_are_capped() -> None:
    long = b"Subject: " + b"=?utf-8?b?8J+YgA==?= " * 5000 + b"\r\n\r\n"
    subject = headers.decoded_subject(scan(long))
    assert subject == "😀" * 255
    assert len(headers.decoded_subject(scan(b"Subject: " + b"x" * 400_000 + b"\r\n"), limit=20)) == 20
    assert headers.decoded_subject(scan(b"A: b\r\n")) == ""


@given(st.binary(max_size=300), st.integers(1, 60))
def test_any_subject_fits_a_text_column(raw: bytes, limit: int) -> None:
    value = raw.translate(None, b"\r\n\0")
    for spelled in (value, b"=?utf-7?q?" + value + b"?=", b"=?utf-16?b?" + value + b"?="):
        subject = headers.decoded_subject(scan(b"Subject: " + spelled + b"\r\n\r\n"), limit)
        assert len(subject) <= limit and "\0" not in subject
        subject.encode()


def test_message_id_and_hops() -> None:
    found = scan(b"Received: 1\r\nmessage-id:\r\n <a@b>\r\nRECEIVED: 2\r\n\r\n")
    assert headers.message_id(found) == "<a@b>"
    assert headers.received_count(found) == 2
    assert headers.message_id(scan(b"A: b\r\n\r\n")) is None


@pytest.mark.parametrize(
    "value",
    [b"", b" \t ", b" <>", b" < \t>", b"\r\n ", b" (none)", b" (a (b) \\) c) <>", b" (never closed <a@b>", b"()()"],
)
def test_an_empty_message_id_is_replaced(value: bytes) -> None:
    content = b"Date: d\r\nMessage-ID:" + value + b"\r\nSubject: s\r\n\r\nbody"
    assert headers.message_id(scan(content)) is None
    assert _prepared(content) == (RECEIVED + b"Message-ID: <new@relay.example>\r\nDate: d\r\nSubject: s\r\n\r\nbody")


@pytest.mark.parametrize(
    ("value", "message_id", "is_well_formed"),
    [
        (b" <a@b>", "<a@b>", True),
        (b"\r\n <a@b> (Mailer)", "<a@b>", True),
        (b" (Mailer (1)) <a@b>", "<a@b>", True),
        (b" a@b", "a@b", False),
        (b" 20260101.abc", "20260101.abc", False),
        (b" <no-at>", "<no-at>", False),
        (b" <a@b> <c@d>", "<a@b> <c@d>", False),
        (" <größe@b>".encode(), "<größe@b>", True),
        (b" <" + b"x" * 994 + b"@b>", None, True),
    ],
)
def test_an_odd_message_id_is_kept_as_written(value: bytes, message_id: str | None, is_well_formed: bool) -> None:
    content = b"Date: d\r\nMessage-ID:" + value + b"\r\n\r\nbody"
    found = headers.message_id(scan(content))
    expected = message_id or value.decode().strip()
    assert (found, expected.encode() in _prepared(content)) == (expected, True)
    assert headers.is_well_formed_id(expected) is is_well_formed


@pytest.mark.parametrize("value", [b"<a\xff@b>", b"<a\xc2\x85@b>", "<a\u202e@b>".encode(), b"<" + b"x" * 997 + b">"])
def test_a_message_id_that_cannot_be_kept_as_it_is_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"Message-ID (holds|is over)"):
        headers.message_id(scan(b"Message-ID: " + value + b"\r\n\r\n"))


def test_a_message_that_is_all_header_gets_its_empty_line() -> None:
    for content in (b"Date: d\r\nMessage-ID: <m>\r\n", b"Date: d\r\nMessage-ID: <m>\r\n\r\n"):
        assert _prepared(content) == RECEIVED + b"Date: d\r\nMessage-ID: <m>\r\n\r\n"


@pytest.mark.parametrize(
    ("content", "rewritten"),
    [
        (
            b"Received: r\r\nFROM:\r\n A <a@b.org>\r\nTo: you@x.org\r\n\r\nbody",
            b"Received: r\r\nFrom: A <c@d.org>\r\nReply-To:\r\n A <a@b.org>\r\nTo: you@x.org\r\n\r\nbody",
        ),
        (
            b"reply-to: me@b.org\r\nFrom: a@b.org\r\n\r\nFrom: in the body\r\n",
            b"reply-to: me@b.org\r\nFrom: A <c@d.org>\r\n\r\nFrom: in the body\r\n",
        ),
        (b"From: a@b.org\r\n", b"From: A <c@d.org>\r\nReply-To: a@b.org\r\n"),
    ],
)
def test_another_author_leaves_the_replies_with_the_first(content: bytes, rewritten: bytes) -> None:
    prepared = headers.with_author(content, headers.scan(content), b"A <c@d.org>")
    assert prepared.content == rewritten
    assert prepared.scan == headers.scan(rewritten)
