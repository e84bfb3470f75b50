"""Amazon SES tells of bounces in JSON, bare or in the envelope of SNS, as SNS sends it by mail."""

import json
from typing import Any

import pytest

from relayd.mail.report import Bounce, Complaint, DelayNotice, Unrecognised
from relayd.mail.report_filter import Interest, interest
from relayd.mail.report_reader import read

HEADER = (
    b"From: AWS Notifications <no-reply@sns.amazonaws.com>\r\nTo: shop@a.test\r\n"
    b"Subject: AWS Notification Message\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n\r\n"
)
FOOTER = "\n\n--\nIf you wish to stop receiving notifications from this topic, please click or visit the link below."
MAIL: dict[str, Any] = {
    "timestamp": "2026-03-01T10:00:00.000Z",
    "messageId": "0102018e-0000",
    "source": "b+token@bounces.a.test",
    "destination": ["u@b.test", "v@b.test"],
    "headers": [{"name": "From", "value": "shop@a.test"}, {"name": "Message-ID", "value": "<4711@a.test>"}],
    "commonHeaders": {"messageId": "<4711@a.test>", "subject": "Order"},
}


def notification(kind: str = "Bounce", key: str = "notificationType", **content: Any) -> str:
    return json.dumps({key: kind, "mail": MAIL, **content})


def bounce(*recipients: dict[str, str], kind: str = "Permanent", subtype: str = "General") -> dict[str, Any]:
    return {"bounceType": kind, "bounceSubType": subtype, "bouncedRecipients": list(recipients)}


def enveloped(text: str) -> str:
    return json.dumps(
        {"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:x", "Message": text}, indent=2
    )


def of(text: str) -> Any:
    return read(HEADER + text.encode())


GONE = {
    "emailAddress": "u@b.test",
    "action": "failed",
    "status": "5.1.1",
    "diagnosticCode": "smtp; 550 5.1.1 <u@b.test>: Recipient address rejected: User unknown",
}


@pytest.mark.parametrize("key", ["notificationType", "eventType"])
@pytest.mark.parametrize(
    "wrap", [str, enveloped, lambda text: text + FOOTER, lambda text: "\n " + enveloped(text) + FOOTER]
)
def test_a_bounce_names_recipient_status_reply_and_message(wrap: Any, key: str) -> None:
    found = of(wrap(notification(key=key, bounce=bounce(GONE))))
    assert isinstance(found, Bounce)
    (recipient,) = found.recipients
    assert (recipient.address, recipient.status) == ("u@b.test", "5.1.1")
    assert recipient.diagnostic == "550 5.1.1 <u@b.test>: Recipient address rejected: User unknown"
    assert found.original.message_ids[0] == "<4711@a.test>"
    assert "<0102018e-0000@email.amazonses.com>" in found.original.message_ids
    assert found.original.return_path == "b+token@bounces.a.test"


@pytest.mark.parametrize(
    ("kind", "subtype", "status", "diagnostic"),
    [
        ("Permanent", "General", "5.0.0", "General"),
        ("Permanent", "NoEmail", "5.0.0", "No Email"),
        ("Transient", "MailboxFull", "4.0.0", "Mailbox Full"),
        ("Transient", "MessageTooLarge", "4.0.0", "Message Too Large"),
        ("Undetermined", "Undetermined", "4.0.0", "Undetermined"),
    ],
)
def test_a_bounce_without_a_reply_is_told_by_its_type(kind: str, subtype: str, status: str, diagnostic: str) -> None:
    found = of(notification(bounce=bounce({"emailAddress": "u@b.test"}, kind=kind, subtype=subtype)))
    assert isinstance(found, Bounce)
    assert [(each.status, each.diagnostic) for each in found.recipients] == [(status, diagnostic)]


def test_complaints_and_delays_are_read_and_the_rest_changes_nothing() -> None:
    complaint = {"complainedRecipients": [{"emailAddress": "Jane <u@b.test>"}], "complaintFeedbackType": "abuse"}
    found = of(enveloped(notification("Complaint", complaint=complaint)))
    assert isinstance(found, Complaint)
    assert (found.feedback_type, found.original_recipients) == ("abuse", ("u@b.test",))
    delay = {"delayType": "MailboxFull", "delayedRecipients": [{"emailAddress": "u@b.test", "status": "4.2.2"}]}
    assert isinstance(of(notification("DeliveryDelay", "eventType", deliveryDelay=delay)), DelayNotice)
    for kind in ("Delivery", "Send", "Open", "Click", "Reject"):
        assert isinstance(of(notification(kind, "eventType")), Unrecognised)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"notificationType": "Bounce"}',
        '{"notificationType": "Bounce", "mail": []}',
        '{"notificationType": 5, "mail": {}}',
        '{"notificationType": "Bounce", "mail": {}, "bounce": {"bouncedRecipients": 7}}',
        '{"notificationType": "Bounce", "mail": {"headers": 3}, "bounce": {"bouncedRecipients": [1, {}]}}',
        '{"notificationType": "Bounce", "mail": {}, "bounce": {"bouncedRecipients": [{"emailAddress": ["u@b.test"]}]}}',
        '{"Type": "Notification", "Message": "{"}',
        'Hello, {"notificationType": "Bounce"} is what it said',
        '{"Type": "Notification", "Message": "\\ud800"}',
    ],
)
def test_what_only_resembles_a_notification_is_none(text: str) -> None:
    assert isinstance(of(text), Unrecognised)


def test_a_person_who_quotes_a_notification_is_a_person() -> None:
    quoted = "Look what I got:\n\n> " + notification(bounce=bounce(GONE))
    content = b"From: jane@example.net\r\nSubject: Re: x\r\nIn-Reply-To: <1@a.test>\r\n\r\n" + quoted.encode()
    assert type(read(content)).__name__ == "Reply"


def test_an_inbox_is_searched_for_them() -> None:
    assert interest(HEADER)[0] is Interest.REPORT
    foreign = HEADER.replace(b"sns.amazonaws.com", b"sns.amazonaws.com.attacker.test")
    assert interest(foreign)[0] is Interest.NONE
