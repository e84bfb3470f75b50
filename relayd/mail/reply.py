"""SMTP replies with enhanced status codes (RFC 5321 4.2, RFC 2034, RFC 3463)."""

import re
from dataclasses import dataclass

_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})(?:\s|\Z)")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that relayd gives: `250 2.0.0 text`. The text is ASCII, short and generic."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}"


def enhanced_code(text: str) -> str | None:
    """The enhanced status code that opens a reply's text, if it has one."""
    match = _ENHANCED.match(text)
    return match.group(1) if match else None
