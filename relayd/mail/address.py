"""RFC 5321 addresses, parsed strictly at the edge so that nothing downstream has to look again.

Strict on purpose: an address that two programs could read in two ways is refused, not repaired.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Self

MAX_LOCAL_PART_OCTETS = 64
MAX_DOMAIN_OCTETS = 255
MAX_PATH_OCTETS = 254

# Beyond ASCII everything is allowed. The classes name what is not: all of Unicode takes 10 ms to compile.
_ATEXT = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]'
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*\Z")
_QUOTED_STRING = re.compile(r'"(?:[^\x00-\x1f"\\\x7f]|\\[ -~])*"\Z')
_LETTER = r"[^\x00-/:-@\[-^`{-\x7f]"
_LETTER_OR_HYPHEN = r"[^\x00-,./:-@\[-^`{-\x7f]"
_LABEL = rf"{_LETTER}(?:{_LETTER_OR_HYPHEN}{{0,61}}{_LETTER})?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_ADDRESS_LITERAL = re.compile(r"\[(?:\d{1,3}(?:\.\d{1,3}){3}|IPv6:[0-9A-Fa-f:.]+)\]\Z")
_QUOTED_PAIR = re.compile(r"\\(.)")
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff\u0080-\u009f]")


@dataclass(frozen=True, slots=True)
class Address:
    """`local_part@domain`; the domain is in lower case, the local part as it was written."""

    local_part: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an addr-spec without angle brackets. Raises ValueError with a reason fit for a reply."""
        if _FORBIDDEN.search(text):
            raise ValueError("control characters in address")
        local_part, at, domain = text.rpartition("@")
        if not at:
            raise ValueError("address has no domain")
        if len(text.encode()) > MAX_PATH_OCTETS or len(domain.encode()) > MAX_DOMAIN_OCTETS:
            raise ValueError("address too long")
        if len(local_part.encode()) > MAX_LOCAL_PART_OCTETS:
            raise ValueError("local part too long")
        if not (_DOT_STRING.match(local_part) or _QUOTED_STRING.match(local_part)):
            raise ValueError("malformed local part")
        if not (_DOMAIN.match(domain) or _ADDRESS_LITERAL.match(domain)):
            raise ValueError("malformed domain")
        return cls(local_part, domain if domain.startswith("[") else domain.lower())

    @classmethod
    def stored(cls, text: str) -> Self:
        """An address as str() gave it: it was parsed before, so it is only taken apart."""
        local_part, _, domain = text.rpartition("@")
        return cls(local_part, domain)

    @property
    def is_ascii(self) -> bool:
        """Whether it is written in ASCII alone."""
        return self.local_part.isascii() and self.domain.isascii()

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only SMTPUTF8 can carry it (RFC 6531). A domain alone can be carried as A-labels."""
        return not self.local_part.isascii()

    @property
    def wire(self) -> str:
        """The address as SMTP and header fields carry it: in ASCII unless it needs SMTPUTF8."""
        return str(self) if self.needs_smtputf8 else f"{self.local_part}@{self.ascii_domain}"

    @property
    def ascii_domain(self) -> str:
        """The domain as DNS knows it: U-labels as A-labels (`xn--`, RFC 5891 4.4).

        No character becomes another on the way: IDNA2003, which is Python's codec, would take straße.de for
        strasse.de, which is somebody else's, and drop what cannot be seen. What is no U-label makes a name nobody has.
        """
        if self.domain.isascii():
            return self.domain
        return ".".join(map(_ascii_label, unicodedata.normalize("NFC", self.domain).split(".")))

    @property
    def plain(self) -> str:
        """The address as a mailbox is kept: no needless quotes, the domain in ASCII, the case as it was written."""
        return f"{_unquoted(self.local_part)}@{self.ascii_domain}"

    @property
    def key(self) -> str:
        """The form under which two spellings are the same sender: `plain` in lower case."""
        return self.plain.lower()

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"


def _ascii_label(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode()


def _unquoted(local_part: str) -> str:
    """Without quotes where the same can be written without them (RFC 5321 4.1.2)."""
    if not local_part.startswith('"'):
        return local_part
    inside = _QUOTED_PAIR.sub(r"\1", local_part[1:-1])
    return inside if _DOT_STRING.match(inside) else local_part
