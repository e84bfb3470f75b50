"""Parts of a notification and the lines in them: short, single, in seven bits unless its reader takes UTF-8."""

import binascii
import re
import textwrap
from collections.abc import Iterable

from relayd.mail.address import Address

MAX_VALUE_CHARACTERS = 2000
MAX_ORIGINAL_HEADERS_OCTETS = 64 * 1024

_LINE_CHARACTERS = 76
_MAX_LINE_OCTETS = 900  # Under RFC 5322 2.1.1's 998, with room for a prefix.
_LONGEST_LINE_OCTETS = 998
_NOT_IN_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NOT_ASCII = re.compile(r"[^ -~]")
# RFC 6533 3: what utf-8-addr-xtext spells out.
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")


def part(content_type: str, encoding: str, body: bytes) -> bytes:
    """A part of a multipart, without its delimiter."""
    return f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body


def whole_message(content: bytes, utf8: bool) -> bytes | None:
    """The original as it is; None where it would have to be changed, which a message within a message may not be."""
    if any(len(line) > _LONGEST_LINE_OCTETS for line in content.split(b"\r\n")):
        return None
    if content.isascii():
        return part("message/rfc822", "7bit", content)
    header = content.partition(b"\r\n\r\n")[0]
    if header.isascii():
        return part("message/rfc822", "8bit", content)
    return part("message/global", "8bit", content) if utf8 and is_utf8(header) else None


def header_block(headers: bytes, utf8: bool) -> bytes:
    """The original's header, cut at a line where it is too long."""
    if len(headers) > MAX_ORIGINAL_HEADERS_OCTETS:
        line_end = headers.rfind(b"\r\n", 0, MAX_ORIGINAL_HEADERS_OCTETS)
        headers = headers[: line_end if line_end >= 0 else MAX_ORIGINAL_HEADERS_OCTETS]
    headers = headers.rstrip(b"\r\n") + b"\r\n"
    is_short = all(len(line) <= _MAX_LINE_OCTETS for line in headers.split(b"\r\n"))
    if is_short and headers.isascii():
        return part("text/rfc822-headers", "7bit", headers)
    if is_short and utf8 and is_utf8(headers):
        return part("message/global-headers", "8bit", headers)
    # RFC 6522 4 allows this for what is not legal 7-bit.
    return part("text/rfc822-headers", "quoted-printable", binascii.b2a_qp(headers, istext=True))


def spelled(address: Address, utf8: bool) -> str:
    """The address in what its reader can take."""
    if utf8 or not address.needs_smtputf8:
        return address.wire
    return _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match.group()):X}}}", str(address))


def folded(name: str, value: str, utf8: bool) -> str:
    """A field, folded where it is long."""
    return "\r\n".join(wrapped(f"{name}: {value[:MAX_VALUE_CHARACTERS]}", "", utf8, following=" "))


def wrapped(text: str, indent: str, utf8: bool, following: str | None = None) -> list[str]:
    """`text` in lines broken at spaces; a word is broken only where no line could hold it."""
    found = textwrap.wrap(
        one_line(text, utf8),
        _LINE_CHARACTERS,
        initial_indent=indent,
        subsequent_indent=indent if following is None else following,
        break_long_words=False,
        break_on_hyphens=False,
    )
    joint = indent if following is None else following
    return [piece for line in found for piece in _pieces(line, joint, utf8)]


def one_line(text: str, utf8: bool) -> str:
    """`text` without anything that could begin another line."""
    line = _NOT_IN_A_LINE.sub(" ", text).strip()
    return line if utf8 else _NOT_ASCII.sub("?", line)


def lines(texts: Iterable[str]) -> bytes:
    """Each on a line of its own."""
    return ("\r\n".join(texts) + "\r\n").encode()


def is_utf8(octets: bytes) -> bool:
    """Whether this can be read as UTF-8."""
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pieces(line: str, joint: str, utf8: bool) -> Iterable[str]:
    width = _MAX_LINE_OCTETS // (4 if utf8 else 1)
    return ((joint if start else "") + line[start : start + width] for start in range(0, len(line), width))
