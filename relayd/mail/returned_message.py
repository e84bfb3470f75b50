"""Find out which message a report speaks of: by the part that returns it, by its header within the text, or by name."""

import re
from collections.abc import Iterable, Sequence

from relayd.mail import loose_header
from relayd.mail.loose_header import LooseHeader
from relayd.mail.mime_parts import Part
from relayd.mail.report import MAX_ADDRESS_CHARACTERS, Original

_RETURNED = frozenset({"message/rfc822", "message/global", "text/rfc822-headers", "text/rfc822-header",
                       "message/rfc822-headers", "message/global-headers", "text/rfc822"})  # fmt: skip
_KNOWN = re.compile(
    r"(?:received|return-path|from|to|cc|subject|date|message-id|mime-version|content-type|reply-to|sender|"
    r"dkim-signature|x-[a-z0-9-]{2,60}|delivered-to|content-transfer-encoding|importance|list-[a-z-]{2,30}|"
    r"auto-submitted|precedence|references|in-reply-to|thread-[a-z]{4,8}|authentication-results|arc-[a-z-]{4,40})"
    r"[ \t]{0,8}:",
    re.IGNORECASE,
)
_STRONG = re.compile(
    r"(?:received|return-path|message-id|mime-version|dkim-signature|date|content-type|subject)[ \t]{0,8}:",
    re.IGNORECASE,
)
_LABELLED_ID = re.compile(
    r"(?:message[ -]?id|original-message-id|mensaje[ -]?id|nachrichten-?id|"
    r"msgid)\b[^<\n]{0,40}(<[^<>\s]{3,1157}>)",
    re.IGNORECASE,
)
_BARE_LABELLED_ID = re.compile(r"\bmessage-?id[ \t]{0,4}[:=][ \t]{0,8}([^<>\s@]{1,300}@[^<>\s]{1,255})", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"']{1,200}@[^\s<>()\[\],;:\"']{1,255}")
_QUOTE = re.compile(r"(?:[>|][ \t]?)+|[ \t]{1,16}")

MAX_SCANNED_LINES = 3000


def find(top: LooseHeader, parts: Sequence[Part], text: str, *, below: int = 0) -> Original:
    """What the report tells of the message. `below`: how many messages the report itself lies in."""
    header = _returned_header(parts, below)
    if header is None:
        header = header_in(text)
    ids = [*header.message_ids("message-id"), *_bare_ids(header)]
    # The sign in the middle is looked for afterwards: a pattern of two parts would try each of thousands of signs.
    ids += [each for each in _LABELLED_ID.findall(text) if "@" in each]
    ids += [f"<{each}>" for each in _BARE_LABELLED_ID.findall(text)]
    for name in ("x-original-message-id", "original-message-id", "in-reply-to", "references"):
        ids += reversed(top.message_ids(name))
    return Original(
        message_ids=tuple(dict.fromkeys(ids))[:20],
        return_path=next(iter(addresses_in(header.all("return-path"))), None),
        sender=next(iter(addresses_in(header.all("from"))), None),
        recipients=addresses_in(
            value
            for name in (
                "x-original-to",
                "delivered-to",
                "x-rcpt-to",
                "envelope-to",
                "to",
                "cc",
                "x-hmxmroriginalrecipient",
            )
            for value in header.all(name)
        ),
        header=header,
    )


def addresses_in(values: Iterable[str]) -> tuple[str, ...]:
    """The addresses in header values, each once."""
    found = (match.group().strip(".'") for value in values for match in _ADDRESS.finditer(value[:8000]))
    return tuple(dict.fromkeys(each[:MAX_ADDRESS_CHARACTERS] for each in found))[:200]


def split_text(text: str) -> tuple[str, str]:
    """What a report says, and the message that it quotes from its header on; that is empty where it quotes none."""
    lines = text.split("\n")
    for index in range(min(len(lines), MAX_SCANNED_LINES)):
        if _begins_header(lines, index):
            return "\n".join(lines[:index]), "\n".join(lines[index:])
    return text, ""


def header_in(text: str) -> LooseHeader:
    """The header that a text quotes, unquoted; empty where it quotes none."""
    quoted = split_text(text)[1].split("\n")[:500]
    prefix = _QUOTE.match(quoted[0])
    if prefix:
        quoted = [line.removeprefix(prefix.group()) for line in quoted]
    return loose_header.parse("\n".join(quoted).encode("utf-8", "replace"))[0]


def is_returned(part: Part) -> bool:
    """Whether a part is there to return the message, or its header."""
    return part.content_type in _RETURNED or _is_saved_message(part)


def _is_saved_message(part: Part) -> bool:
    """A message as a file: some gateways give a type to nothing that they attach."""
    if part.content_type != "application/octet-stream":
        return False
    disposition = loose_header.parameters(part.header.first("content-disposition"))[1]
    return any(
        name.lower().endswith(".eml") for name in (disposition.get("filename", ""), part.parameters.get("name", ""))
    )


def _returned_header(parts: Sequence[Part], below: int) -> LooseHeader | None:
    for part in parts:
        if part.within == below and is_returned(part):
            header = loose_header.parse(part.content.lstrip(b"\n"))[0]
            if header.fields:
                return header
    return None


def _begins_header(lines: Sequence[str], index: int) -> bool:
    """Three known fields within the next lines, two of which no sentence begins with, and this is the first."""
    first = _unquoted(lines[index])
    if not _KNOWN.match(first):
        return False
    known = strong = 0
    for line in lines[index : index + 12]:
        bare = _unquoted(line)
        if not bare:
            break
        known += _KNOWN.match(bare) is not None
        strong += _STRONG.match(bare) is not None
    return known >= 3 and strong >= 2


def _unquoted(line: str) -> str:
    return line[:300].lstrip("> |\t")


def _bare_ids(header: LooseHeader) -> list[str]:
    # Exchange's text form and some gateways leave the brackets out.
    values = [value.strip() for value in header.all("message-id")]
    return [f"<{value}>" for value in values if "<" not in value and "@" in value and " " not in value]
