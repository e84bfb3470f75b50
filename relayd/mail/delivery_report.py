"""Read message/delivery-status (RFC 3464), as it is written: blocks without empty lines, types missing, odd actions."""

import re
from dataclasses import dataclass, field

from relayd.mail import encoded_words
from relayd.mail.report import MAX_ADDRESS_CHARACTERS, MAX_DIAGNOSTIC_CHARACTERS, Action, ReportedRecipient

MAX_RECIPIENTS = 1000

_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{1,60})[ \t]{0,10}:(.*)\Z", re.DOTALL)
_HAS_FIELDS = re.compile(r"^[ \t>]{0,8}(?:final|original)-recipient[ \t]{0,8}:", re.IGNORECASE | re.MULTILINE)
_PER_RECIPIENT = frozenset({"final-recipient", "original-recipient", "action", "status", "diagnostic-code",
                            "remote-mta", "last-attempt-date", "will-retry-until", "final-log-id"})  # fmt: skip
_ENHANCED = re.compile(r"(?<![\d./v])([245]\.\d{1,3}\.\d{1,3})(?![\d]|\.\d)")
_VAGUE = re.compile(r"[245]\.(?:0\.0|\d\.0)\Z")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"]{1,200}@[^\s<>()\[\],;:\"]{1,255}")


@dataclass(slots=True)
class DeliveryStatus:
    """The fields of a report: of the message, and of each of its recipients. Names in lower case."""

    message: dict[str, str] = field(default_factory=dict)
    recipients: list[dict[str, str]] = field(default_factory=list)


def looks_like_one(text: str) -> bool:
    """Whether a text that is called something else holds a report's fields all the same."""
    return _HAS_FIELDS.search(text) is not None


def parse(text: str) -> DeliveryStatus:
    """The fields, sorted by what they speak of."""
    status = DeliveryStatus()
    current: dict[str, str] = {}
    last: tuple[dict[str, str], str] | None = None
    gap = False
    for raw in text.split("\n")[:20_000]:
        line = raw[:4000].rstrip()
        if not line:
            gap, last = True, None
            continue
        if line[0] in " \t" and last is not None:
            fields, name = last
            fields[name] = f"{fields[name]} {line.strip()}"[:4000]
            continue
        found = _FIELD.match(line.lstrip("> \t"))
        if found is None:
            continue
        name, value = found[1].lower(), found[2].strip()
        if name in _PER_RECIPIENT or (name.startswith("x-") and current):
            # A new recipient begins with its address, or where a field comes again.
            if name in current or (
                gap
                and "final-recipient" in current
                and name in ("final-recipient", "original-recipient", "x-display-name")
            ):
                current = {}
            if not current and len(status.recipients) < MAX_RECIPIENTS:
                current = {}
                status.recipients.append(current)
            target = current
        else:
            target = status.message
        if name not in target:
            target[name] = value
            last = (target, name)
        gap = False
    status.recipients = [each for each in status.recipients if each]
    return status


def recipients(status: DeliveryStatus, *, says_delayed: bool) -> list[ReportedRecipient]:
    """The recipients of a report. `says_delayed`: the rest of the message speaks of a delay, should this not say."""
    return [
        _recipient(each, says_delayed)
        for each in status.recipients
        if "final-recipient" in each or "original-recipient" in each or "action" in each or "status" in each
    ]


def address_in(value: str) -> str:
    """The address of `type; address` (RFC 3464 2.3.1), or of whatever stands there instead."""
    kind, semicolon, rest = value.partition(";")
    text = rest if semicolon else kind
    if text.strip().lower().startswith("rfc822;"):  # said twice
        text = text.partition(";")[2]
    text = encoded_words.printable(text.encode("utf-8", "replace"), MAX_ADDRESS_CHARACTERS * 2).strip()
    if text.startswith('"') and "@" in text:
        return text.strip("<> ")[:MAX_ADDRESS_CHARACTERS]
    found = _ADDRESS.search(text)
    plain = found.group() if found else text.strip("<>\"' ").partition(" ")[0]
    return plain.strip("'\"<>.,;").removeprefix("mailto:")[:MAX_ADDRESS_CHARACTERS]


def enhanced_in(text: str) -> str | None:
    """The enhanced status code in a text that says most: one that is not all zeros, if there is one."""
    found: list[str] = _ENHANCED.findall(text[: MAX_DIAGNOSTIC_CHARACTERS * 4])
    return next((code for code in found if not is_vague(code)), found[0] if found else None)


def is_vague(status: str | None) -> bool:
    """Whether a status says no more than its first digit, or its subject."""
    return status is None or _VAGUE.match(status) is not None


def diagnostic_in(value: str) -> str:
    """The text of `type; text`, in one line."""
    kind, semicolon, rest = value.partition(";")
    text = rest if semicolon and re.fullmatch(r"\s*[A-Za-z0-9-]{1,30}\s*", kind) else value
    return encoded_words.decode(" ".join(text.split()).encode("utf-8", "replace"), MAX_DIAGNOSTIC_CHARACTERS)


def xtext_decoded(text: str) -> str:
    """RFC 3461 4."""
    return _HEX.sub(lambda found: chr(int(found[1], 16)), text)


def _recipient(fields: dict[str, str], says_delayed: bool) -> ReportedRecipient:
    original = address_in(fields.get("original-recipient", "")) or None
    status = enhanced_in(fields.get("status", ""))
    # Some write the reply into Status, and some the status into the diagnostic alone.
    diagnostic = diagnostic_in(fields.get("diagnostic-code", "")) or _reply_in_status(fields.get("status", ""))
    remote = diagnostic_in(fields.get("remote-mta", ""))[:255] or None
    return ReportedRecipient(
        address=address_in(fields.get("final-recipient", "")) or original or "",
        original_address=original,
        action=_action(fields.get("action", ""), status, says_delayed),
        status=status,
        diagnostic=diagnostic,
        remote_mta=remote,
    )


def _reply_in_status(value: str) -> str:
    text = value.strip()
    return diagnostic_in(text) if len(text) > 12 else ""


def _action(value: str, status: str | None, says_delayed: bool) -> Action:
    word = value.strip().lower()
    for action, beginnings in (
        (Action.FAILED, ("fail", "expired", "undeliver", "bounce", "reject", "error")),
        (Action.DELAYED, ("delay", "defer", "retr", "queued", "warn")),
        (Action.DELIVERED, ("deliver",)),
        (Action.RELAYED, ("relay",)),
        (Action.EXPANDED, ("expan",)),
    ):
        if word.startswith(beginnings):
            return action
    if says_delayed:
        return Action.DELAYED
    return Action.DELIVERED if status and status.startswith("2") else Action.FAILED
