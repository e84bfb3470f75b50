"""SMTP replies with enhanced status codes (RFC 5321 4.2, RFC 2034, RFC 3463)."""

import re
from dataclasses import dataclass

_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})(?:\s|\Z)")


# RFC 5321 4.5.3.1.5: 512 octets with the CRLF.
MAX_LINE_OCTETS = 510
_NOT_ASCII = re.compile(r"[^ -~]")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that relayd gives: `250 2.0.0 text`. The text is short and generic; it may hold an address."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}"

    def line(self, *, utf8: bool) -> str:
        """As it goes over the wire: one printable line within the limit, in ASCII unless `utf8` (RFC 6531 3.7.4.2)."""
        text = (_UNPRINTABLE if utf8 else _NOT_ASCII).sub("?", str(self))
        return text.encode()[:MAX_LINE_OCTETS].decode(errors="ignore")


def enhanced_code(text: str) -> str | None:
    """The enhanced status code that opens a reply's text, if it has one."""
    match = _ENHANCED.match(text)
    return match.group(1) if match else None
