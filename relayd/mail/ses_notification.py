"""Read what Amazon SES says of a message by JSON: SNS sends it by mail, bare or as the text of an envelope of its own.

https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html (notificationType) and
https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html (eventType).
"""

import json
import re
from collections.abc import Mapping, Sequence

from relayd.mail import encoded_words, plain_text
from relayd.mail.delivery_report import MAX_RECIPIENTS, enhanced_in
from relayd.mail.loose_header import LooseHeader
from relayd.mail.mime_parts import Part
from relayd.mail.report import (
    MAX_ADDRESS_CHARACTERS,
    MAX_DIAGNOSTIC_CHARACTERS,
    Action,
    Bounce,
    Complaint,
    DelayNotice,
    Original,
    Report,
    ReportedRecipient,
    Unrecognised,
)
from relayd.mail.returned_message import addresses_in

_SUBJECT = re.compile(r"\AAWS Notification Message|\AAmazon SES (?:email )?(?:event|bounce|complaint)", re.IGNORECASE)

# Mail servers break long lines, within a string too.
_DECODER = json.JSONDecoder(strict=False)

# The status that a kind of bounce stands for, where SES gives none. None of them says that the recipient does not
# exist: SES would have a reply or a status that does.
_STATUS_OF = {
    ("permanent", "suppressed"): "5.1.0",
    ("transient", "mailboxfull"): "4.2.2",
    ("transient", "messagetoolarge"): "5.3.4",
    ("transient", "contentrejected"): "5.6.0",
    ("transient", "attachmentrejected"): "5.6.0",
    ("transient", "customtimeoutexceeded"): "4.4.7",
    ("permanent", "unsubscribedrecipient"): "5.7.1",
    ("permanent", "onaccountsuppressionlist"): "5.7.1",
}
_STATUS_OF_TYPE = {"permanent": "5.0.0", "transient": "4.0.0"}


def is_announced(sender: str, subject: str) -> bool:
    """Whether SNS sends a message, by its header alone."""
    return sender.lower().endswith("@sns.amazonaws.com") or _SUBJECT.search(subject) is not None


def read(top: LooseHeader, parts: Sequence[Part]) -> Report | None:
    """The report, if the message is nothing but such a notification."""
    if top.first("in-reply-to") or top.first("references"):
        return None  # a person quotes one
    for part in parts:
        if part.within == 0 and part.content_type in ("text/plain", "application/json"):
            event = _event(plain_text.text_of(part))
            if event is not None:
                return _report(event)
    return None


def _event(text: str) -> Mapping[str, object] | None:
    told = _object(text)
    if told is not None and told.get("Type") in ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"):
        message = told.get("Message")
        if told["Type"] != "Notification":
            return {"eventType": told["Type"]}
        # Raw delivery aside, SNS puts the event into a string.
        told = _object(message) if isinstance(message, str) else _mapping(message)
    if not told or not _kind(told):
        return None
    return told if isinstance(told.get("mail"), dict) else None


def _object(text: str) -> Mapping[str, object] | None:
    """The object that a text begins with: SNS adds a footer. Deep or broken JSON is none."""
    text = text.lstrip()
    if not text.startswith("{"):
        return None
    for attempt in (text.replace("\n ", ""), text):
        try:
            told = _DECODER.raw_decode(attempt)[0]
        except (ValueError, RecursionError):
            continue
        return told if isinstance(told, dict) else None
    return None


def _report(event: Mapping[str, object]) -> Report:
    original = _original(_mapping(event.get("mail")))
    match _kind(event):
        case "bounce":
            bounce = _mapping(event.get("bounce"))
            return Bounce(
                recipients=_recipients(bounce, "bouncedRecipients", Action.FAILED)
                or (ReportedRecipient("", None, Action.FAILED, _status(bounce), _type_of(bounce)),),
                original=original,
                reporting_mta=_text(bounce.get("reportingMTA"), 255).rpartition(";")[2].strip() or None,
            )
        case "complaint":
            return _complaint(_mapping(event.get("complaint")), original)
        case "deliverydelay":
            delay = _mapping(event.get("deliveryDelay"))
            return DelayNotice(_recipients(delay, "delayedRecipients", Action.DELAYED), original)
        case "subscriptionconfirmation":
            return Unrecognised("Amazon SNS asks to confirm a subscription: relayd report show ID --raw has the link")
        case other:
            return Unrecognised(f"an Amazon SES event that changes nothing: {_text(other, 40)}")


