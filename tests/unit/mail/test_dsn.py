"""Notifications that the standard library reads back field by field, whatever the other side replied."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.mail.address import Address
from relayd.mail.dsn import ReportedRecipient, compose
from relayd.mail.dsn_parts import MAX_ORIGINAL_HEADERS_OCTETS
from relayd.mail.headers import scan

ARRIVED = datetime(2025, 7, 1, 8, 0, 0, tzinfo=UTC)
TRIED = datetime(2025, 7, 1, 9, 30, 0, tzinfo=UTC)
ORIGINAL = b"From: a@b.example\r\nSubject: hello\r\n world\r\n"


def _failed(**changed: object) -> ReportedRecipient:
    values: dict[str, object] = {
        "recipient": Address.parse("nobody@dest.example"),
        "status": "5.1.1",
        "diagnostic": "550 5.1.1 No such user",
        "remote_mta": "mx.dest.example",
        "action": "failed",
        "last_attempt_at": TRIED,
    }
    return ReportedRecipient(**(values | changed))  # type: ignore[arg-type]


def _composed(*failed: ReportedRecipient, **changed: object) -> bytes:
    values: dict[str, object] = {
        "reporting_mta": "relay.example",
        "sender": Address.parse("MAILER-DAEMON@relay.example"),
        "to": Address.parse("a@b.example"),
        "original": ORIGINAL,
        "envelope_id": None,
        "arrived_at": ARRIVED,
        "recipients": failed or (_failed(),),
        "message_id": "<dsn1@relay.example>",
        "date": "Tue, 01 Jul 2025 10:00:00 +0000",
        "queue_id": "0197c0de-1",
        "smtputf8": False,
    }
    content = compose(**(values | changed))  # type: ignore[arg-type]
    assert content.endswith(b"\r\n") and b"\0" not in content
    lines = content.split(b"\r\n")
    assert max(map(len, lines)) < 998 and not any(b"\r" in line or b"\n" in line for line in lines)
    return content


def _parts(content: bytes) -> tuple[Message, Message, Message, Message]:
    whole = message_from_bytes(content, policy=policy.compat32)
    assert not whole.defects
    text, status, original = whole.get_payload()
    return whole, text, status, original


def _blocks(status: Message) -> list[dict[str, str]]:
    blocks = [{name: value.replace("\r\n", "") for name, value in block.items()} for block in status.get_payload()]
    return [block for block in blocks if block]


def test_every_field_of_a_failure() -> None:
    content = _composed(envelope_id="QQ314159")
    whole, text, status, original = _parts(content)
    assert content.isascii()
    assert dict(whole.items()) | {"Content-Type": ""} == {
        "From": "Mail Delivery System <MAILER-DAEMON@relay.example>",
        "To": "<a@b.example>",
        "Subject": "Undelivered mail: 1 recipient",
        "Date": "Tue, 01 Jul 2025 10:00:00 +0000",
        "Message-ID": "<dsn1@relay.example>",
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
        "Content-Type": "",
    }
    assert whole.get_content_type() == "multipart/report"
    assert whole.get_param("report-type") == "delivery-status"
    assert status.get_content_type() == "message/delivery-status"
    assert _blocks(status) == [
        {
            "Reporting-MTA": "dns; relay.example",
            "Original-Envelope-Id": "QQ314159",
            "X-Relayd-Queue-Id": "0197c0de-1",
            "Arrival-Date": "Tue, 01 Jul 2025 08:00:00 +0000",
        },
        {
            "Final-Recipient": "rfc822; nobody@dest.example",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.dest.example",
            "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
            "Last-Attempt-Date": "Tue, 01 Jul 2025 09:30:00 +0000",
        },
    ]
    assert original.get_content_type() == "text/rfc822-headers"
    assert original.get_payload(decode=True) == ORIGINAL
    assert text.get_payload().replace("\r\n", "\n") == (
        "This is the mail system at relay.example.\n\n"
        "Your message, taken in on Tue, 01 Jul 2025 08:00:00 +0000\n"
        "and queued as 0197c0de-1, has not reached:\n\n"
        "<nobody@dest.example>\n"
        "  Not delivered; relayd will not try again.\n"
        "  Check the address for typing errors. If it is right, it may no longer be\n"
        "  in use.\n"
        "  mx.dest.example replied:\n"
        "    550 5.1.1 No such user\n\n"
        "The details follow for programs, and then the header of your message.\n"
    )


def test_several_recipients_each_have_a_block_and_a_paragraph() -> None:
    late = Address.parse("late@dest.example")
    _, text, status, _ = _parts(_composed(_failed(), _failed(recipient=late, action="delayed", status="4.4.1")))
    assert [block["Action"] for block in _blocks(status)[1:]] == ["failed", "delayed"]
    assert "<late@dest.example>\r\n  Not delivered yet; relayd keeps trying." in text.get_payload()


@pytest.mark.parametrize(
    ("action", "subject"), [("delayed", "Delayed mail: 2 recipients"), ("failed", "Undelivered mail: 2 recipients")]
)
def test_the_subject_says_whether_anything_is_lost(action: str, subject: str) -> None:
    whole, *_ = _parts(_composed(_failed(action=action), _failed(action=action)))
    assert whole["Subject"] == subject


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("5.1.1", "Check the address"),
        ("4.2.2", "mailbox is full"),
        ("5.2.3", "too large"),
        ("5.3.4", "too large"),
        ("5.7.26", "by policy"),
        ("4.4.7", "could not be reached"),
        ("5.6.0", "show this message to your administrator"),
    ],
)
def test_the_reader_is_told_what_to_do(status: str, advice: str) -> None:
    _, text, _, _ = _parts(_composed(_failed(status=status)))
    assert advice in text.get_payload()


def test_a_reason_of_our_own_is_no_smtp_reply() -> None:
    own = _failed(diagnostic="expired after 5 days", remote_mta=None, status="4.4.7")
    _, text, status, _ = _parts(_composed(own))
    block = _blocks(status)[1]
    assert block["Diagnostic-Code"] == "x-relayd; expired after 5 days"
    assert "Remote-MTA" not in block
    assert "The reason given:\r\n    expired after 5 days" in text.get_payload()


def test_what_is_unknown_is_left_out_and_a_bad_status_is_made_general() -> None:
    _, _, status, _ = _parts(_composed(_failed(diagnostic=None, remote_mta=None, status="5.1.1\r\nX: y")))
    assert _blocks(status)[1].keys() == {"Final-Recipient", "Action", "Status", "Last-Attempt-Date"}
    assert _blocks(status)[1]["Status"] == "5.0.0"


def test_long_replies_of_several_lines_are_kept_and_folded() -> None:
    lines = [f"550-5.7.1 line {i} of a long explanation with a link https://x.example/{'p' * 60}" for i in range(5)]
    _, text, status, _ = _parts(_composed(_failed(diagnostic="\r\n".join(lines))))
    assert _blocks(status)[1]["Diagnostic-Code"] == "smtp; " + " ".join(lines)
    assert "p" * 60 in text.get_payload() and text.get_payload().count("550-5.7.1") == 5


@given(st.text(max_size=300), st.text(max_size=300), st.booleans())
def test_no_reply_can_add_a_field_or_a_part(reply: str, host: str, utf8: bool) -> None:
    recipient = Address.parse("jörg@dest.example" if utf8 else "j@dest.example")
    hostile = "550 x\r\n\r\n--=_relayd_0197c0de-1\r\nX-Evil: 1\r\n" + reply
    failed = _failed(recipient=recipient, diagnostic=hostile, remote_mta=host)
    content = _composed(failed, smtputf8=utf8, envelope_id=host, reporting_mta=host)
    whole, *_ = _parts(content)
    assert len(whole.get_payload()) == 3
    assert b"\r\nX-Evil" not in content
    for line in content.split(b"\r\n"):
        assert not line or line.strip(), "a line of spaces alone ends a header for some programs"


def test_a_long_word_is_broken_below_the_line_limit() -> None:
    _composed(_failed(diagnostic="550 " + "x" * 5000))
    recipient = Address.parse("ö@x.example")
    _composed(_failed(recipient=recipient, diagnostic="550 " + "\U0001f600" * 5000), smtputf8=True)


@pytest.mark.parametrize(
    "headers",
    ["Subject: réglé\r\n".encode(), b"Subject: r\xe9gl\xe9\r\n", b"A: " + b"x" * 2000 + b"\r\n", b"A: b \r\n.\r\n"],
)
def test_any_original_header_survives_in_seven_bits(headers: bytes) -> None:
    content = _composed(original=headers)
    *_, original = _parts(content)
    assert content.isascii()
    assert original.get_payload(decode=True) == headers


def test_the_original_header_is_cut_at_a_line() -> None:
    *_, original = _parts(_composed(original=b"X-Long: yes\r\n" * 10_000))
    payload = original.get_payload(decode=True)
    assert payload.endswith(b"X-Long: yes\r\n") and 65_000 < len(payload) <= MAX_ORIGINAL_HEADERS_OCTETS
    *_, original = _parts(_composed(original=b"X-Long: " + b"y" * 100_000))
    assert len(original.get_payload(decode=True)) == MAX_ORIGINAL_HEADERS_OCTETS + 2


def test_a_boundary_in_the_original_is_avoided() -> None:
    forged = b"X: 1\r\n--=_relayd_0197c0de-1--\r\n--=_relayd_0197c0de-1_\r\n"
    *_, original = _parts(_composed(original=forged))
    assert original.get_payload(decode=True) == forged


def test_a_non_ascii_recipient_is_spelled_out_where_utf8_is_not_taken() -> None:
    content = _composed(_failed(recipient=Address.parse("jörg+x@dest.example")))
    _, text, status, _ = _parts(content)
    assert content.isascii()
    assert _blocks(status)[1]["Final-Recipient"] == r"utf-8; j\x{F6}rg\x{2B}x@dest.example"
    assert r"<j\x{F6}rg\x{2B}x@dest.example>" in text.get_payload()


def test_where_utf8_is_taken_the_global_types_are_used() -> None:
    content = _composed(
        _failed(recipient=Address.parse("jörg@dest.example"), diagnostic="550 5.1.1 Benutzer jörg unbekannt"),
        to=Address.parse("ä@b.example"),
        original="From: ä@b.example\r\n".encode(),
        smtputf8=True,
    )
    whole, text, status, original = _parts(content)
    assert whole.get_param("report-type") == "global-delivery-status"
    assert status.get_content_type() == "message/global-delivery-status"
    assert original.get_content_type() == "message/global-headers"
    assert "Benutzer jörg unbekannt" in text.get_payload(decode=True).decode()
    assert "\r\nTo: <ä@b.example>\r\n".encode() in content
    assert "\r\nFinal-Recipient: utf-8; jörg@dest.example\r\n".encode() in content
    assert "\r\nDiagnostic-Code: smtp; 550 5.1.1 Benutzer jörg unbekannt\r\n".encode() in content
    assert content.endswith("From: ä@b.example\r\n\r\n--=_relayd_0197c0de-1--\r\n".encode())


@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize(
    ("to", "recipient", "original_recipient", "fields"),
    [
        ("a@bücher.example", "j@b.test", None, (None, "rfc822; j@b.test")),
        ("a@b.test", "j@bücher.example", None, (None, "rfc822; j@xn--bcher-kva.example")),
        (
            "a@b.test",
            "j@bücher.example",
            "utf-8;jörg@bücher.example",
            (r"utf-8; j\x{F6}rg@b\x{FC}cher.example", "rfc822; j@xn--bcher-kva.example"),
        ),
        ("a@b.test", "j@b.test", "utf-8;δ@b.test", (r"utf-8; \x{3B4}@b.test", "rfc822; j@b.test")),
        ("a@例え.test", "j@例え.test", "rfc822;j@b.test", ("rfc822; j@b.test", "rfc822; j@xn--r8jz45g.test")),
    ],
)
def test_a_domain_alone_leaves_it_in_seven_bits(
    to: str, recipient: str, original_recipient: str | None, fields: tuple[str | None, str], smtputf8: bool
) -> None:
    failed = _failed(recipient=Address.parse(recipient), original_recipient=original_recipient)
    content = _composed(failed, to=Address.parse(to), smtputf8=smtputf8)
    assert content.isascii()
    whole, _, status, _ = _parts(content)
    assert whole["To"] == f"<{Address.parse(to).plain}>" and whole.get_param("report-type") == "delivery-status"
    (_, block) = _blocks(status)
    assert (block.get("Original-Recipient"), block["Final-Recipient"]) == fields


def test_smtputf8_alone_does_not_leave_seven_bits() -> None:
    assert _composed(smtputf8=True) == _composed(smtputf8=False)


def test_a_non_ascii_sender_without_smtputf8_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="needs SMTPUTF8"):
        _composed(to=Address.parse("ä@b.example"))


def test_a_notification_is_a_message_that_can_be_prepared() -> None:
    content = _composed()
    found = scan(content)
    assert content[found.body_offset :].startswith(b"--=_relayd_") and len(found.fields) == 8


def test_a_success_that_is_passed_on_is_told_as_such() -> None:
    relayed = _failed(action="relayed", status="2.0.0", diagnostic="250 2.0.0 queued", remote_mta=None)
    whole, text, status, _ = _parts(_composed(relayed, _failed(action="relayed", status="odd")))
    assert whole["Subject"] == "Relayed mail: 2 recipients"
    assert [(block["Action"], block["Status"]) for block in _blocks(status)[1:]] == [("relayed", "2.0.0")] * 2
    said = " ".join(text.get_payload().split())
    assert "has been passed on for:" in said and "does not confirm deliveries" in said
    assert "The next mail system replied: 250 2.0.0 queued" in said


def test_the_subject_tells_of_the_gravest() -> None:
    whole, text, *_ = _parts(_composed(_failed(action="relayed"), _failed(), _failed(action="delayed")))
    assert whole["Subject"] == "Undelivered mail: 1 recipient" and "has come to this:" in text.get_payload()


def test_a_delay_is_told_with_its_reason_and_its_end() -> None:
    delayed = _failed(
        action="delayed",
        status="4.4.5",
        diagnostic=None,
        last_attempt_at=None,
        because="It waits for the mailbox daily limit to free.",
        expected_at=TRIED,
        retried_until=ARRIVED,
    )
    _, text, status, _ = _parts(_composed(delayed))
    block = _blocks(status)[1]
    assert block["Will-Retry-Until"] == "Tue, 01 Jul 2025 08:00:00 +0000" and "Last-Attempt-Date" not in block
    said = " ".join(text.get_payload().split())
    assert "waits for the mailbox daily limit to free. It is expected to leave about Tue, 01 Jul 2025 09:30:00" in said


@pytest.mark.parametrize("original", ["rfc822;Bob+x@Example.NET", "x400;/C=a b", "utf-8;j\\x{F6}rg@example.net"])
def test_the_original_recipient_is_quoted_and_first(original: str) -> None:
    _, _, status, _ = _parts(_composed(_failed(original_recipient=original)))
    block = _blocks(status)[1]
    assert block["Original-Recipient"] == original.replace(";", "; ", 1)
    assert list(block)[:2] == ["Original-Recipient", "Final-Recipient"]


def test_a_whole_original_comes_back_to_the_octet() -> None:
    original = ORIGINAL + b"\r\n.\r\n--=_relayd_0197c0de-1--\r\nno end of line"
    content = _composed(original=original, returns_whole=True)
    *_, returned = _parts(content)
    assert returned.get_content_type() == "message/rfc822" and original in content
    assert b"and then your message.\r\n" in content
    *_, returned = _parts(_composed(original=ORIGINAL + b"\r\n\xff\r\n", returns_whole=True))
    assert returned.get_content_type() == "message/rfc822" and returned["Content-Transfer-Encoding"] == "8bit"


@pytest.mark.parametrize("original", [ORIGINAL + b"\r\n" + b"x" * 999, b"Subject: \xff\r\n\r\nbody"])
def test_what_cannot_be_returned_as_it_is_is_not_returned_whole(original: bytes) -> None:
    *_, returned = _parts(_composed(original=original, returns_whole=True))
    assert returned.get_content_type() == "text/rfc822-headers"
    assert returned.get_payload(decode=True) == original.partition(b"\r\n\r\n")[0] + b"\r\n"
