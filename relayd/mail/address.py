"""RFC 5321 addresses, parsed strictly at the edge so that nothing downstream has to look again.

Strict on purpose: an address that two programs could read in two ways is refused, not repaired. One repair has a single
reading: misplaced dots in a local part get the quotes that they need.
"""

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self

MAX_DOMAIN_OCTETS = 255
# RFC 5321 4.5.3.1.3, without the angle brackets. The local part has no limit of its own: 4.5.3.1.1 names 64 octets and
# asks servers not to refuse longer ones, and the reply addresses of code hosts are longer.
MAX_PATH_OCTETS = 254

# Beyond ASCII everything is allowed. The classes name what is not: all of Unicode takes 10 ms to compile.
_ATEXT = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]'
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*\Z")
# Japanese carriers gave out such names. RFC 5321 4.1.2 allows them in quotes only.
_DOTS_ANYWHERE = re.compile(rf"(?:{_ATEXT}|\.)+\Z")
_QUOTED_STRING = re.compile(r'"(?:[^\x00-\x1f"\\\x7f]|\\[ -~])*"\Z')
_LETTER = r"[^\x00-/:-@\[-^`{-\x7f]"
_LETTER_OR_HYPHEN = r"[^\x00-,./:-@\[-^`{-\x7f]"
_LABEL = rf"{_LETTER}(?:{_LETTER_OR_HYPHEN}{{0,61}}{_LETTER})?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_QUOTED_PAIR = re.compile(r"\\(.)")
_TO_BE_QUOTED = re.compile(r'(["\\])')
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\u0080-\u009f]")
# What no reader sees in a domain: Unicode's Default_Ignorable_Code_Point that Python calls letters, marks or nothing.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"})
# A last label like these makes an IP address of the whole: programs read 127.1, 2130706433 and 0x7f000001 as one. No
# top-level domain is a number (RFC 3696 2).
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
_LINE_SEPARATORS = re.compile("[\u2028\u2029]")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_NOT_IN_A_LOCAL_PART = re.compile(r'[\x20"(),:;<>@\[\\\]]')
_NOT_IN_A_DOMAIN = re.compile(r"[\x20-,/:-@\[-^`{-~]")
_NAMES = {" ": "a space", ",": "a comma", ";": "a semicolon", ":": "a colon", "@": "a second @", "'": "a single quote",
          '"': "a stray double quote", "\\": "a backslash"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """`local_part@domain`; the domain is in lower case, the local part as it was written."""

    local_part: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an addr-spec without angle brackets. Raises ValueError with a reason fit for a reply."""
        if _FORBIDDEN.search(text):
            raise ValueError("address holds a control character")
        if _NOT_UTF8.search(text):
            raise ValueError("address is not UTF-8")
        if _LINE_SEPARATORS.search(text):
            raise ValueError("address holds a line separator")
        local_part, at, domain = text.rpartition("@")
        if not at:
            raise ValueError("address has no domain; write name@example.com")
        if _DOTS_ANYWHERE.match(local_part) and not _DOT_STRING.match(local_part):
            local_part = f'"{local_part}"'
        if len(f"{local_part}@{domain}".encode()) > MAX_PATH_OCTETS or len(domain.encode()) > MAX_DOMAIN_OCTETS:
            raise ValueError(f"address too long; it may have {MAX_PATH_OCTETS} octets")
        if not (_DOT_STRING.match(local_part) or _QUOTED_STRING.match(local_part)):
            raise ValueError(f"malformed local part: {_fault(_NOT_IN_A_LOCAL_PART, local_part)}")
        if domain.startswith("["):
            if not _is_address_literal(domain):
                raise ValueError("malformed domain: no IP address; write [192.0.2.1] or [IPv6:2001:db8::1]")
            return cls(local_part, domain)
        if not _DOMAIN.match(domain):
            raise ValueError(f"malformed domain: {_fault(_NOT_IN_A_DOMAIN, domain)}")
        if not domain.isascii() and (unseen := _unseen_in(domain)):
            raise ValueError(f"malformed domain: it holds the invisible character U+{ord(unseen):04X}; take it out")
        if _NUMBER.match(unicodedata.normalize("NFKC", domain).lower().rpartition(".")[2]):
            raise ValueError("malformed domain: it ends in a number; write an IP address in brackets, as [192.0.2.1]")
        return cls(local_part, domain.lower())

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
        return to_ascii(self.domain)

    @property
    def plain(self) -> str:
        """The address as a mailbox is stored: no needless quotes, the local part in NFC (RFC 6532 3.1), the domain in
        ASCII, the case as written."""
        return f"{unicodedata.normalize('NFC', _unquoted(self.local_part))}@{self.ascii_domain}"

    @property
    def key(self) -> str:
        """The form under which two spellings are the same sender: `plain` in lower case."""
        return unicodedata.normalize("NFC", self.plain.lower())

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"


def to_ascii(domain: str) -> str:
    """A domain in lower case, with A-labels. See `Address.ascii_domain`."""
    if domain.isascii():
        return domain if domain.startswith("[") else domain.lower()
    return ".".join(map(_ascii_label, unicodedata.normalize("NFC", domain.lower()).split(".")))


def key_of(text: str) -> str:
    """The key of what may be an address; anything else in lower case."""
    return unicodedata.normalize("NFC", plain_of(text).lower())


def plain_of(text: str) -> str:
    """The plain form of what may be an address; anything else as it is."""
    try:
        return Address.parse(text).plain
    except ValueError:
        return text


def spellings(key: str) -> list[str]:
    """The lower-case forms that stored mail may have for a key or an `@domain`: mail keeps an address as written."""
    local_part, _, domain = key.rpartition("@")
    shown = ".".join(map(_unicode_label, domain.split(".")))
    domains = {to_ascii(domain), *_normal_forms(shown)}
    return sorted(f"{each}@{name}" for each in _normal_forms(local_part) for name in domains)


def is_host(text: str) -> bool:
    """Whether EHLO may name a host like this: an ASCII domain or an address literal (RFC 5321 4.1.1.1)."""
    if text.startswith("["):
        return _is_address_literal(text)
    return text.isascii() and len(text) <= MAX_DOMAIN_OCTETS and _DOMAIN.match(text) is not None


def _is_address_literal(domain: str) -> bool:
    inside = domain[1:-1]
    if not domain.endswith("]") or "%" in inside:  # Python would take a zone id
        return False
    try:
        if inside[:5].lower() == "ipv6:":
            IPv6Address(inside[5:])
        else:
            IPv4Address(inside)
    except ValueError:
        return False
    return True


def _unseen_in(domain: str) -> str | None:
    return next(
        (each for each in domain if unicodedata.category(each) in _UNSEEN_CATEGORIES or _IGNORABLE.match(each)), None
    )


def _fault(forbidden: re.Pattern[str], text: str) -> str:
    """What is wrong with a part of an address, for a reply."""
    if not text:
        return "it is empty"
    found = re.search("[,;]", text) or forbidden.search(text)
    if found is not None:
        return f"it holds {_NAMES.get(found.group(), found.group())}"
    if text.startswith(".") or text.endswith(".") or ".." in text:
        return "a dot begins or ends it, or follows another dot"
    return "a name in it begins or ends with a hyphen or is over 63 characters long"


def _ascii_label(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode()


def _unicode_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode().decode("punycode")
    except ValueError:
        return label


def _normal_forms(text: str) -> set[str]:
    return {unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}


def _unquoted(local_part: str) -> str:
    """Without quotes, or else without backslashes, where they are not needed (RFC 5321 4.1.2)."""
    if not local_part.startswith('"'):
        return local_part
    inside = _QUOTED_PAIR.sub(r"\1", local_part[1:-1])
    return inside if _DOT_STRING.match(inside) else '"' + _TO_BE_QUOTED.sub(r"\\\1", inside) + '"'
