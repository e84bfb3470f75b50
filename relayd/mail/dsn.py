"""Compose delivery status notifications (RFC 3464, RFC 6522): what happened, to whom, the reply, what to do.

7-bit throughout, except where an address is not ASCII and its owner takes UTF-8 (then as RFC 6533 has it), and where
the original is returned whole and is 8-bit itself. Remote text is made into single lines before it is used, so that no
reply can add a field or a part.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from relayd.mail import xtext
from relayd.mail.address import Address
from relayd.mail.dsn_parts import folded, header_block, lines, one_line, part, spelled, whole_message, wrapped
from relayd.mail.trace import date_text

MAX_DIAGNOSTIC_CHARACTERS = 2000

_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_SMTP_REPLY = re.compile(r"[245]\d\d(?:[ -]|\Z)")
# First match wins: the start of a status, and what its reader can do.
_ADVICE = (
    (r"[45]\.1\.", "Check the address for typing errors. If it is right, it may no longer be in use."),
    (r"[45]\.2\.2", "The mailbox is full. Reach the recipient in another way, or try again later."),
    (r"[45]\.(?:2\.3|3\.4)", "The message is too large for the recipient. Send a smaller one, or a link."),
    (r"[45]\.7\.", "The recipient's system refused it by policy. Show the reply to its or your administrator."),
    (r"4\.|5\.4\.", "The recipient's system could not be reached in time. Try again later."),
    (r"", "If the reason is not clear, show this message to your administrator."),
)
_RELAYED = (
    "Passed on to a mail system that does not confirm deliveries. It may still fail there; then you hear of it from "
    "that system."
)
# What there is to say of a message, the gravest first: what Subject calls it, how its text begins.
_HEADINGS = (
    ("failed", "Undelivered", "has not reached:"),
    ("delayed", "Delayed", "has not reached, so far:"),
    ("relayed", "Relayed", "has been passed on for:"),
)
_UNKNOWN_STATUS = {"failed": "5.0.0", "delayed": "4.0.0", "relayed": "2.0.0"}


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """One recipient to report: `status` is enhanced (`5.1.1`), `diagnostic` the reply, code first, or a reason.

    `original_recipient` is ORCPT, `type;address`, decoded. `because` says why it waits, in whole sentences, and
    `expected_at` until when; `retried_until` is when it would be given up. All three are of a delay.
    """

    recipient: Address
    status: str
    diagnostic: str | None
    remote_mta: str | None
    action: Literal["failed", "delayed", "relayed"]
    last_attempt_at: datetime | None
    original_recipient: str | None = None
    because: str | None = None
    expected_at: datetime | None = None
    retried_until: datetime | None = None


def compose(
    *,
    reporting_mta: str,
    sender: Address,
    to: Address,
    original: bytes,
    envelope_id: str | None,
    arrived_at: datetime,
    recipients: Sequence[ReportedRecipient],
    message_id: str,
    date: str,
    queue_id: str,
    smtputf8: bool,
    returns_whole: bool = False,
) -> bytes:
    """The whole notification, unsigned, lines in CRLF and of at most 998 octets; sent with the null reverse-path.

    `original` is the original, or as much of it as holds its header. With `returns_whole` it goes along as it is, if
    that can be, else its header alone, cut at a line if over 64 KiB. `message_id` has its brackets, `envelope_id` is
    decoded. With `smtputf8` (the original came by SMTPUTF8) and a non-ASCII address the result is not ASCII and needs
    SMTPUTF8 and 8BITMIME; otherwise it spells such a recipient's letters as `\\x{F6}`. Raises ValueError when `to` or
    `sender` needs what `smtputf8` denies.
    """
    if not smtputf8 and (to.needs_smtputf8 or sender.needs_smtputf8):
        raise ValueError("a notification to or from a non-ASCII address needs SMTPUTF8")
    addresses = (to, sender, *(one.recipient for one in recipients))
    utf8 = smtputf8 and any(address.needs_smtputf8 for address in addresses)
    report_type = "global-delivery-status" if utf8 else "delivery-status"
    whole = whole_message(original, utf8) if returns_whole else None
    parts = (
        _explanation(reporting_mta, queue_id, arrived_at, recipients, utf8, is_whole=whole is not None),
        _status_part(report_type, reporting_mta, envelope_id, queue_id, arrived_at, recipients, utf8),
        whole or header_block(_header(original), utf8),
    )
    boundary = _boundary(queue_id, parts)
    header = lines(
        [
            f"From: Mail Delivery System <{sender.wire}>",
            f"To: <{to.wire}>",
            f"Subject: {subject(recipients)}",
            f"Date: {date}",
            f"Message-ID: {message_id}",
            "Auto-Submitted: auto-replied",  # RFC 3834 5: so that nothing answers it.
            "MIME-Version: 1.0",
            f'Content-Type: multipart/report; report-type={report_type};\r\n\tboundary="{boundary}"',
        ]
    )
    delimiter = f"\r\n--{boundary}".encode()
    # A part's last CRLF is its own; the delimiter brings another (RFC 2046 5.1.1).
    return header + b"".join(delimiter + b"\r\n" + each for each in parts) + delimiter + b"--\r\n"


def subject(recipients: Sequence[ReportedRecipient]) -> str:
    """It says the gravest that happened, and to how many."""
    action, name, _ = _heading(recipients)
    count = sum(one.action == action for one in recipients)
    return f"{name} mail: {'1 recipient' if count == 1 else f'{count} recipients'}"


def _heading(recipients: Sequence[ReportedRecipient]) -> tuple[str, str, str]:
    actions = {one.action for one in recipients}
    return next(heading for heading in _HEADINGS if heading[0] in actions)


def _explanation(
    host: str,
    queue_id: str,
    arrived_at: datetime,
    recipients: Sequence[ReportedRecipient],
    utf8: bool,
    *,
    is_whole: bool,
) -> bytes:
    is_mixed = len({one.action for one in recipients}) > 1
    found = [
        f"This is the mail system at {one_line(host, utf8)}.",
        "",
        f"Your message, taken in on {date_text(arrived_at)}",
        f"and queued as {one_line(queue_id, utf8)}, {'has come to this:' if is_mixed else _heading(recipients)[2]}",
    ]
    for one in recipients:
        found += ["", f"<{spelled(one.recipient, utf8)}>", *_what_happened(one, utf8)]
        if one.diagnostic:
            found.append(f"  {_who_says(one, utf8)}:")
            for line in one.diagnostic[:MAX_DIAGNOSTIC_CHARACTERS].splitlines():
                found += wrapped(line, "    ", utf8)
    original = "your message" if is_whole else "the header of your message"
    found += ["", f"The details follow for programs, and then {original}."]
    charset, encoding = ("utf-8", "8bit") if utf8 else ("us-ascii", "7bit")
    return part(f"text/plain; charset={charset}", encoding, lines(found))


def _what_happened(one: ReportedRecipient, utf8: bool) -> list[str]:
    match one.action:
        case "failed":
            return ["  Not delivered; relayd will not try again.", *wrapped(_advice(one), "  ", utf8)]
        case "relayed":
            return wrapped(_RELAYED, "  ", utf8)
        case "delayed":
            found = ["  Not delivered yet; relayd keeps trying. You need not send it again."]
            found += wrapped(one.because, "  ", utf8) if one.because else []
            if one.expected_at is not None:
                found.append(f"  It is expected to leave about {date_text(one.expected_at)}.")
            if one.retried_until is not None:
                found.append(f"  It is given up if it has not left by {date_text(one.retried_until)}.")
            return found


def _who_says(one: ReportedRecipient, utf8: bool) -> str:
    if one.remote_mta:
        return f"{one_line(one.remote_mta, utf8)} replied"
    return "The next mail system replied" if _SMTP_REPLY.match(one.diagnostic or "") else "The reason given"


def _status_part(
    subtype: str,
    host: str,
    envelope_id: str | None,
    queue_id: str,
    arrived_at: datetime,
    recipients: Sequence[ReportedRecipient],
    utf8: bool,
) -> bytes:
    # RFC 3464 2.2: the fields of the message, then after an empty line those of each recipient.
    found = [folded("Reporting-MTA", f"dns; {host}", utf8)]
    if envelope_id is not None:
        found.append(folded("Original-Envelope-Id", envelope_id, utf8))
    found.append(folded("X-Relayd-Queue-Id", queue_id, utf8))
    found.append(f"Arrival-Date: {date_text(arrived_at)}")
    for one in recipients:
        found += ["", *_recipient_fields(one, utf8)]
    return part(f"message/{subtype}", "8bit" if utf8 else "7bit", lines(found))


def _recipient_fields(one: ReportedRecipient, utf8: bool) -> list[str]:
    found = []
    if one.original_recipient is not None:
        kind, _, address = (one.original_recipient if utf8 else xtext.in_ascii(one.original_recipient)).partition(";")
        found.append(folded("Original-Recipient", f"{kind}; {address}", utf8))
    kind = "utf-8" if one.recipient.needs_smtputf8 else "rfc822"
    found.append(f"Final-Recipient: {kind}; {spelled(one.recipient, utf8)}")
    found += [f"Action: {one.action}", f"Status: {_status(one)}"]
    if one.remote_mta:
        found.append(folded("Remote-MTA", f"dns; {one.remote_mta}", utf8))
    if one.diagnostic:
        # RFC 3464 2.3.6: `smtp` promises a reply with its code.
        kind = "smtp" if _SMTP_REPLY.match(one.diagnostic) else "x-relayd"
        found.append(folded("Diagnostic-Code", f"{kind}; {one.diagnostic}", utf8))
    if one.last_attempt_at is not None:
        found.append(f"Last-Attempt-Date: {date_text(one.last_attempt_at)}")
    if one.retried_until is not None:
        found.append(f"Will-Retry-Until: {date_text(one.retried_until)}")
    return found


def _boundary(queue_id: str, parts: Iterable[bytes]) -> str:
    # The queue id is no secret: the original and the replies may hold whatever is made of it.
    boundary = f"=_relayd_{re.sub(r'[^A-Za-z0-9-]', '', queue_id)[:40]}"
    while any(boundary.encode() in each for each in parts):
        boundary += "_"
    return boundary


def _header(original: bytes) -> bytes:
    """The header block, or as many whole lines of it as there are."""
    end = original.find(b"\r\n\r\n")
    if end >= 0:
        return original[: end + 2]
    return original[: original.rfind(b"\r\n") + 2] if b"\r\n" in original else original


def _status(one: ReportedRecipient) -> str:
    return one.status if _STATUS.fullmatch(one.status) else _UNKNOWN_STATUS[one.action]


def _advice(one: ReportedRecipient) -> str:
    status = _status(one)
    return next(advice for pattern, advice in _ADVICE if re.match(pattern, status))
