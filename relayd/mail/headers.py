"""Scan a message's top-level header block once, in linear time, and prepare a message with what the scan found.

Only the top level is read: MIME parts are never opened. What two programs could read in two ways is refused.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from relayd.mail import encoded_words
from relayd.mail.address import to_ascii

MAX_FIELDS = 1000
MAX_HEADER_OCTETS = 512 * 1024
MAX_MESSAGE_ID_CHARACTERS = 998

# RFC 5322 3.6.8: a field name is printable ASCII without the colon. Possessive, so that no input backtracks.
_FIELD = re.compile(rb"([!-9;-~]++):[^\r\n\0]*+\r\n(?:[ \t][^\r\n\0]*+\r\n)*+")
# The separator of an mbox, as mail readers pass it on; `From :` is a field in obsolete syntax.
_MBOX_LINE = re.compile(rb">*From (?![ \t]*:)[^\r\n]*\r\n")
_SPACE_BEFORE_COLON = re.compile(rb"[!-9;-~]++[ \t]++:")
# As Postfix does on entry: a Bcc must not reach its readers, and Return-Path is the last hop's to write.
# X-SMTPAPI gives orders to SendGrid, recipients among them: they would pass every limit and list by.
_REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path", b"x-smtpapi"})
# What an app tells relayd is nobody else's business.
_FOR_RELAYD = b"x-relayd-"
_SIGNATURE = b"dkim-signature"
_RESULTS = b"authentication-results"
_QUOTED_ID = re.compile(rb'"((?:[^"\\]|\\.)*+)"')
_QUOTED_PAIR = re.compile(rb"\\(.)")
_BRACKETED = re.compile(rb"<[^<>]+>")
_COMMENT_TOKEN = re.compile(rb"\\.|[()]|[^()\\]+|\\")


class Field(NamedTuple):
    """One header field: `name` as it was written, `raw` the whole of it with folding and the final CRLF."""

    name: bytes
    raw: bytes
    key: bytes  # the name in lower case: names are the same in any case

    @property
    def value(self) -> bytes:
        """What follows the colon, unfolded (RFC 5322 2.2.3) and stripped."""
        return self.raw[len(self.name) + 1 :].replace(b"\r\n", b"").strip(b" \t")


@dataclass(frozen=True, slots=True)
class HeaderScan:
    """The fields from top to bottom, and where the body starts: after the empty line, or at the end without one."""

    fields: tuple[Field, ...]
    body_offset: int

    @property
    def needs_empty_line(self) -> bool:
        """True when the message is all body: fields put in front of it must be followed by an empty line."""
        return self.body_offset == 0

    def all(self, name: bytes) -> tuple[Field, ...]:
        """Every field of that name, in any case, from top to bottom."""
        wanted = name.lower()
        return tuple([field for field in self.fields if field.key == wanted])

    def first(self, name: bytes) -> Field | None:
        """The topmost field of that name, in any case."""
        wanted = name.lower()
        for field in self.fields:
            if field.key == wanted:
                return field
        return None


class Prepared(NamedTuple):
    """A message that is ready to be signed, and what scanning it would find."""

    content: bytes
    scan: HeaderScan


def without_mbox_line(content: bytes) -> bytes:
    """`content` without a first line `From sender date` or `>From …`, which is no header field."""
    match = _MBOX_LINE.match(content)
    return content[match.end() :] if match else content


def scan(content: bytes) -> HeaderScan:
    """Find the header fields of `content` (lines end in CRLF). Raises ValueError with a reason fit for a reply.

    A message whose first line holds no colon has no header: no fields, and the body starts at 0.
    """
    if content.startswith(b"\r\n"):
        return HeaderScan((), 2)
    first_line_end = content.find(b"\r\n", 0, MAX_HEADER_OCTETS)
    if content.find(b":", 0, first_line_end if first_line_end >= 0 else MAX_HEADER_OCTETS) < 0:
        return HeaderScan((), 0)
    empty_line = content.find(b"\r\n\r\n", 0, MAX_HEADER_OCTETS + 2)
    if empty_line < 0 and len(content) > MAX_HEADER_OCTETS:
        raise ValueError(f"header is over {MAX_HEADER_OCTETS} octets")
    fields_end, body_offset = (empty_line + 2, empty_line + 4) if empty_line >= 0 else (len(content), len(content))
    return HeaderScan(_fields(content, fields_end), body_offset)


def decoded_subject(scan: HeaderScan, limit: int = 255) -> str:
    """The Subject fit for a TEXT column: decoded, no control characters, at most `limit` characters."""
    field = scan.first(b"Subject")
    return encoded_words.decode(field.value, limit) if field else ""


def has_message_id(scan: HeaderScan) -> bool:
    """Whether the message has an id: a field that is empty, `<>` or all comments holds none."""
    field = scan.first(b"Message-ID")
    return field is not None and without_comments(field.value).strip(b" \t<>") != b""


def message_id(scan: HeaderScan) -> str | None:
    """The Message-ID as written, with its brackets; None without one. Raises ValueError, fit for a reply.

    The id that is kept must be the one that the message carries: what a TEXT column cannot hold is refused.
    """
    field = scan.first(b"Message-ID")
    if field is None or not has_message_id(scan):
        return None
    within = _BRACKETED.fullmatch(without_comments(field.value).strip(b" \t"))
    value = within.group() if within else field.value
    if len(value) > MAX_MESSAGE_ID_CHARACTERS:
        raise ValueError(f"Message-ID is over {MAX_MESSAGE_ID_CHARACTERS} octets; make it shorter")
    text = encoded_words.printable(value, MAX_MESSAGE_ID_CHARACTERS)
    if text.encode() != value:
        raise ValueError("Message-ID holds characters that are not printable; write it in ASCII, as <id@example.com>")
    return text


def is_well_formed_id(message_id: str) -> bool:
    """Whether it looks as RFC 5322 3.6.4 has it; what does not is kept all the same."""
    return re.fullmatch(r"<[^<>@\s]+@[^<>@\s]+>", message_id) is not None


def received_count(scan: HeaderScan) -> int:
    """How many hops the message has behind it (RFC 5321 6.3: a loop shows here)."""
    return len(scan.all(b"Received"))


def authserv_id(field: Field) -> str:
    """Who claims to have checked the message, by an Authentication-Results field; empty where nobody can tell."""
    value = without_comments(field.value).strip(b" \t")
    quoted = _QUOTED_ID.match(value)
    name = _QUOTED_PAIR.sub(rb"\1", quoted.group(1)) if quoted else re.split(rb"[ \t;]", value, maxsplit=1)[0]
    return to_ascii(name.decode("utf-8", "replace")).rstrip(".")


def prepare(
    content: bytes, scan: HeaderScan, *, received: bytes, message_id: str, date: str, host: str = ""
) -> Prepared:
    """The message as relayd queues it; every byte not named here is unchanged.

    `scan` is that of `content`. `received` (a whole field with its CRLF) goes in front; Message-ID (with its
    brackets) and Date follow where the message has none (RFC 6409 8); Bcc, Resent-Bcc, Return-Path and X-Relayd-*
    go, and so does an Authentication-Results that claims to be `host`'s (RFC 8601 5).
    """
    fields = [_field(b"Received", received)]
    has_id = has_message_id(scan)
    if not has_id:
        fields.append(_field(b"Message-ID", f"Message-ID: {message_id}\r\n".encode()))
    if scan.first(b"Date") is None:
        fields.append(_field(b"Date", f"Date: {date}\r\n".encode()))
    fields += [
        field
        for field in scan.fields
        if field.key not in _REMOVED
        and not (field.key == _RESULTS and host and authserv_id(field) == to_ascii(host).rstrip("."))
        and not field.key.startswith(_FOR_RELAYD)
        and (has_id or field.key != b"message-id")
    ]
    header = b"".join([field.raw for field in fields])
    fields_end = sum([len(field.raw) for field in scan.fields])
    if fields_end == scan.body_offset:  # all header, or all body: the empty line between them is missing
        header += b"\r\n"
    return Prepared(
        header + content[fields_end:], HeaderScan(tuple(fields), len(header) + scan.body_offset - fields_end)
    )


def with_author(content: bytes, scan: HeaderScan, author: bytes) -> Prepared:
    """The message with this value in its one From field; who wrote it gets the replies, unless it says who does."""
    fields: list[Field] = []
    for field in scan.fields:
        if field.key != b"from":
            fields.append(field)
            continue
        fields.append(_field(b"From", b"From: " + author + b"\r\n"))
        if scan.first(b"Reply-To") is None:
            fields.append(_field(b"Reply-To", b"Reply-To:" + field.raw[len(field.name) + 1 :]))
    return with_fields(Prepared(content, scan), tuple(fields))


def without_signatures(content: bytes, scan: HeaderScan, *, own_only: bool) -> Prepared:
    """The message without DKIM-Signature fields; with `own_only` those in front of all others, which are relayd's."""
    own = 0
    while own < len(scan.fields) and scan.fields[own].key == _SIGNATURE:
        own += 1
    fields = tuple([field for field in scan.fields[own:] if own_only or field.key != _SIGNATURE])
    return with_fields(Prepared(content, scan), fields)


