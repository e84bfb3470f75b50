"""What the header of a submitted message must keep to."""

import pytest

from relayd.mail import headers
from relayd.mail.header_rules import MAX_SIGNED_FIELD_OCTETS, checked
from relayd.mail.headers import Prepared, scan

FROM = b"From: a@b.org\r\n"


def check(content: bytes, *, joins_recipients: bool = False) -> Prepared:
    found = checked(content, scan(content), joins_recipients=joins_recipients)
    assert found.scan == scan(found.content)
    return found


@pytest.mark.parametrize(
    ("first", "second", "name", "how"),
    [
        (b"Subject: a", b"SUBJECT: a", "2 Subject fields", "take out all but one"),
        (b"To: a@x.org", b"to: b@x.org", "2 To fields", "commas between them.*--repeated-recipients join"),
        (b"Cc: a@x.org", b"CC: b@x.org", "2 Cc fields", "commas between them.*--repeated-recipients join"),
        (b"Reply-To: a@x.org", b"Reply-to: b@x.org", "2 Reply-To fields", "commas between them"),
        (b"Date: d", b"Date: d", "2 Date fields", "take out all but one"),
        (b"Message-ID: <a@x>", b"Message-Id:", "2 Message-ID fields", "take out all but one"),
        (b"Sender: a@x.org", b"Sender: a@x.org", "2 Sender fields", "take out all but one"),
        (b"In-Reply-To: <a@x>", b"In-Reply-To: <b@x>", "2 In-Reply-To fields", "spaces between them"),
        (b"References: <a@x>", b"references: <b@x>", "2 References fields", "spaces between them"),
        (b"MIME-Version: 1.0", b"Mime-Version: 1.0", "2 MIME-Version fields", "take out all but one"),
        (b"Content-Type: text/plain", b"Content-Type: text/html", "2 Content-Type fields", "take out all but one"),
        (
            b"Content-Transfer-Encoding: 7bit",
            b"Content-Transfer-Encoding: 8bit",
            "2 Content-Transfer-Encoding fields",
            "take out all but one",
        ),
    ],
)
def test_a_field_that_may_stand_once_and_comes_twice_is_refused(
    first: bytes, second: bytes, name: str, how: str
) -> None:
    check(FROM + first + b"\r\n\r\n" + second + b"\r\n")
    with pytest.raises(ValueError, match=f"message has {name}.*{how}"):
        check(first + b"\r\n" + FROM + second + b"\r\n\r\nbody\r\n")


@pytest.mark.parametrize("name", [b"Received", b"Comments", b"Keywords", b"Bcc", b"Resent-To", b"List-Id", b"X-Any"])
def test_other_fields_may_be_repeated(name: bytes) -> None:
    content = FROM + (name + b": x\r\n") * 3 + b"\r\n"
    assert check(content).content == content


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        ([b"To: a@x.org", b"To: b@x.org"], b"To: a@x.org,\r\n b@x.org\r\n"),
        ([b"to: a@x.org,", b"TO:  b@x.org , c@x.org"], b"To: a@x.org,\r\n b@x.org , c@x.org\r\n"),
        ([b"Cc: A\r\n <a@x.org>", b"Cc: b@x.org"], b"Cc: A\r\n <a@x.org>,\r\n b@x.org\r\n"),
        ([b"To:", b"To: b@x.org"], b"To: b@x.org\r\n"),
        ([b"To: undisclosed-recipients:;", b"To: b@x.org"], b"To: undisclosed-recipients:;,\r\n b@x.org\r\n"),
    ],
)  # fmt: skip
def test_repeated_recipients_are_joined_where_the_client_says_so(lines: list[bytes], joined: bytes) -> None:
    content = (
        lines[0] + b"\r\n" + FROM + b"".join(line + b"\r\n" for line in lines[1:]) + b"Subject: s\r\n\r\nTo: x\r\n"
    )
    found = check(content, joins_recipients=True).content
    assert found == joined + FROM + b"Subject: s\r\n\r\nTo: x\r\n"
    with pytest.raises(ValueError, match="2 Subject fields"):
        check(b"Subject: t\r\n" + content, joins_recipients=True)


@pytest.mark.parametrize("code", [*range(1, 9), 11, 12, *range(14, 32), 127])
def test_a_control_character_in_the_header_is_refused_by_its_line(code: int) -> None:
    with pytest.raises(ValueError, match=f"header line 3 holds the control character 0x{code:02X}; take it out"):
        check(FROM + b"Subject: a\r\n\tb" + bytes([code]) + b"c\r\nX-After: 1\r\n\r\n")
    content = FROM + b"Subject: a\tb\r\n\r\n" + bytes([code]) + b"\r\n"
    assert check(content).content == content


@pytest.mark.parametrize(("name", "is_signed"), [(b"Subject", True), (b"REFERENCES", True), (b"X-Data", False)])
def test_a_signed_field_over_64_kib_is_refused(name: bytes, is_signed: bool) -> None:
    line = b" " + b"x" * 900 + b"\r\n"
    field = name + b":\r\n" + line * 72
    most = field + b" " + b"x" * (MAX_SIGNED_FIELD_OCTETS - len(field) - 3) + b"\r\n"
    assert len(most) == 65_535
    check(FROM + most + b"\r\n")
    over = FROM + most[:-2] + b"x\r\n\r\n"
    if not is_signed:
        assert check(over).content == over
        return
    with pytest.raises(ValueError, match=f"{name.decode()} has 65,536 octets; at most 65,535 can be signed"):
        check(over)


def test_a_message_id_that_cannot_be_kept_is_refused_before_it_is_stored() -> None:
    with pytest.raises(ValueError, match="Message-ID holds characters"):
        check(FROM + b"Message-ID: <\xff@x>\r\n\r\n")
    assert headers.message_id(check(FROM + b"Message-ID: <>\r\n\r\n").scan) is None