def _recipients(event: Mapping[str, object], name: str, action: Action) -> tuple[ReportedRecipient, ...]:
    found = [_recipient(each, event, action) for each in _mappings(event.get(name))[:MAX_RECIPIENTS]]
    return tuple(each for each in found if each.address)


def _recipient(fields: Mapping[str, object], event: Mapping[str, object], action: Action) -> ReportedRecipient:
    diagnostic = _text(fields.get("diagnosticCode"), MAX_DIAGNOSTIC_CHARACTERS)
    return ReportedRecipient(
        address=_address(fields.get("emailAddress")),
        original_address=None,
        action=action,
        status=enhanced_in(_text(fields.get("status"), 100)) or enhanced_in(diagnostic) or _status(event),
        diagnostic=diagnostic.partition(";")[2].strip()
        if diagnostic.startswith("smtp;")
        else diagnostic or _type_of(event),
    )


def _complaint(event: Mapping[str, object], original: Original) -> Complaint:
    recipients = [_address(each.get("emailAddress")) for each in _mappings(event.get("complainedRecipients"))]
    named = tuple(dict.fromkeys(each for each in recipients if each))
    return Complaint(
        feedback_type=_text(event.get("complaintFeedbackType"), 40).lower() or "abuse",
        original=original,
        original_mail_from=original.return_path,
        # "Recipients that may have submitted the complaint": of several it is not told which.
        original_recipients=named if len(named) == 1 else (),
        arrived_at=_text(event.get("arrivalDate"), 60) or None,
        reported_by=_text(event.get("userAgent"), 200) or "Amazon SES",
    )


def _original(mail: Mapping[str, object]) -> Original:
    common = _mapping(mail.get("commonHeaders"))
    fields = tuple(
        (_text(each.get("name"), 100).lower(), _text(each.get("value"), 4000))
        for each in _mappings(mail.get("headers"))
    )
    header = LooseHeader(fields[:500])
    ids = [_text(common.get("messageId"), 1000), header.first("message-id")]
    # SES gives each message an id, and makes its Message-ID of it.
    own = _text(mail.get("messageId"), 200)
    ids += [f"{own}@email.amazonses.com"] if own and "@" not in own else [own]
    return Original(
        message_ids=tuple(dict.fromkeys(f"<{each.strip(' <>')}>" for each in ids if "@" in each)),
        provider_message_id=own or None,
        return_path=next(iter(addresses_in([_text(mail.get("source"), 1000)])), None),
        sender=next(iter(addresses_in(header.all("from"))), None),
        recipients=tuple(filter(None, (_address(each) for each in _items(mail.get("destination"))))),
        header=header,
    )


def _kind(event: Mapping[str, object]) -> str:
    """The type of an event in lower case, without spaces."""
    kind = event.get("notificationType") or event.get("eventType")
    return _text(kind, 40).lower().replace(" ", "")


def _status(event: Mapping[str, object]) -> str | None:
    kind = _text(event.get("bounceType"), 40).lower()
    return _STATUS_OF.get((kind, _text(event.get("bounceSubType"), 40).lower())) or _STATUS_OF_TYPE.get(kind)


def _type_of(event: Mapping[str, object]) -> str:
    """What SES calls it, where it quotes no reply."""
    named = [_text(event.get(name), 40) for name in ("bounceType", "bounceSubType", "delayType")]
    return f"Amazon SES: {', '.join(each for each in named if each) or 'no reason given'}"


def _address(value: object) -> str:
    return next(iter(addresses_in([_text(value, 1000)])), "")[:MAX_ADDRESS_CHARACTERS]


def _text(value: object, limit: int) -> str:
    return encoded_words.printable(value.encode("utf-8", "replace"), limit) if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [each for each in _items(value) if isinstance(each, dict)]


def _items(value: object) -> list[object]:
    return value[:MAX_RECIPIENTS] if isinstance(value, list) else []
