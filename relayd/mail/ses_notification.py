"""Read what Amazon SES says of a message in JSON: a notification or an event, bare or in the envelope of Amazon SNS.

Source: docs.aws.amazon.com/ses, "Amazon SNS notification contents" and "Contents of event data".
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from relayd.mail import encoded_words
from relayd.mail.delivery_report import address_in, diagnostic_in, enhanced_in
from relayd.mail.loose_header import LooseHeader
from relayd.mail.report import (
    Action,
    Bounce,
    Complaint,
    DelayNotice,
    Original,
    Report,
    ReportedRecipient,
    Unrecognised,
)

MAX_CHARACTERS = 262_144  # what SNS sends at most
MAX_RECIPIENTS = 1000

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ANNOUNCED = re.compile(r"@sns(?:\.[a-z0-9-]{1,30})?\.amazonaws\.com(?:\.cn)?\Z", re.IGNORECASE)


def is_announced(header: LooseHeader, sender: str) -> bool:
    """Whether a header says that SNS sends this."""
    return bool(header.first("x-amz-sns-message-id") or _ANNOUNCED.search(sender))


def read(text: str) -> Report | None:
    """None if the text is no notification."""
    content = _object(text)
    if content.get("Type") == "Notification" and isinstance(content.get("Message"), str):
        content = _object(content["Message"])
    kind = content.get("notificationType") or content.get("eventType")
    mail = content.get("mail")
    if not isinstance(kind, str) or not isinstance(mail, dict):
        return None
    original = _original(mail)
    match kind:
        case "Bounce":
            return _bounce(_mapping(content, "bounce"), original)
        case "DeliveryDelay":
            delay = _mapping(content, "deliveryDelay")
            return DelayNotice(tuple(_recipients(delay, "delayedRecipients", Action.DELAYED, "4.0.0")), original)
        case "Complaint":
            return _complaint(_mapping(content, "complaint"), original)
        case _:
            return Unrecognised(
                f"an event of Amazon SES that changes nothing: {encoded_words.printable(kind.encode(), 40)}"
            )


def _object(text: str) -> dict[str, Any]:
    """The first JSON object of a text: SNS appends how to unsubscribe."""
    begin = text.find("{")
    if begin < 0 or text[:begin].strip():
        return {}
    try:
        found, _ = json.JSONDecoder().raw_decode(text[:MAX_CHARACTERS], begin)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _bounce(bounce: dict[str, Any], original: Original) -> Report:
    is_permanent = bounce.get("bounceType") == "Permanent"
    status = "5.0.0" if is_permanent else "4.0.0"
    subtype = _WORDS.sub(" ", _text(bounce, "bounceSubType"))
    recipients = tuple(_recipients(bounce, "bouncedRecipients", Action.FAILED, status, reason=subtype))
    if not recipients:
        return Unrecognised("a bounce of Amazon SES that names no recipient")
    return Bounce(recipients, original, reporting_mta=_text(bounce, "reportingMTA")[:255] or None)


def _complaint(complaint: dict[str, Any], original: Original) -> Report:
    return Complaint(
        feedback_type=(_text(complaint, "complaintFeedbackType") or "abuse").lower()[:40],
        original=original,
        original_mail_from=original.return_path,
        original_recipients=tuple(
            each.address for each in _recipients(complaint, "complainedRecipients", Action.FAILED)
        ),
        reported_by=_text(complaint, "userAgent")[:200] or "Amazon SES",
    )


def _recipients(
    about: dict[str, Any], key: str, action: Action, default_status: str | None = None, *, reason: str = ""
) -> Iterator[ReportedRecipient]:
    listed = about.get(key)
    for each in listed[:MAX_RECIPIENTS] if isinstance(listed, list) else ():
        if not isinstance(each, dict):
            continue
        address = address_in(_text(each, "emailAddress"))
        if "@" in address:
            diagnostic = diagnostic_in(_text(each, "diagnosticCode"))
            status = enhanced_in(_text(each, "status")) or enhanced_in(diagnostic) or default_status
            yield ReportedRecipient(address, None, action, status, diagnostic or reason)


def _original(mail: dict[str, Any]) -> Original:
    headers = mail.get("headers")
    named = [
        _text(each, "value")
        for each in (headers if isinstance(headers, list) else ())
        if isinstance(each, dict) and _text(each, "name").lower() == "message-id"
    ]
    ids = [*named, _text(_mapping(mail, "commonHeaders"), "messageId")]
    own = _text(mail, "messageId")
    if own:
        ids.append(f"{own}@email.amazonses.com")  # what SES writes in its place
    destination = mail.get("destination")
    recipients = [
        address_in(each) for each in (destination if isinstance(destination, list) else ()) if isinstance(each, str)
    ]
    source = address_in(_text(mail, "source"))
    return Original(
        message_ids=tuple(dict.fromkeys(f"<{each.strip().strip('<>')[:1000]}>" for each in ids if "@" in each)),
        return_path=source if "@" in source else None,
        recipients=tuple(each for each in recipients[:MAX_RECIPIENTS] if "@" in each),
    )


def _mapping(content: dict[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _text(content: dict[str, Any], key: str) -> str:
    found = content.get(key)
    return found if isinstance(found, str) else ""
