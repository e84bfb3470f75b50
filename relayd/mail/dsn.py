"""Compose delivery status notifications (RFC 3464, RFC 6522): what happened, to whom, the reply, what to do.

7-bit throughout, except where an address is not ASCII and its owner takes UTF-8: then as RFC 6533 has it. Remote
text is made into single lines before it is used, so that no reply can add a field or a part.
"""

import binascii
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from relayd.mail.address import Address
from relayd.mail.trace import date_text

MAX_DIAGNOSTIC_CHARACTERS = 2000
MAX_ORIGINAL_HEADERS_OCTETS = 64 * 1024

_LINE_CHARACTERS = 76
_MAX_LINE_OCTETS = 900  # Under RFC 5322 2.1.1's 998, with room for a prefix.
_NOT_IN_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NOT_ASCII = re.compile(r"[^ -~]")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_SMTP_REPLY = re.compile(r"[245]\d\d(?:[ -]|\Z)")
# RFC 6533 3: what utf-8-addr-xtext spells out.
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
# First match wins: the start of a status, and what its reader can do.
_ADVICE = (
    (r"[45]\.1\.", "Check the address for typing errors. If it is right, it may no longer be in use."),
    (r"[45]\.2\.2", "The mailbox is full. Reach the recipient in another way, or try again later."),
    (r"[45]\.(?:2\.3|3\.4)", "The message is too large for the recipient. Send a smaller one, or a link."),
    (r"[45]\.7\.", "The recipient's system refused it by policy. Show the reply to its or your administrator."),
    (r"4\.|5\.4\.", "The recipient's system could not be reached in time. Try again later."),
    (r"", "If the reason is not clear, show this message to your administrator."),
)


@dataclass(frozen=True, slots=True)
class FailedRecipient:
    """One recipient to report: `status` is enhanced (`5.1.1`), `diagnostic` the reply, code first, or a reason."""

    recipient: Address
    status: str
    diagnostic: str | None
    remote_mta: str | None
    action: Literal["failed", "delayed"]
    last_attempt_at: datetime


def compose(
    *,
    reporting_mta: str,
    sender: Address,
    to: Address,
    original_headers: bytes,
    envelope_id: str | None,
    arrived_at: datetime,
    failed: Sequence[FailedRecipient],
    message_id: str,
    date: str,
    queue_id: str,
    smtputf8: bool,
) -> bytes:
    """The whole notification, unsigned, lines in CRLF and under 998 octets; it is sent with the null reverse-path.

    `original_headers` is the original's header block alone, cut at a line if over 64 KiB. `message_id` has its
    brackets. With `smtputf8` (the original came by SMTPUTF8) and a non-ASCII address the result is not ASCII and
    needs SMTPUTF8 and 8BITMIME; otherwise it is 7-bit and spells such a recipient's letters as `\\x{F6}`. Raises
    ValueError when `to` or `sender` needs what `smtputf8` denies.
    """
    if not smtputf8 and not (to.is_ascii and sender.is_ascii):
        raise ValueError("a notification to or from a non-ASCII address needs SMTPUTF8")
    addresses = (to, sender, *(one.recipient for one in failed))
    utf8 = smtputf8 and not all(address.is_ascii for address in addresses)
    report_type = "global-delivery-status" if utf8 else "delivery-status"
    parts = (
        _explanation(reporting_mta, queue_id, arrived_at, failed, utf8),
        _status_part(report_type, reporting_mta, envelope_id, queue_id, arrived_at, failed, utf8),
        _headers_part(original_headers, utf8),
    )
    boundary = _boundary(queue_id, parts)
    only_delayed = all(one.action == "delayed" for one in failed)
    header = _lines(
        [
            f"From: Mail Delivery System <{sender}>",
            f"To: <{to}>",
            f"Subject: {'Delayed' if only_delayed else 'Undelivered'} mail: {_count(failed)}",
            f"Date: {date}",
            f"Message-ID: {message_id}",
            "Auto-Submitted: auto-replied",  # RFC 3834 5: so that nothing answers it.
            "MIME-Version: 1.0",
            f'Content-Type: multipart/report; report-type={report_type};\r\n\tboundary="{boundary}"',
        ]
    )
    delimiter = f"\r\n--{boundary}".encode()
    # A part's last CRLF is its own; the delimiter brings another (RFC 2046 5.1.1).
    return header + b"".join(delimiter + b"\r\n" + part for part in parts) + delimiter + b"--\r\n"


def _explanation(
    host: str, queue_id: str, arrived_at: datetime, failed: Sequence[FailedRecipient], utf8: bool
) -> bytes:
    lines = [
        f"This is the mail system at {_one_line(host, utf8)}.",
        "",
        f"Your message, taken in on {date_text(arrived_at)}",
        f"and queued as {_one_line(queue_id, utf8)}, has not reached:",
    ]
    for one in failed:
        lines += ["", f"<{_spelled(one.recipient, utf8)}>"]
        if one.action == "failed":
            lines.append("  Not delivered; relayd will not try again.")
            lines += _wrapped(_advice(one), "  ", utf8)
        else:
            lines.append("  Not delivered yet; relayd keeps trying. You need not send it again.")
        if one.diagnostic:
            who = f"{_one_line(one.remote_mta, utf8)} replied" if one.remote_mta else "The reason given"
            lines.append(f"  {who}:")
            for line in one.diagnostic[:MAX_DIAGNOSTIC_CHARACTERS].splitlines():
                lines += _wrapped(line, "    ", utf8)
    lines += ["", "The details follow for programs, and then the header of your message."]
    charset, encoding = ("utf-8", "8bit") if utf8 else ("us-ascii", "7bit")
    return _part(f"text/plain; charset={charset}", encoding, _lines(lines))


