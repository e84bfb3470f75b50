"""Make a message fit for every server: no line over 998 octets and, if asked, no 8-bit body. Before it is signed.

Long header fields are folded where they hold white space. Of the body only the parts concerned are encoded anew, text
as quoted-printable and the rest as base64; decoded, each is what it was. One pass, however deep the parts are nested.
"""

import binascii
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from relayd.mail import headers, loose_header
from relayd.mail.headers import Field, HeaderScan, Prepared

# RFC 5322 2.1.1, without the CRLF.
MAX_LINE_OCTETS = 998
MAX_PARTS = 50_000

_ENCODED_OCTETS = 76
_DASHES = re.compile(rb"\r\n(--[^\r\n]*)")
_FOLDS = re.compile(rb"(?<=[^ \t])[ \t]+(?=[^ \t])")
_FIELD = re.compile(rb"([!-9;-~]+):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
_TYPE = re.compile(r"[^\s/;()]+/[^\s/;()]+")
# Up to 75 octets of quoted-printable, never a piece of `=XX`.
_QP_PIECE = re.compile(rb"(?:=[0-9A-Fa-f]{2}|[^=]{1,3}){1,25}")
_EIGHT_BIT = re.compile(rb"[\x80-\xff]")
_ENCODING = b"Content-Transfer-Encoding"
_IDENTITY = ("7bit", "8bit", "binary")
_MESSAGES = ("message/rfc822", "message/global", "message/news")
# Fields in groups, for which no encoding is allowed (RFC 3464 2.1).
_FIELD_GROUPS = ("message/delivery-status", "message/disposition-notification", "message/feedback-report")
_SEALED_TYPES = ("multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
_SEALING_FIELDS = (b"dkim-signature", b"arc-message-signature")


class _Part(NamedTuple):
    """A header and where it and the body behind it start; for a message, the whole message.

    `sealed_by` names the signature or encryption that a change inside would break.
    """

    fields: tuple[Field, ...]
    start: int
    body_start: int
    content_type: str
    encoding: str
    boundary: bytes
    sealed_by: str | None
    is_message: bool
    is_readable: bool


class _Change(NamedTuple):
    """What takes the place of content[start:end]."""

    start: int
    end: int
    octets: bytes


def fit(content: bytes, scan: HeaderScan, *, converts_eight_bit: bool = False, refuses: bool = False) -> Prepared:
    """The message, changed where it must be. Raises ValueError with a reason fit for a reply where it cannot be.

    With `refuses` a long line is a reason, too. An 8-bit part that a signature vouches for stays as it is.
    """
    message = Prepared(content, scan)
    is_long = has_long_line(content)
    if is_long and refuses:
        raise ValueError(_refusal(content))
    if is_long:
        message = fold(message)
    converts = converts_eight_bit and not content[scan.body_offset :].isascii()
    if converts or (is_long and has_long_line(content, scan.body_offset)):
        shift = content.count(b"\r\n", 0, scan.body_offset) - message.content.count(
            b"\r\n", 0, message.scan.body_offset
        )
        message = _Walk(message, converts, shift).fitted()
    return message


def has_long_line(content: bytes, start: int = 0, end: int | None = None, *, most: int = MAX_LINE_OCTETS) -> bool:
    """Whether a line holds more than `most` octets. Hops from line end to line end nearly as far apart."""
    end = len(content) if end is None else end
    longest = most + len(b"\r\n")
    while end - start > longest:
        line_end = content.rfind(b"\n", start, start + longest)
        if line_end < 0:
            return True
        start = line_end + 1
    return end - max(start, content.rfind(b"\n", start, end) + 1) > most


def fold(message: Prepared) -> Prepared:
    """The message with its long header fields folded. Raises ValueError where one holds no white space."""
    return headers.with_fields(message, _folded_fields(message.scan.fields, lambda: 1))


def folded(field: bytes, place: Callable[[], str]) -> bytes:
    """A field with its long lines folded; unfolded it is what it was. `place` names it where that is impossible."""
    lines: list[bytes] = []
    for line in field.removesuffix(b"\r\n").split(b"\r\n"):
        if len(line) <= MAX_LINE_OCTETS:
            lines.append(line)
        elif line := line.rstrip(b" \t"):
            lines += _pieces(line, place)
    return b"\r\n".join(lines) + b"\r\n"


def _pieces(line: bytes, place: Callable[[], str]) -> list[bytes]:
    pieces: list[bytes] = []
    start = fold = 0
    for end in [*[found.start() for found in _FOLDS.finditer(line)], len(line)]:
        if end - start > MAX_LINE_OCTETS and fold > start:
            pieces.append(line[start:fold])
            start = fold
        fold = end
    pieces.append(line[start:])
    longest = max([len(piece) for piece in pieces])
    if longest > MAX_LINE_OCTETS:
        raise ValueError(
            f"{place()} has {longest:,} octets without white space to fold it at; a line may have {MAX_LINE_OCTETS}:"
            " make it shorter, or put spaces between its words"
        )
    return pieces


def _folded_fields(fields: Iterable[Field], first_line: Callable[[], int]) -> tuple[Field, ...]:
    changed: list[Field] = []
    lines_before = 0
    for field in fields:

        def place(field: Field = field, lines_before: int = lines_before) -> str:
            return f"header line {first_line() + lines_before} ({field.name.decode()})"

        lines_before += field.raw.count(b"\r\n")
        changed.append(field._replace(raw=folded(field.raw, place)) if has_long_line(field.raw) else field)
    return tuple(changed)


class _Walk:
    """One pass over the lines that may be boundaries, with the open multiparts on a stack."""

    def __init__(self, message: Prepared, converts_eight_bit: bool, line_shift: int) -> None:
        """`line_shift` leads from a line's number to the one that it had before the header was folded."""
        self._content, self._scan = message
        self._converts = converts_eight_bit
        self._line_shift = line_shift
        self._parts = 0
        fields, body_start = self._scan.fields, self._scan.body_offset
        self._top = _part(fields, 0, body_start, "text/plain", None, is_message=True)
        self._top_fields = fields
        self._open: list[_Part] = []
        self._depths: dict[bytes, int] = {}
        self._changes: list[_Change] = []

    def fitted(self) -> Prepared:
        """The message with every part fit."""
        self._walk()
        content, position = self._content, self._scan.body_offset
        pieces: list[bytes] = []
        for change in self._changes:
            pieces += [content[position : change.start], change.octets]
            position = change.end
        body = b"".join([*pieces, content[position:]])
        # All of it may have been body: now there are fields before it, and an empty line between.
        header = b"".join([field.raw for field in self._top_fields]) + b"\r\n"
        return Prepared(header + body, HeaderScan(self._top_fields, len(header)))

    def _walk(self) -> None:
        content = self._content
        leaf, text_start = self._enter(self._top)
        has_parts = leaf is not None  # false in a multipart until its first boundary
        for match in _DASHES.finditer(content, max(text_start - 2, 0)):
            line_start, line_end = match.span(1)
            # A header that was read already is no place for a boundary.
            if line_start < text_start or (found := self._delimiter(match.group(1))) is None:
                continue
            depth, is_last = found
            # The line end before a boundary is the boundary's.
            is_lacking = not has_parts and depth < len(self._open) - 1
            self._finish(leaf, text_start, max(text_start, line_start - 2), is_lacking=is_lacking)
            if line_end - line_start > MAX_LINE_OCTETS:
                self._cut_boundary(self._open[depth], line_start, line_end)
            while len(self._open) > depth + (not is_last):
                closed = self._open.pop()
                if self._depths.get(closed.boundary) == len(self._open):
                    del self._depths[closed.boundary]
            text_start = min(line_end + 2, len(content))
            leaf, has_parts = None, True
            if not is_last:
                opened = len(self._open)
                leaf, text_start = self._enter(self._part_at(text_start, self._open[-1]))
                has_parts = len(self._open) == opened
        self._finish(leaf, text_start, len(content), is_lacking=not has_parts)

    def _enter(self, part: _Part) -> tuple[_Part | None, int]:
        """The leaf that begins there, or None for what comes before the parts of a multipart; where its text starts."""
        while not part.encoding or part.encoding in _IDENTITY:
            if part.boundary:
                self._depths.setdefault(part.boundary, len(self._open))
                self._open.append(part)
                return None, part.body_start
            if part.content_type not in _MESSAGES:
                break
            part = self._part_at(part.body_start, part, is_message=True)
        return part, part.body_start

    def _delimiter(self, line: bytes) -> tuple[int, bool] | None:
        """The depth of the open multipart that this line divides, or ends (true)."""
        text = line[2:].rstrip(b" \t")
        if text in self._depths:
            return self._depths[text], False
        depth = self._depths.get(text[:-2]) if text.endswith(b"--") else None
        return None if depth is None else (depth, True)

    def _part_at(self, start: int, around: _Part, *, is_message: bool = False) -> _Part:
        content = self._content
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ValueError(f"message has over {MAX_PARTS:,} parts")
        fields: list[Field] = []
        position = start
        while not content.startswith(b"\r\n", position):
            match = _FIELD.match(content, position)
            if match is None:
                break
            if content.startswith(b"--", position) and self._delimiter(match.group().partition(b"\r\n")[0]):
                break
            fields.append(Field(match.group(1), match.group(), match.group(1).lower()))
            position = match.end()
        is_readable = content.startswith(b"\r\n", position)
        body_start = position + 2 if is_readable else position
        default = "message/rfc822" if around.content_type == "multipart/digest" and not is_message else "text/plain"
        part = _part(fields, start, body_start, default, around.sealed_by, is_message=is_message)
        part = part._replace(is_readable=is_readable)
        if has_long_line(content, start, position):
            self._check_may_change(part, start)
            part = part._replace(fields=_folded_fields(fields, lambda: self._line(start)))
            self._changes.append(_Change(start, position, b"".join([field.raw for field in part.fields])))
        return part

    def _finish(self, leaf: _Part | None, start: int, end: int, *, is_lacking: bool) -> None:
        """Fit a leaf's text, or what stands before and after the parts. `is_lacking`: a multipart without parts."""
        content = self._content
        is_long = has_long_line(content, start, end)
        part = leaf or (self._open[-1] if self._open else self._top)
        if not is_long and (not self._converts or content[start:end].isascii()):
            return
        try:
            self._fit_text(part, start, end, is_skipped=leaf is None and not is_lacking, is_lacking=is_lacking)
        except ValueError:
            if is_long:
                raise  # what is only 8-bit can travel as it is

    def _fit_text(self, part: _Part, start: int, end: int, *, is_skipped: bool, is_lacking: bool) -> None:
        self._check_may_change(part, start)
        text = self._content[start:end]
        if is_skipped:
            self._changes.append(_Change(start, end, _skipped_text(text, self._converts)))
        elif part.content_type in _FIELD_GROUPS:
            octets = folded(text, lambda: f"{part.content_type} at line {self._line(start)}").removesuffix(b"\r\n")
            self._changes.append(_Change(start, end, octets + b"\r\n" * text.endswith(b"\r\n")))
        elif part.encoding == "base64":
            self._changes.append(_Change(start, end, _rewrapped_base64(text)))
        elif part.encoding == "quoted-printable":
            self._changes.append(_Change(start, end, self._rewrapped_qp(text, start)))
        elif part.encoding and part.encoding not in _IDENTITY:
            name = part.encoding[:40].encode("ascii", "replace").decode()
            raise ValueError(
                f"{self._where(start)} has the Content-Transfer-Encoding {name}, which relayd does not know; "
                "use quoted-printable or base64"
            )
        elif part.content_type.startswith(("multipart/", "message/")):
            lacking = "without the boundaries that it names, " if is_lacking else ""
            raise ValueError(f"{self._where(start)} is in {part.content_type} {lacking}which cannot be encoded")
        else:
            self._encode(part, start, end)

    def _encode(self, part: _Part, start: int, end: int) -> None:
        text = self._content[start:end]
        is_text = part.content_type.startswith("text/")
        fields = _with_mime(part.fields, text) if part.is_message else part.fields
        fields = _with_encoding(fields, b"quoted-printable" if is_text else b"base64")
        if part is self._top:
            self._top_fields = fields
        else:
            if self._changes and self._changes[-1].start == part.start:
                self._changes.pop()
            header = b"".join([field.raw for field in fields]) + b"\r\n"
            self._changes.append(_Change(part.start, part.body_start, header))
            self._top_fields = _with_version(self._top_fields)
        octets = _quoted_printable(text) if is_text else _base64(text)
        self._changes.append(_Change(start, end, octets if end < len(self._content) or is_text else octets + b"\r\n"))

    def _rewrapped_qp(self, text: bytes, start: int) -> bytes:
        if self._converts:
            text = _EIGHT_BIT.sub(lambda found: b"=%02X" % found.group()[0], text)
        lines: list[bytes] = []
        for line in text.split(b"\r\n"):
            if len(line) <= MAX_LINE_OCTETS:
                lines.append(line)
                continue
            # White space at a line's end is not part of the text (RFC 2045 6.7).
            whole = line.rstrip(b" \t")
            inner = whole.removesuffix(b"=")
            pieces = _QP_PIECE.findall(inner)
            if sum([len(piece) for piece in pieces]) != len(inner):
                raise ValueError(f"{self._where(start)} is not quoted-printable, which it says it is")
            lines.append(b"=\r\n".join(pieces) + whole[len(inner) :])
        return b"\r\n".join(lines)

    def _cut_boundary(self, part: _Part, start: int, end: int) -> None:
        """White space behind a boundary means nothing (RFC 2046 5.1.1)."""
        self._check_may_change(part, start)
        line = self._content[start:end].rstrip(b" \t")
        if len(line) > MAX_LINE_OCTETS:
            raise ValueError(f"the boundary at line {self._line(start)} has over {MAX_LINE_OCTETS} octets")
        self._changes.append(_Change(start, end, line))

    def _check_may_change(self, part: _Part, start: int) -> None:
        if part.sealed_by:
            raise ValueError(
                f"{self._where(start)} is protected by {part.sealed_by}, which any change would break; "
                "make its lines shorter before it is signed or encrypted"
            )
        keys = [field.key for field in part.fields]
        for key, name in ((b"content-type", "Content-Type"), (b"content-transfer-encoding", _ENCODING.decode())):
            if keys.count(key) > 1:
                raise ValueError(f"{self._where(start)} has {keys.count(key)} {name} fields; take out all but one")
        if not part.is_readable:
            raise ValueError(f"{self._where(start)} has no empty line behind its header, or a line that is no field")

    def _where(self, start: int) -> str:
        return f"the part at line {self._line(start)}, with a line over {MAX_LINE_OCTETS} octets,"

    def _line(self, position: int) -> int:
        return self._content.count(b"\r\n", 0, position) + 1 + self._line_shift


def _part(
    fields: Iterable[Field], start: int, body_start: int, default_type: str, sealed_by: str | None, *, is_message: bool
) -> _Part:
    values = {field.key: field.value for field in reversed(tuple(fields))}
    kind, parameters = loose_header.parameters(values.get(b"content-type", b"").decode("latin-1"))
    found = _TYPE.match(kind)
    content_type = found.group() if found else default_type
    encoding = headers.without_comments(values.get(_ENCODING.lower(), b"")).decode("latin-1").strip().lower()
    boundary = parameters.get("boundary", "") if content_type.startswith("multipart/") else ""
    if content_type in _SEALED_TYPES:
        sealed_by = sealed_by or content_type
    for key in _SEALING_FIELDS:
        if is_message and key in values:
            sealed_by = sealed_by or "its own DKIM or ARC signature"
    return _Part(
        tuple(fields), start, body_start, content_type, encoding, boundary.encode("latin-1").rstrip(), sealed_by,
        is_message, is_readable=True,
    )  # fmt: skip


def _with_encoding(fields: tuple[Field, ...], encoding: bytes) -> tuple[Field, ...]:
    kept = [field for field in fields if field.key != _ENCODING.lower()]
    return (*kept, headers.made_field(_ENCODING, encoding))


def _with_version(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    if any(field.key == b"mime-version" for field in fields):
        return fields
    return (*fields, headers.made_field(b"MIME-Version", b"1.0"))


def _with_mime(fields: tuple[Field, ...], body: bytes) -> tuple[Field, ...]:
    """Without these an encoding means nothing (RFC 2045 4); what the text is written in is read from its octets."""
    fields = _with_version(fields)
    if any(field.key == b"content-type" for field in fields):
        return fields
    try:
        body.decode()
        charset = b"us-ascii" if body.isascii() else b"utf-8"
    except UnicodeDecodeError:
        charset = b"unknown-8bit"  # RFC 1428
    return (*fields, headers.made_field(b"Content-Type", b"text/plain; charset=" + charset))


def _quoted_printable(text: bytes) -> bytes:
    # The line end makes it write every line end, and every soft one, as CRLF.
    return binascii.b2a_qp(text + b"\r\n", istext=True)[:-2]


def _base64(octets: bytes) -> bytes:
    return _wrapped(binascii.b2a_base64(octets, newline=False))


def _rewrapped_base64(text: bytes) -> bytes:
    lines = text.split(b"\r\n")
    return b"\r\n".join([line if len(line) <= MAX_LINE_OCTETS else _wrapped(line) for line in lines])


def _wrapped(line: bytes, octets: int = _ENCODED_OCTETS, joint: bytes = b"\r\n") -> bytes:
    return joint.join([line[at : at + octets] for at in range(0, len(line), octets)])


def _skipped_text(text: bytes, is_ascii: bool) -> bytes:
    """What readers skip. A piece begins with a space, so that none looks like a boundary."""
    lines = (_EIGHT_BIT.sub(b"?", text) if is_ascii else text).split(b"\r\n")
    return b"\r\n".join([_wrapped(line, MAX_LINE_OCTETS - 1, b"\r\n ") for line in lines])


def _refusal(content: bytes) -> str:
    lines = content.split(b"\r\n")
    number, octets = next((number, len(line)) for number, line in enumerate(lines, 1) if len(line) > MAX_LINE_OCTETS)
    return (
        f"line {number} has {octets:,} octets; {MAX_LINE_OCTETS} are allowed, and this login wants longer refused: "
        "fold header fields, write text as quoted-printable, or relayd credential set LOGIN --long-lines reencode"
    )
