"""Take a message apart into its parts (RFC 2046), whatever is wrong with it, in linear time and within caps.

For reports from strangers: boundaries that are missing, wrong or cut off, a thousand levels, lying encodings. What
cannot be taken apart comes back as it is. Nothing raises.
"""

import binascii
import re
from dataclasses import dataclass, field

from relayd.mail import loose_header
from relayd.mail.loose_header import LooseHeader

MAX_OCTETS = 4 * 1024 * 1024
MAX_PARTS = 200
MAX_DEPTH = 12

# A part's first line behind a boundary that no header has named.
_LIKELY_BOUNDARY = re.compile(rb"^--([^\n]{1,200})\n(?=content-[a-z-]{1,40}[ \t]*:)", re.IGNORECASE | re.MULTILINE)
_BASE64_REST = re.compile(rb"[^A-Za-z0-9+/]+")


@dataclass(frozen=True, slots=True)
class Part:
    """A part that holds content, or a whole message within. `content` has LF line ends, its encoding undone.

    `within` counts the messages that it lies in: 0 is what the sender of the whole wrote itself. `containers` are the
    types of the multiparts around it in its own message, outermost first.
    """

    content_type: str
    parameters: dict[str, str] = field(repr=False)
    header: LooseHeader = field(repr=False)
    content: bytes = field(repr=False)
    within: int
    containers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Node:
    header: LooseHeader
    body: bytes
    depth: int
    within: int
    containers: tuple[str, ...]
    default_type: str = "text/plain"


def with_lf(content: bytes) -> bytes:
    """`content` up to the cap, lines ending in LF, without NUL."""
    return content[:MAX_OCTETS].replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"")


def split(header: LooseHeader, body: bytes) -> list[Part]:
    """The parts of a message in the order in which they stand, those of messages within it too."""
    parts: list[Part] = []
    waiting = [_Node(header, body, 0, 0, ())]
    while waiting and len(parts) < MAX_PARTS:
        node = waiting.pop()
        content_type, parameters = loose_header.parameters(node.header.first("content-type"))
        content_type = content_type or node.default_type
        if content_type.startswith("multipart/") and node.depth < MAX_DEPTH:
            children = _children(node, content_type, parameters)
            if children:
                waiting += reversed(children)
                continue
            content_type = "text/plain"
        content = _decoded(node.body, node.header.first("content-transfer-encoding"))
        parts.append(Part(content_type, parameters, node.header, content, node.within, node.containers))
        if content_type in ("message/rfc822", "message/global") and node.depth < MAX_DEPTH:
            inner, offset = loose_header.parse(content)
            waiting.append(_Node(inner, content[offset:], node.depth + 1, node.within + 1, ()))
    return parts


def _children(node: _Node, content_type: str, parameters: dict[str, str]) -> list[_Node]:
    boundary = parameters.get("boundary", "").encode("utf-8", "replace").rstrip()[:200]
    lines = _boundary_lines(node.body, boundary) if boundary else []
    if not lines and (guess := _LIKELY_BOUNDARY.search(node.body)):
        lines = _boundary_lines(node.body, guess.group(1).rstrip(b" \t"))
    kind = f"{content_type};{parameters.get('report-type', '').lower()}"
    default = "message/rfc822" if content_type == "multipart/digest" else "text/plain"
    children = []
    for index, (_, begin, is_last) in enumerate(lines[: MAX_PARTS + 1]):
        if is_last:
            break
        # The line end before a boundary is the boundary's. The last part may have been cut off.
        end = lines[index + 1][0] - 1 if index + 1 < len(lines) else len(node.body)
        header, offset = loose_header.parse(node.body[begin:end])
        if node.body[begin : begin + 1] == b"\n":
            header, offset = LooseHeader(), 1
        containers = (*node.containers, kind)
        children.append(
            _Node(header, node.body[begin + offset : end], node.depth + 1, node.within, containers, default)
        )
    return children


def _boundary_lines(body: bytes, boundary: bytes) -> list[tuple[int, int, bool]]:
    """Where each boundary line begins and ends, and whether it is a closing one."""
    pattern = re.compile(rb"^--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\n|\Z)", re.MULTILINE)
    return [(found.start(), found.end(), found.group(1) is not None) for found in pattern.finditer(body)]


def _decoded(body: bytes, encoding: str) -> bytes:
    match encoding.strip().lower().partition(" ")[0]:
        case "base64":
            octets = _BASE64_REST.sub(b"", body)
            try:
                decoded = binascii.a2b_base64(octets[: len(octets) // 4 * 4] + _padded(octets[len(octets) // 4 * 4 :]))
            except binascii.Error:
                return body
            return with_lf(decoded)
        case "quoted-printable":
            return with_lf(binascii.a2b_qp(body))
        case _:
            return body


def _padded(rest: bytes) -> bytes:
    # One letter more than a multiple of four holds no whole octet: it was cut off.
    return rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""