def _status_part(
    subtype: str,
    host: str,
    envelope_id: str | None,
    queue_id: str,
    arrived_at: datetime,
    failed: Sequence[FailedRecipient],
    utf8: bool,
) -> bytes:
    # RFC 3464 2.2: the fields of the message, then after an empty line those of each recipient.
    lines = [_folded("Reporting-MTA", f"dns; {host}", utf8)]
    if envelope_id is not None:
        lines.append(_folded("Original-Envelope-Id", envelope_id, utf8))
    lines.append(_folded("X-Relayd-Queue-Id", queue_id, utf8))
    lines.append(f"Arrival-Date: {date_text(arrived_at)}")
    for one in failed:
        kind = "rfc822" if one.recipient.is_ascii else "utf-8"
        lines += ["", f"Final-Recipient: {kind}; {_spelled(one.recipient, utf8)}"]
        lines += [f"Action: {one.action}", f"Status: {_status(one)}"]
        if one.remote_mta:
            lines.append(_folded("Remote-MTA", f"dns; {one.remote_mta}", utf8))
        if one.diagnostic:
            # RFC 3464 2.3.6: `smtp` promises a reply with its code.
            kind = "smtp" if _SMTP_REPLY.match(one.diagnostic) else "x-relayd"
            lines.append(_folded("Diagnostic-Code", f"{kind}; {one.diagnostic}", utf8))
        lines.append(f"Last-Attempt-Date: {date_text(one.last_attempt_at)}")
    return _part(f"message/{subtype}", "8bit" if utf8 else "7bit", _lines(lines))


def _headers_part(headers: bytes, utf8: bool) -> bytes:
    if len(headers) > MAX_ORIGINAL_HEADERS_OCTETS:
        line_end = headers.rfind(b"\r\n", 0, MAX_ORIGINAL_HEADERS_OCTETS)
        headers = headers[: line_end if line_end >= 0 else MAX_ORIGINAL_HEADERS_OCTETS]
    headers = headers.rstrip(b"\r\n") + b"\r\n"
    is_short = all(len(line) <= _MAX_LINE_OCTETS for line in headers.split(b"\r\n"))
    if is_short and headers.isascii():
        return _part("text/rfc822-headers", "7bit", headers)
    if is_short and utf8 and _is_utf8(headers):
        return _part("message/global-headers", "8bit", headers)
    # RFC 6522 4 allows this for what is not legal 7-bit.
    return _part("text/rfc822-headers", "quoted-printable", binascii.b2a_qp(headers, istext=True))


def _part(content_type: str, encoding: str, body: bytes) -> bytes:
    return f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body


def _boundary(queue_id: str, parts: Iterable[bytes]) -> str:
    # The queue id is no secret: the original and the replies may hold whatever is made of it.
    boundary = f"=_relayd_{re.sub(r'[^A-Za-z0-9-]', '', queue_id)[:40]}"
    while any(boundary.encode() in part for part in parts):
        boundary += "_"
    return boundary


def _count(failed: Sequence[FailedRecipient]) -> str:
    return "1 recipient" if len(failed) == 1 else f"{len(failed)} recipients"


def _status(one: FailedRecipient) -> str:
    if _STATUS.fullmatch(one.status):
        return one.status
    return "5.0.0" if one.action == "failed" else "4.0.0"


def _advice(one: FailedRecipient) -> str:
    status = _status(one)
    return next(advice for pattern, advice in _ADVICE if re.match(pattern, status))


def _spelled(address: Address, utf8: bool) -> str:
    if utf8 or address.is_ascii:
        return str(address)
    return _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match.group()):X}}}", str(address))


def _folded(name: str, value: str, utf8: bool) -> str:
    return "\r\n".join(_wrapped(f"{name}: {value[:MAX_DIAGNOSTIC_CHARACTERS]}", "", utf8, following=" "))


def _wrapped(text: str, indent: str, utf8: bool, following: str | None = None) -> list[str]:
    """`text` in lines broken at spaces; a word is broken only where no line could hold it."""
    lines = textwrap.wrap(
        _one_line(text, utf8),
        _LINE_CHARACTERS,
        initial_indent=indent,
        subsequent_indent=indent if following is None else following,
        break_long_words=False,
        break_on_hyphens=False,
    )
    joint = indent if following is None else following
    return [piece for line in lines for piece in _pieces(line, joint, utf8)]


def _pieces(line: str, joint: str, utf8: bool) -> Iterable[str]:
    width = _MAX_LINE_OCTETS // (4 if utf8 else 1)
    return ((joint if start else "") + line[start : start + width] for start in range(0, len(line), width))


def _one_line(text: str, utf8: bool) -> str:
    line = _NOT_IN_A_LINE.sub(" ", text).strip()
    return line if utf8 else _NOT_ASCII.sub("?", line)


def _lines(lines: Iterable[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n").encode()


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True
