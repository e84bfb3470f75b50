"""Read complaints: ARF (RFC 5965), X-ARF, and the forms of those who never took to either."""

import json
import re
from collections.abc import Sequence

from relayd.mail import loose_header, plain_text
from relayd.mail.delivery_report import address_in
from relayd.mail.loose_header import LooseHeader
from relayd.mail.mime_parts import Part
from relayd.mail.report import Complaint, Original
from relayd.mail.returned_message import addresses_in, is_returned

_FEEDBACK_FIELD = re.compile(r"^[ \t>]{0,8}feedback-type[ \t]{0,8}:", re.IGNORECASE | re.MULTILINE)
_COMPLAINING_SUBJECT = re.compile(
    r"complaint|abuse report|spam report|feedback (?:loop|report)|email feedback|\bfbl\b|reported as (?:spam|"
    r"junk)|junk (?:mail )?report|"
    r"unsolicited (?:e-?mail|message)|plainte|beschwerde|queja|denuncia|жалоб|投诉|举报|迷惑メール",
    re.IGNORECASE,
)
_COMPLAINER = re.compile(
    r"(?:fbl|feedback|feedback-?loop|complaints?|abuse|spam|junk|scomp|jmrp|staff|arf|noreply-fbl|"
    r"feedbackloop-.*|fbl-.*|.*-fbl|spamreports?)\Z",
    re.IGNORECASE,
)
_COMPLAINING_TEXT = re.compile(
    r"complain|marked .{0,60}as (?:spam|junk)|reported .{0,60}(?:as|for) (?:spam|junk|abuse)|"
    r"report(?:ed)? (?:as )?spam|this is spam|junk (?:button|mail|folder)|abuse report|"
    r"als spam (?:markiert|gemeldet)|signalé comme|marcado como spam|как спам|垃圾邮件|迷惑メール",
    re.IGNORECASE,
)
_IP = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3})(?![\d.])")


def read(top: LooseHeader, parts: Sequence[Part], text: str, original: Original) -> Complaint | None:
    """The complaint, if this is one. `text` is what the message says before what it returns."""
    for part in parts:
        if part.content_type == "message/feedback-report" or (
            part.content_type != "message/rfc822" and _is_feedback_text(part)
        ):
            return _from_fields(_fields(plain_text.text_of(part)), original)
    return _x_arf(top, parts, original) or _informal(top, parts, text, original)


def is_announced(top: LooseHeader) -> bool:
    """Whether sender and subject both speak of a complaint."""
    sender = next(iter(addresses_in([top.first("from")])), "").partition("@")[0]
    return bool(_COMPLAINER.match(sender) and _COMPLAINING_SUBJECT.search(top.decoded("subject")))


def _is_feedback_text(part: Part) -> bool:
    in_report = any("report-type" in kind or "feedback-report" in kind for kind in part.containers[-1:])
    is_text = part.content_type.startswith(("text/", "application/octet-stream", "message/")) and not is_returned(part)
    return (in_report or is_text) and _FEEDBACK_FIELD.search(plain_text.text_of(part)[:8000]) is not None


def _fields(text: str) -> LooseHeader:
    """All lines of fields, those after an empty line too."""
    lines = [line.lstrip("> ") if line.startswith(">") else line for line in text.split("\n")[:500] if line.strip()]
    begin = next((index for index, line in enumerate(lines) if ":" in line), 0)
    return loose_header.parse("\n".join(lines[begin:]).encode("utf-8", "replace"))[0]


def _from_fields(fields: LooseHeader, original: Original) -> Complaint:
    recipients = [address_in(value) for value in fields.all("original-rcpt-to") + fields.all("removal-recipient")]
    sender = address_in(fields.first("original-mail-from"))
    return Complaint(
        feedback_type=_word(fields.first("feedback-type")) or "abuse",
        original=original,
        original_mail_from=sender if "@" in sender else original.return_path,
        original_recipients=tuple(dict.fromkeys(each for each in recipients if "@" in each)) or _hidden(original),
        source_ip=_ip(fields.first("source-ip")),
        arrived_at=(fields.first("arrival-date") or fields.first("received-date"))[:60] or None,
        reported_by=(fields.first("user-agent") or fields.first("reporting-mta"))[:200] or None,
    )