def with_fields(message: Prepared, fields: tuple[Field, ...]) -> Prepared:
    """The message with these header fields in place of its own; the rest stays as it is."""
    content, scan = message
    header = b"".join([field.raw for field in fields])
    fields_end = sum([len(field.raw) for field in scan.fields])
    return Prepared(header + content[fields_end:], HeaderScan(fields, len(header) + scan.body_offset - fields_end))


def without_comments(value: bytes) -> bytes:
    """What is outside of parentheses (RFC 5322 3.2.2)."""
    if b"(" not in value:
        return value
    outside: list[bytes] = []
    depth = 0
    for token in _COMMENT_TOKEN.findall(value):
        if token == b"(" or (token == b")" and depth):
            depth += 1 if token == b"(" else -1
        elif not depth:
            outside.append(token)
    return b"".join(outside)


def made_field(name: bytes, value: bytes) -> Field:
    """A field in one line."""
    return _field(name, name + b": " + value + b"\r\n")


def _field(name: bytes, raw: bytes) -> Field:
    return Field(name, raw, name.lower())


def _fields(content: bytes, end: int) -> tuple[Field, ...]:
    fields: list[Field] = []
    position = 0
    while position < end:
        match = _FIELD.match(content, position, end)
        if match is None:
            raise ValueError(_reason(content, position, end))
        if len(fields) == MAX_FIELDS:
            raise ValueError(f"header has over {MAX_FIELDS} fields")
        fields.append(_field(match.group(1), match.group()))
        position = match.end()
    return tuple(fields)


def _reason(content: bytes, position: int, end: int) -> str:
    line = content.count(b"\r\n", 0, position) + 1
    if _SPACE_BEFORE_COLON.match(content, position, end):
        # Obsolete syntax (RFC 5322 4.5): some programs see the field, some do not.
        return f"header line {line} has whitespace before its colon"
    return f"header line {line} is not a header field"
