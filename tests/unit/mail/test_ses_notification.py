"""Amazon SES tells of bounces by JSON: bare or in an envelope of SNS, by either name of its type."""

import json
from typing import Any

import pytest

from relayd.mail.report import Bounce, Complaint, DelayNotice, Reply, Unrecognised
from relayd.mail.report_reader import read

SES_ID = "0100018f3c2a1b4d-6f1c2d3e-aaaa-bbbb-cccc-1234567890ab-000000"
MAIL = {
    "messageId": SES_ID,
    "source": "b+token@bounces.a.test",
    "destination": ["u@b.test"],
    "headers": [{"name": "Message-ID", "value": "<1@a.test>"}, {"name": "From", "value": "Shop <shop@a.test>"}],
    "commonHeaders": {"messageId": "<1@a.test>"},
}
TOP = "From: no-reply@sns.test\nSubject: AWS Notification Message\n"


def _event(kind: str, key: str = "notificationType", **fields: Any) -> dict[str, Any]:
    return {key: kind, "mail": MAIL, **fields}


def _bounce(kind: str, subtype: str, key: str = "notificationType", **recipient: str) -> dict[str, Any]:
    about = {
        "bounceType": kind,
        "bounceSubType": subtype,
        "bouncedRecipients": [{"emailAddress": "u@b.test"} | recipient],
    }
    return _event("Bounce", key, bounce=about)


def _bare(event: Any) -> bytes:
    return (TOP + "\n" + json.dumps(event)).encode()


def _with_footer(event: Any) -> bytes:
    return _bare(event) + b"\n\n--\nTo stop these notifications: https://sns.test/unsubscribe\n"


def _in_an_envelope(event: Any) -> bytes:
    return _bare({"Type": "Notification", "MessageId": "m", "Message": json.dumps(event)})


def _broken_at_998(event: Any) -> bytes:
    text = json.dumps(event)
    half = text.index("token") + 2
    return (TOP + "\n" + text[:half] + "\n " + text[half:]).encode()


def _as_json_part(event: Any) -> bytes:
    part = "--b\nContent-Type: application/json\n\n" + json.dumps(event, indent=1) + "\n--b--\n"
    return (TOP + "Content-Type: multipart/mixed; boundary=b\n\n" + part).encode()


@pytest.mark.parametrize("wrap", [_bare, _with_footer, _in_an_envelope, _broken_at_998, _as_json_part])
@pytest.mark.parametrize("key", ["notificationType", "eventType"])
def test_a_bounce_is_read_however_it_is_wrapped(wrap: Any, key: str) -> None:
    event = _bounce("Permanent", "General", key, status="5.1.1", diagnosticCode="smtp; 550 5.1.1 user unknown")
    found = read(wrap(event))
    assert isinstance(found, Bounce)
    (one,) = found.recipients
    assert (one.address, one.status, one.diagnostic) == ("u@b.test", "5.1.1", "550 5.1.1 user unknown")
    assert found.original.message_ids[0] == "<1@a.test>"
    assert (found.original.provider_message_id, found.original.return_path) == (SES_ID, "b+token@bounces.a.test")


@pytest.mark.parametrize(
    ("kind", "subtype", "status"),
    [
        ("Permanent", "General", "5.0.0"),
        ("Permanent", "NoEmail", "5.0.0"),
        ("Permanent", "OnAccountSuppressionList", "5.7.1"),
        ("Transient", "General", "4.0.0"),
        ("Transient", "MailboxFull", "4.2.2"),
        ("Transient", "MessageTooLarge", "5.3.4"),
        ("Undetermined", "Undetermined", None),
    ],
)
def test_a_bounce_without_a_reply_has_the_status_of_its_type(kind: str, subtype: str, status: str | None) -> None:
    found = read(_bare(_bounce(kind, subtype)))
    assert isinstance(found, Bounce)
    assert found.recipients[0].status == status
    assert found.recipients[0].diagnostic == f"Amazon SES: {kind}, {subtype}"


@pytest.mark.parametrize(
    ("recipients", "named"),
    [(["u@b.test"], ("u@b.test",)), (["u@b.test", "v@d.test"], ()), ([], ())],
)
def test_a_complaint_names_its_recipient_only_if_there_is_one(recipients: list[str], named: tuple[str, ...]) -> None:
    about = {"complainedRecipients": [{"emailAddress": each} for each in recipients], "complaintFeedbackType": "abuse"}
    found = read(_in_an_envelope(_event("Complaint", complaint=about)))
    assert isinstance(found, Complaint)
    assert (found.feedback_type, found.original_recipients) == ("abuse", named)


def test_a_delay_is_a_delay() -> None:
    about = {"delayType": "MailboxFull", "delayedRecipients": [{"emailAddress": "u@b.test", "status": "4.2.2"}]}
    found = read(_bare(_event("DeliveryDelay", "eventType", deliveryDelay=about)))
    assert isinstance(found, DelayNotice)
    assert [each.address for each in found.recipients] == ["u@b.test"]


@pytest.mark.parametrize(
    "event",
    [
        _event("Delivery"),
        _event("Open", "eventType"),
        {"notificationType": "Bounce"},
        {"Type": "Notification", "Message": "validated"},
        {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.test/"},
        {"notificationType": ["Bounce"], "mail": MAIL},
        ["Bounce"],
    ],
)
def test_other_json_is_no_report(event: Any) -> None:
    assert isinstance(read(_bare(event)), Unrecognised)


@pytest.mark.parametrize(
    "event",
    [
        {"notificationType": "Bounce", "mail": {"headers": [1, {"name": 2}], "destination": "x"}, "bounce": []},
        {"notificationType": "Bounce", "mail": {}, "bounce": {"bouncedRecipients": [[], {"emailAddress": {}}]}},
        {"notificationType": "Complaint", "mail": {"source": 3}, "complaint": {"complainedRecipients": {}}},
    ],
)
def test_fields_of_a_wrong_type_do_not_raise(event: Any) -> None:
    assert isinstance(read(_bare(event)), (Bounce, Complaint))


@pytest.mark.parametrize(
    "text", ['{"mail":' * 40_000, '{"Type":"Notification","Message":"' + "[" * 90_000 + '"}', "{" * 90_000]
)
def test_deep_json_is_only_not_recognised(text: str) -> None:
    assert isinstance(read((TOP + "\n" + text).encode()), Unrecognised)


def test_a_person_who_quotes_a_notification_answers() -> None:
    event = json.dumps(_bounce("Permanent", "General"))
    found = read(f"From: jane@b.test\nSubject: Re: x\nIn-Reply-To: <1@a.test>\n\n{event}\n".encode())
    assert isinstance(found, Reply)
