"""Parse the header From (RFC 5322 3.6.2), strictly: it decides who sends, so every program must read it alike.

Linear time. Groups, routes, obsolete spacing inside an address and encoded words as addresses are refused. A display
name may be the author's own address, and may hold octets that are not UTF-8.
"""

import re
from collections.abc import Iterator

from relayd.mail.address import Address
from relayd.mail.headers import Field, HeaderScan

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
_IN_QUOTES = 'From: "Doe, John" <name@example.com>'
_QUOTE_THE_NAME = f"put the display name in double quotes, as in {_IN_QUOTES}"


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
    return tuple(_mailboxes(_text(value)))


def named_in(field: Field) -> tuple[Address, ...]:
    """The mailboxes of a Sender or Resent-* field. Raises ValueError with a reason fit for a reply."""
    name = field.name.decode("ascii")
    if len(field.value) > MAX_FROM_OCTETS:
        raise ValueError(f"{name} is over {MAX_FROM_OCTETS} octets")
    try:
        return tuple(_mailboxes(_text(field.value)))
    except ValueError as error:
        raise ValueError(str(error).replace("From", name)) from None


def with_address(value: bytes, address: Address) -> bytes:
    """The value of a From field of one mailbox with another address; its display name and comments stay.

    Where the display name repeats the old address, it repeats the new one.
    """
    text = _text(value)
    rewritten, end = "", 0
    for kind, token, position in tokens(text):
        if kind in ("address", "angle"):
            rewritten += f"{text[end:position]}{address}"
            end = position + len(token)
    if not end:
        raise ValueError("From holds no address")
    return (rewritten + text[end:]).encode("utf-8", "surrogateescape")


def tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """What `text` is made of and where, without spaces and comments. Raises ValueError with a reason for a reply."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(_fault(text, position))
        kind = match.lastgroup or ""
        position = match.end()
        if kind == "comment":
            position = _comment_end(text, position)
        elif kind != "space":
            yield kind, match.group(kind), match.start(kind)


def _text(value: bytes) -> str:
    # Octets that are not UTF-8 become lone surrogates, which no address may hold.
    return value.decode("utf-8", "surrogateescape")


def _mailboxes(text: str) -> Iterator[Address]:
    mailboxes: list[list[tuple[str, str]]] = [[]]
    for kind, token, _ in tokens(text):
        if kind == "group":
            raise ValueError(_group_fault(text, token))
        if kind == "comma":
            mailboxes.append([])
        else:
            mailboxes[-1].append((kind, token))
    for parts in mailboxes:
        if all(kind == "phrase" for kind, _ in parts):
            raise ValueError(_no_address(parts, is_list=len(mailboxes) > 1))
        yield _mailbox(parts)


def _mailbox(parts: list[tuple[str, str]]) -> Address:
    kind, token = parts[-1]
    if kind == "phrase":
        raise ValueError("From holds text after the address; write From: Name <name@example.com>")
    if kind == "address" and len(parts) > 1:
        raise ValueError("From holds an address behind other text; write From: Name <name@example.com>")
    address = _address(token)
    name = parts[:-1]
    if any(kind == "angle" for kind, _ in name):
        raise ValueError("From holds two addresses in < >; write one")
    inside = [word for kind, word in name if kind == "address"]
    if any(word.startswith("'") for word in inside):
        raise ValueError("From has an address in single quotes; use double quotes, or leave them out")
    # `a@b.org <c@d.org>`: some programs read the first, some the second. Both the same is common, and harmless alone.
    if inside and not (len(name) == 1 and _is_spelling_of(address, inside[0])):
        raise ValueError(f"From holds an address inside its display name; {_QUOTE_THE_NAME}")
    return address


def _is_spelling_of(address: Address, text: str) -> bool:
    try:
        return _address(text).key == address.key
    except ValueError:
        return False


def _address(text: str) -> Address:
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise ValueError(f"From: {error}") from None
    if "=?" in address.local_part:
        # RFC 2047 5 forbids it, and a program that decodes it sees another address.
        raise ValueError("From holds an encoded word as an address; encode only the display name")
    if address.local_part != text[: len(address.local_part)]:
        # Address takes it for a recipient. In a header it is no addr-spec (RFC 5322 3.4.1).
        raise ValueError(f"From holds misplaced dots; put double quotes around {address.local_part}")
    return address


def _comment_end(text: str, position: int) -> int:
    depth = 1
    for part in _COMMENT_PART.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(part.group(), 0)
        if depth == 0:
            return part.end()
    raise ValueError("From has a ( without its )")


def _no_address(phrases: list[tuple[str, str]], *, is_list: bool) -> str:
    if is_list:
        return f"From has a comma in its display name; {_QUOTE_THE_NAME}" if phrases else "From has a stray comma"
    if any("=?" in word for _, word in phrases):
        return "From holds an encoded word but no address; write the address unencoded in < > behind it"
    if phrases:
        return "From holds a name but no address; write From: Name <name@example.com>"
    return "From holds no address; write From: name@example.com"


def _group_fault(text: str, mark: str) -> str:
    if mark == ";":
        return "From holds a semicolon; write one address, or the display name in double quotes"
    if text.rstrip().endswith(";"):
        return "From holds a group; write one address, as in From: name@example.com"
    return f"From has a colon in its display name; {_QUOTE_THE_NAME}"


def _fault(text: str, position: int) -> str:
    """Why no token begins there."""
    match text[position]:
        case '"':
            return "From has a double quote that is not closed"
        case "<":
            inside, closed, _ = text[position + 1 :].partition(">")
            return _angle_fault(inside.strip(" \t")) if closed else "From has a < without its >"
        case ">":
            return "From has a > without its <"
        case ")":
            return "From has a ) without its ("
        case "@" if "<" not in text[position:]:
            return "From has an @ without text on both sides; write name@example.com without spaces"
        case "[" | "]" | "\\" | "@" as character:
            return f"From has {character} outside double quotes; {_QUOTE_THE_NAME}"
        case _:
            return "From holds a control character"


def _angle_fault(inside: str) -> str:
    if not inside:
        return "From has nothing between < and >; write <name@example.com>"
    if inside.startswith("@"):
        return "From holds a source route; write <name@example.com>"
    try:
        _address(inside)
    except ValueError as error:
        return str(error)
    return "From holds no plain address between < and >; write <name@example.com>"
