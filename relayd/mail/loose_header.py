"""Read header fields as they come from the wild: whatever their line ends, folding and charset. Nothing is refused.

For reports alone, which other programs write and nobody relays. `headers` is for the messages that relayd sends.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from relayd.mail import encoded_words

MAX_FIELDS = 500
MAX_HEADER_OCTETS = 256 * 1024
MAX_VALUE_OCTETS = 16 * 1024

_NAME = re.compile(rb"[ \t]*([!-9;-~]{1,100})[ \t]*:")
_MESSAGE_ID = re.compile(r"<([^<>\s]{1,900})>")
_PARAMETER = re.compile(r';\s*([^=;\s"]{1,60})\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^;\s]*))')


@dataclass(frozen=True, slots=True)
class LooseHeader:
    """The fields from top to bottom: names in lower case, values unfolded, undecoded but for their charset."""

    fields: tuple[tuple[str, str], ...] = ()

    def first(self, name: str) -> str:
        """The topmost value of that name; empty where there is none."""
        return next((value for key, value in self.fields if key == name), "")

    def all(self, name: str) -> list[str]:
        """Every value of that name."""
        return [value for key, value in self.fields if key == name]

    def decoded(self, name: str, limit: int = 500) -> str:
        """The topmost value with its encoded words read, printable."""
        return encoded_words.decode(self.first(name).encode("utf-8", "replace"), limit)

    def message_ids(self, name: str) -> tuple[str, ...]:
        """The message ids that a field lists, with their brackets."""
        return tuple(f"<{found}>" for value in self.all(name) for found in _MESSAGE_ID.findall(value))[:200]


def parse(content: bytes) -> tuple[LooseHeader, int]:
    """The header of `content` (lines end in LF) and where its body starts. No header: no fields, and 0."""
    fields: list[tuple[str, str]] = []
    name, lines = "", [b""]
    body_offset = len(content)
    for offset, line in _lines(content):
        if not line.strip():
            if fields or name:
                body_offset = offset + len(line) + 1
                break
            continue  # empty lines before the header
        if line[:1] in b" \t" and name:
            lines.append(line)
            continue
        found = _NAME.match(line)
        if found is None:
            if not (fields or name) and not line.startswith((b"From ", b">From ")):
                return LooseHeader(), 0
            continue
        if name:
            fields.append((name, _value(lines)))
        name, lines = found.group(1).decode("ascii").lower(), [line[found.end() :]]
        if len(fields) >= MAX_FIELDS:
            name = ""
            body_offset = _after_empty_line(content, offset)
            break
    if name:
        fields.append((name, _value(lines)))
    return LooseHeader(tuple(fields)), min(body_offset, len(content))


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """What comes before the first semicolon, in lower case, and the parameters behind it (RFC 2045 5.1)."""
    value = value[:4000]
    kind = value.partition(";")[0].strip().lower()
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(value):
        # RFC 2231 3: a long value comes as name*0, name*1 and so on.
        key = name.lower().partition("*")[0]
        found[key] = found.get(key, "") + (re.sub(r"\\(.)", r"\1", quoted) or plain)
    return kind, found


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < min(len(content), MAX_HEADER_OCTETS):
        end = content.find(b"\n", position)
        end = len(content) if end < 0 else end
        yield position, content[position : min(end, position + MAX_VALUE_OCTETS)] if end > position else b""
        position = end + 1


def _after_empty_line(content: bytes, position: int) -> int:
    found = content.find(b"\n\n", position)
    return len(content) if found < 0 else found + 2


def _value(lines: list[bytes]) -> str:
    octets = b" ".join(line.strip() for line in lines)[:MAX_VALUE_OCTETS]
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")
