"""From the bytes of a message that came back to what it says. Linear time, within caps; hostile input never raises.

A form of its own first, words last: the more a form says, the less has to be guessed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

from relayd.mail import (
    auto_reply,
    delivery_report,
    feedback_report,
    legacy_bounce,
    loose_header,
    mime_parts,
    plain_text,
    returned_message,
    ses_notification,
)
from relayd.mail.delivery_report import DeliveryStatus
from relayd.mail.loose_header import LooseHeader
from relayd.mail.mime_parts import Part
from relayd.mail.recipient_text import RecipientText, lowered
from relayd.mail.report import (
    MAX_EXPLANATION_CHARACTERS,
    Action,
    AutoReply,
    Bounce,
    DelayNotice,
    Original,
    Reply,
    Report,
    ReportedRecipient,
    Unrecognised,
)
from relayd.mail.work_budget import REPORT_STEPS, WorkBudget

MAX_SAID_CHARACTERS = 16_384
# Of so many recipients the text is searched for what their fields leave out: each time costs its whole length.
MAX_COMPLETED = 50
_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status", "message/delivery-report")

# What the text says, and the message that it quotes, at a level of messages within messages.
_SaidIn = Callable[[int], tuple[str, str]]

# RFC 8098: it has fields of the same names.
_RECEIPT = "message/disposition-notification"


def read(content: bytes, budget: WorkBudget | None = None) -> Report:
    """What the message says. Takes up to half a second for the worst: call it in a thread.

    `budget`: what its text may cost; once that is spent, recipients that are left get no text.
    """
    budget = budget or WorkBudget(REPORT_STEPS)
    octets = mime_parts.with_lf(content)
    top, offset = loose_header.parse(octets)
    parts = mime_parts.split(top, octets[offset:])
    said = cache(partial(_said, parts))
    is_receipt = any(part.content_type == _RECEIPT and part.within == 0 for part in parts)
    return (
        ses_notification.read(top, parts)
        or _complaint(top, parts, said)
        or (None if is_receipt else _delivery_report(top, parts, said, budget))
        or _legacy(top, parts, said, budget)
        or _answer(top)
        or Unrecognised("no bounce, no complaint, and no answer to anything")
    )


def _complaint(top: LooseHeader, parts: Sequence[Part], said_in: _SaidIn) -> Report | None:
    if any(part.content_type in _STATUS_TYPES for part in parts):
        return None
    said, quoted = said_in(0)
    return feedback_report.read(top, parts, said, returned_message.find(top, parts, quoted))


def _delivery_report(top: LooseHeader, parts: Sequence[Part], said_in: _SaidIn, budget: WorkBudget) -> Report | None:
    found = _status_part(parts)
    if found is None:
        return None
    part, status = found
    said, quoted = said_in(part.within)
    header = top if part.within == 0 else _header_around(parts, part)
    who = legacy_bounce.writer(header)
    says_delayed = legacy_bounce.is_delay(who, said)
    original = returned_message.find(header, parts, quoted or said, below=part.within)
    original = _with_ids_of(original, status)

    text = RecipientText(said, budget)

    @cache
    def told(action: Action) -> list[str]:
        found = legacy_bounce.failed(header, who, text, original, action)
        return [each.address for each in found if "@" in each.address]

    listed = delivery_report.recipients(status, says_delayed=says_delayed)
    senders = lowered((who.address, *who.to, original.sender or "", original.return_path or ""))
    counts = Counter([key for each in listed for key in lowered(_addresses(each))])
    everyone = frozenset(counts)
    recipients = []
    for each in listed[:MAX_COMPLETED]:
        others = everyone - {key for key in lowered(_addresses(each)) if counts[key] == 1}
        recipients.append(_completed(each, text, others, senders, told))
    nothing = RecipientText("", budget)
    recipients += [_completed(each, nothing, frozenset(), frozenset(), told) for each in listed[MAX_COMPLETED:]]
    if not recipients:
        return None
    failed = [each for each in recipients if each.action is Action.FAILED]
    if failed:
        return Bounce(
            recipients=tuple(failed),
            original=original,
            envelope_id=status.message.get("original-envelope-id", "")[:100] or None,
            reporting_mta=delivery_report.diagnostic_in(status.message.get("reporting-mta", ""))[:255] or None,
            explanation=_explanation(text, recipients, senders),
        )
    if any(each.action is Action.DELAYED for each in recipients):
        return DelayNotice(tuple(recipients), original)
    return Unrecognised("a report of success")


def _status_part(parts: Sequence[Part]) -> tuple[Part, DeliveryStatus] | None:
    """The first that is called so; else the first that reads so, which some systems call text."""
    for is_wanted in (_is_called_status, _reads_as_status):
        for part in parts:
            if is_wanted(part):
                status = delivery_report.parse(plain_text.text_of(part))
                if status.recipients:
                    return part, status
    return None


def _is_called_status(part: Part) -> bool:
    return part.content_type in _STATUS_TYPES


def _reads_as_status(part: Part) -> bool:
    # A file may hold a report as well as the message that one returns.
    is_file = part.content_type == "application/octet-stream"
    if part.content_type == "text/html" or (returned_message.is_returned(part) and not is_file):
        return False
    return part.content_type.startswith(("text/", "message/", "application/octet-stream")) and (
        delivery_report.looks_like_one(plain_text.text_of(part))
    )


def _explanation(text: RecipientText, recipients: Sequence[ReportedRecipient], senders: frozenset[str]) -> str:
    """The text to a reader. Of several recipients it says nothing that is sure to be about each of them."""
    if len(recipients) != 1:
        return ""
    return text.general(lowered(_addresses(recipients[0])), senders).strip()[:MAX_EXPLANATION_CHARACTERS]


def _addresses(recipient: ReportedRecipient) -> list[str]:
    return [each for each in (recipient.address, recipient.original_address) if each]


def _completed(
    found: ReportedRecipient,
    text: RecipientText,
    others: frozenset[str],
    senders: frozenset[str],
    told: Callable[[Action], list[str]],
) -> ReportedRecipient:
    """What the fields leave out, from the text: the address, the reply, a status that says something."""
    address = found.address
    if "@" not in address:
        named = told(found.action)
        address = named[0] if len(named) == 1 else address
    own = lowered([address, found.original_address or ""])
    diagnostic = found.diagnostic or text.diagnostic(own, others, senders)
    status = found.status
    if delivery_report.is_vague(status):
        better = delivery_report.enhanced_in(diagnostic)
        status = better if better and not delivery_report.is_vague(better) else status or better
    return replace(found, address=address, diagnostic=diagnostic, status=status)


def _legacy(top: LooseHeader, parts: Sequence[Part], said_in: _SaidIn, budget: WorkBudget) -> Report | None:
    said, quoted = said_in(0)
    who = legacy_bounce.writer(top)
    original = returned_message.find(top, parts, quoted or said)
    returns_message = bool(original.header.fields)
    if not legacy_bounce.is_bounce(top, who, said, returns_message):
        return None
    if auto_reply.is_auto_reply(top) and not (legacy_bounce.is_daemon(who) or returns_message):
        return None
    text = RecipientText(said, budget)
    if legacy_bounce.is_delay(who, said):
        return DelayNotice(tuple(legacy_bounce.failed(top, who, text, original, Action.DELAYED)), original)
    recipients = legacy_bounce.failed(top, who, text, original, Action.FAILED)
    senders = lowered((who.address, *who.to, original.sender or "", original.return_path or ""))
    return Bounce(tuple(recipients), original, explanation=_explanation(text, recipients, senders))


def _answer(top: LooseHeader) -> Report | None:
    in_reply_to = top.message_ids("in-reply-to")
    references = top.message_ids("references")
    if auto_reply.is_auto_reply(top):
        return AutoReply(in_reply_to + references)
    return Reply(in_reply_to, references) if in_reply_to or references else None


def _said(parts: Sequence[Part], within: int) -> tuple[str, str]:
    """What the writer itself says, and what its text quotes of the message, from that one's header on."""
    own = [part for part in parts if part.within == within and not returned_message.is_returned(part)]
    texts = [each for each in own if each.content_type == "text/plain"] or [
        each for each in own if each.content_type == "text/html"
    ]
    if not texts:
        texts = [each for each in own if each.content_type.startswith("text/")]
    said, quoted = [], ""
    for part in texts[:10]:
        before, after = returned_message.split_text(plain_text.text_of(part))
        said.append(before)
        quoted = quoted or after
    # To look for addresses and reasons in it costs time by its length, and what matters is said early.
    return "\n".join(said)[:MAX_SAID_CHARACTERS], quoted


def _header_around(parts: Sequence[Part], inner: Part) -> LooseHeader:
    """The header of the message within which a part lies."""
    header = LooseHeader()
    for part in parts:
        if part is inner:
            break
        if part.within == inner.within - 1 and part.content_type in ("message/rfc822", "message/global"):
            header = loose_header.parse(part.content)[0]
    return header


def _with_ids_of(original: Original, status: DeliveryStatus) -> Original:
    """A message id among the report's own fields goes before all others."""
    told = [
        value
        for name, value in status.message.items()
        if name in ("x-original-message-id", "original-message-id", "message-id")
    ]
    for each in status.recipients:
        told += [value for name, value in each.items() if name in ("x-original-message-id", "original-message-id")]
    ids = [f"<{value.strip().strip('<>')}>" for value in told if "@" in value]
    return replace(original, message_ids=tuple(dict.fromkeys([*ids, *original.message_ids]))) if ids else original
