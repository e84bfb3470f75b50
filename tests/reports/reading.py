"""What relayd reads in a message, in the words of the table."""

from relayd.mail.report import AutoReply, Bounce, Complaint, DelayNotice, Reply, ReportedRecipient, Unrecognised
from relayd.mail.report_reader import read
from relayd.rules.bounce_class import Refusal, classify
from relayd.rules.complaint_class import counts
from tests.reports.table import Sample


def mistakes(sample: Sample, content: bytes) -> list[str]:
    """Where the reading differs from the table."""
    found = read(content)
    wrong: list[str] = []

    def check(what: str, got: object, wanted: object) -> None:
        if got != wanted:
            wrong.append(f"{what}: {got!r}, not {wanted!r}")

    match found:
        case Bounce():
            check("kind", "bounce", sample.kind)
            one = _recipient(found.recipients, sample)
            check("recipient", (one.original_address or one.address) if one else None, sample.recipient)
            if one is not None:
                addresses = tuple(each for each in (one.original_address, one.address) if each)
                told = classify(Refusal(one.diagnostic, None, one.status, None, addresses, found.explanation))
                check("bounce_type", told.kind, sample.bounce_type)
                check("category", str(told.category), sample.category)
                if sample.suppresses is not None:
                    check("suppresses", told.suppresses, sample.suppresses)
                if sample.status:
                    check("status", told.status, sample.status)
        case DelayNotice():
            check("kind", "delay", sample.kind)
            if sample.recipient:
                check("recipient", [one.address for one in found.recipients], [sample.recipient])
        case Complaint():
            check("kind", "complaint" if counts(found.feedback_type) else "nothing", sample.kind)
            if sample.kind == "complaint":
                check("feedback_type", found.feedback_type, sample.feedback_type or found.feedback_type)
            if sample.recipient:
                check("recipient", found.original_recipients[:1], (sample.recipient,))
        case Reply():
            check("kind", "reply", sample.kind)
        case AutoReply():
            check("kind", "auto", sample.kind)
        case Unrecognised():
            check("kind", "nothing", sample.kind)
    if sample.message_id:
        check("message_id", sample.message_id in _message_ids(found), True)
    return wrong


def _recipient(recipients: tuple[ReportedRecipient, ...], sample: Sample) -> ReportedRecipient | None:
    named = [one for one in recipients if (one.original_address or one.address) == sample.recipient]
    return (named or list(recipients) or [None])[0]


def _message_ids(found: object) -> tuple[str, ...]:
    match found:
        case Bounce() | DelayNotice() | Complaint():
            return found.original.message_ids
        case Reply():
            return found.in_reply_to + found.references
        case AutoReply():
            return found.in_reply_to
        case _:
            return ()
