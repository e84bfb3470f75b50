"""Tell by a header alone whether a message in an inbox is any of relayd's business. What is not stays unread."""

from enum import Enum, auto

from relayd.mail import auto_reply, feedback_report, legacy_bounce, loose_header, mime_parts, ses_notification


class Interest(Enum):
    """`ANSWER` is one only if what it answers was sent from here."""

    REPORT = auto()
    ANSWER = auto()
    NONE = auto()


def interest(header: bytes) -> tuple[Interest, tuple[str, ...]]:
    """What a message may be, and the message ids that it answers."""
    fields = loose_header.parse(mime_parts.with_lf(header))[0]
    content_type, parameters = loose_header.parameters(fields.first("content-type"))
    answered = (*fields.message_ids("in-reply-to"), *reversed(fields.message_ids("references")))
    who = legacy_bounce.writer(fields)
    if (
        (content_type == "multipart/report" and parameters.get("report-type", "").lower() != "disposition-notification")
        or fields.first("x-failed-recipients")
        or fields.first("x-xarf")
        or fields.first("x-arf")
        or feedback_report.is_announced(fields)
        or legacy_bounce.is_daemon(who)
        or (legacy_bounce.is_machine(fields, who) and legacy_bounce.announces(who))
        or content_type == "application/json"
        or ses_notification.is_announced(who.address, who.subject)
    ):
        return Interest.REPORT, answered
    if answered and not auto_reply.is_auto_reply(fields):
        return Interest.ANSWER, answered
    return Interest.NONE, answered
