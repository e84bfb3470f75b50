"""Parse the header From (RFC 5322 3.6.2), strictly: it decides who sends, so every program must read it alike.

Linear time. Groups, routes, obsolete spacing inside an address and encoded words as addresses are refused.
"""

import re
from collections.abc import Iterator

from relayd.mail.address import Address
from relayd.mail.headers import HeaderScan

MAX_FROM_OCTETS = 8192

_WORD = r"[^\x00-\x20\x7f()<>\[\]:;@\\,\"]++"
_QUOTED = r'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*+"'
_ADDRESS = rf"(?:{_QUOTED}|{_WORD})@(?:\[[^\[\]\\\s]*+\]|{_WORD})"
# The address comes before the words that it may begin with.
_TOKEN = re.compile(
    rf"(?P<space>[ \t]++)|(?P<address>{_ADDRESS})|<[ \t]*+(?P<angle>{_ADDRESS})[ \t]*+>"
    rf"|(?P<phrase>{_QUOTED}|{_WORD})|(?P<comma>,)|(?P<comment>\()|(?P<group>[:;])"
)
_COMMENT_PART = re.compile(r"\\.|[()]")


def sole_author(scan: HeaderScan) -> Address:
    """The one mailbox of the one From field. Raises ValueError with a reason fit for a reply."""
    addresses = from_addresses(scan)
    if len(addresses) != 1:
        raise ValueError(f"From names {len(addresses)} mailboxes; exactly one is supported")
    return addresses[0]


def from_addresses(scan: HeaderScan) -> tuple[Address, ...]:
    """Every mailbox of the one From field, at least one. Raises ValueError with a reason fit for a reply."""
    fields = scan.all(b"From")
    if not fields:
        raise ValueError("message has no From field")
    if len(fields) > 1:
        raise ValueError(f"message has {len(fields)} From fields; exactly one is allowed")
    value = fields[0].value
    if len(value) > MAX_FROM_OCTETS:
        raise ValueError(f"From is over {MAX_FROM_OCTETS} octets")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise ValueError("From is neither ASCII nor UTF-8") from None
    return tuple(_mailboxes(text))


def with_address(value: bytes, address: Address) -> bytes:
    """The value of a From field of one mailbox with another address; its display name and comments stay."""
    text = value.decode()
    for kind, token, position in tokens(text):
        if kind in ("address", "angle"):
            return f"{text[:position]}{address}{text[position + len(token) :]}".encode()
    raise ValueError("From holds no address")


def _mailboxes(text: str) -> Iterator[Address]:
    address: Address | None = None
    has_phrase = False
    for kind, token, _ in tokens(text):
        if kind == "phrase" and address is None:
            has_phrase = True
        elif address is None and (kind == "angle" or (kind == "address" and not has_phrase)):
            address = _address(token)
        elif kind == "comma" and address is not None:
            yield address
            address, has_phrase = None, False
        elif kind == "group":
            raise ValueError("From holds a group; exactly one mailbox is supported")
        elif kind in ("address", "angle"):
            # `a@b.org <c@d.org>`: some programs take the first, some the second.
            raise ValueError("From holds an address inside a display name; put the name in double quotes")
        else:
            raise ValueError("malformed From")
    if address is None:
        raise ValueError("From holds no address" if not has_phrase else "malformed From")
    yield address


def tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """What `text` is made of and where, without spaces and comments."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError("malformed From")
        kind = match.lastgroup or ""
        position = match.end()
        if kind == "comment":
            position = _comment_end(text, position)
        elif kind != "space":
            yield kind, match.group(kind), match.start(kind)


def _comment_end(text: str, position: int) -> int:
    depth = 1
    for part in _COMMENT_PART.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(part.group(), 0)
        if depth == 0:
            return part.end()
    raise ValueError("malformed From")


def _address(text: str) -> Address:
    address = Address.parse(text)
    if "=?" in address.local_part:
        # RFC 2047 5 forbids it, and a program that decodes it sees another address.
        raise ValueError("From holds an encoded word as an address")
    return address