def _x_arf(top: LooseHeader, parts: Sequence[Part], original: Original) -> Complaint | None:
    """YAML (0.1, 0.2) or JSON (v4) beside the message, announced in the header."""
    is_announced = bool(top.first("x-arf") or top.first("x-xarf"))
    for part in parts:
        if part.within:
            continue
        text = plain_text.text_of(part)
        if part.content_type == "application/json" or "xarf" in str(part.parameters.get("name", "")).lower():
            found = _json_report(text)
            if found:
                kind, ip = found
                return Complaint(kind, original, original.return_path, _hidden(original), ip, None, "X-ARF")
        if is_announced and re.search(r"(?im)^report-type:", text):
            fields = _fields(text)
            kind = _word(fields.first("report-type")) or _word(fields.first("category"))
            if kind not in ("spam", "abuse", "fraud", "phishing", "trap", "virus"):
                return Complaint(f"x-arf-{kind}"[:40], original)  # a break-in, a port scan: not of a message
            return Complaint(
                feedback_type="abuse" if kind in ("spam", "trap") else kind,
                original=original,
                original_mail_from=original.return_path,
                original_recipients=_hidden(original),
                source_ip=_ip(fields.first("source")),
                arrived_at=fields.first("date")[:60] or None,
                reported_by=(fields.first("reported-from") or "X-ARF")[:200],
            )
    return None


def _json_report(text: str) -> tuple[str, str | None] | None:
    try:
        told = json.loads(text[:100_000])
    except (ValueError, RecursionError):
        return None
    report = told.get("Report", told) if isinstance(told, dict) else None
    if not isinstance(report, dict):
        return None
    kind = str(report.get("ReportType") or report.get("ReportClass") or "").lower()
    if "ReportType" not in report and "ReportClass" not in report:
        return None
    source = report.get("Source") or report.get("SourceIp") or ""
    ip = _ip(str(source.get("IP") or source.get("Value") or "") if isinstance(source, dict) else str(source))
    return ("abuse" if kind in ("spam", "messaging", "spamtrap") else kind[:40]), ip


def _informal(top: LooseHeader, parts: Sequence[Part], text: str, original: Original) -> Complaint | None:
    """A message that is returned, from one whose business is complaints: Microsoft's junk mail reports and others."""
    if not any(is_returned(part) and part.within == 0 for part in parts) and not original.header.fields:
        return None
    if original.header.first("x-hmxmroriginalrecipient") or top.first("x-hmxmroriginalrecipient"):
        witnesses = 2
    else:
        sender = next(iter(addresses_in([top.first("from")])), "")
        witnesses = (
            bool(_COMPLAINER.match(sender.partition("@")[0]))
            + bool(_COMPLAINING_SUBJECT.search(top.decoded("subject")))
            + bool(_COMPLAINING_TEXT.search(text[:8000]))
        )
    if witnesses < 2:
        return None
    found = _IP.search(top.decoded("subject")) or _IP.search(text[:8000])
    return Complaint(
        feedback_type="abuse",
        original=original,
        original_mail_from=original.return_path,
        original_recipients=addresses_in(original.header.all("x-hmxmroriginalrecipient")) or _hidden(original),
        source_ip=_ip(found.group(1)) if found else None,
        arrived_at=None,
        reported_by=next(iter(addresses_in([top.first("from")])), "").rpartition("@")[2] or None,
    )


def _hidden(original: Original) -> tuple[str, ...]:
    """Recipients by the returned header. Most complaints leave them out, or write something else in their place."""
    return tuple(each for each in original.recipients if each not in (original.sender, original.return_path))


def _ip(text: str) -> str | None:
    found = _IP.search(text)
    if found:
        return found.group(1)
    text = text.strip().strip("[]")
    return text[:45] if re.fullmatch(r"[0-9A-Fa-f:.]{3,45}", text) else None


def _word(text: str) -> str:
    return re.sub(r"[^a-z0-9-]", "", text.strip().lower().partition(" ")[0])[:40]
