"""Take a message's MIME structure apart into texts and attachments, within bounds, or say why that cannot be done.

The parser is Python's. It can be made slow, so what costs it time is counted first. It blocks: call in a thread.
"""

import codecs
import re
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32

MAX_PARTS = 500
# Each line is looked at once for every container around it.
MAX_CONTAINERS = 10
MAX_LINES = 1_000_000
MAX_FIELD_OCTETS = 4000

# One pass each: no two repetitions can share an octet.
_CONTENT_FIELD = re.compile(rb"^content-[a-z-]{1,40}:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*", re.IGNORECASE | re.MULTILINE)
_CONTAINERS = (b"content-type:multipart/", b"content-type:message/")
_ENCODINGS = frozenset({"", "7bit", "8bit", "binary", "quoted-printable", "base64"})
# Codecs that are no charset, and some that are, take time or memory out of all proportion.
_CHARSET = re.compile(
    r"utf-8|utf-16(-[lb]e)?|ascii|iso8859-\d+|cp\d+|koi8-[rtu]|gb2312|gbk|gb18030|big5(hkscs)?|shift_jis\w*"
    r"|euc_\w+|iso2022_\w+|tis-620|mac-\w+|hz"
)
TEXTS = ("text/plain", "text/x-amp-html", "text/html")


@dataclass(frozen=True, slots=True)
class Attachment:
    """`content` decoded. `content_id` is without its brackets; what has one is shown inside the text."""

    content: bytes
    type: str
    filename: str
    is_inline: bool
    content_id: str | None


@dataclass(slots=True)
class Parts:
    """`texts` by type, alternatives of each other; the attachments in their order."""

    texts: dict[str, str] = field(default_factory=dict)
    attachments: list[Attachment] = field(default_factory=list)


def take_apart(content: bytes) -> Parts:
    """Raises ValueError with a reason fit for a bounce where something would be lost."""
    _check_bounds(content)
    parts = Parts()
    try:
        _collect(BytesParser(policy=compat32).parsebytes(content), parts)
    except (RecursionError, LookupError, TypeError, AttributeError) as error:
        # What Python's parser stumbles over when a field is malformed.
        raise ValueError("its MIME structure cannot be read") from error
    if not parts.texts:
        raise ValueError("it has no text")
    return parts


def _check_bounds(content: bytes) -> None:
    if content.count(b"\n") > MAX_LINES:
        raise ValueError(f"it has more than {MAX_LINES} lines")
    containers = 0
    for place, found in enumerate(_CONTENT_FIELD.finditer(content)):
        if len(found.group()) > MAX_FIELD_OCTETS:
            raise ValueError(f"a field of its MIME parts has more than {MAX_FIELD_OCTETS} octets")
        containers += b"".join(found.group().split()).lower().startswith(_CONTAINERS)
        if containers > MAX_CONTAINERS or place > 4 * MAX_PARTS:
            raise ValueError("it has too many MIME parts")


def _collect(part: Message, parts: Parts) -> None:
    kind = part.get_content_type()
    if kind.startswith("message/"):
        raise ValueError(f"it holds a whole message ({kind})")
    if not part.is_multipart():
        if kind.startswith("multipart/"):
            raise ValueError("its MIME structure is broken")
        return _leaf(part, kind, parts)
    match kind:
        case "multipart/mixed":
            for child in _children(part):
                _collect(child, parts)
        case "multipart/alternative":
            if parts.texts:
                raise ValueError("it has alternatives beside its text")
            for child in _children(part):
                if child.get_content_type() not in (*TEXTS, "multipart/related"):
                    raise ValueError(f"an alternative of its text is {child.get_content_type()}")
                _alternative(child, parts)
        case "multipart/related":
            _alternative(part, parts)
        case _:
            raise ValueError(f"it is {kind}")
    return None


def _alternative(part: Message, parts: Parts) -> None:
    if not part.is_multipart():
        return _text(part, part.get_content_type(), parts)
    root, *related = _children(part) or [part]
    if root.get_content_type() == "multipart/alternative" and not parts.texts:
        _collect(root, parts)
    elif root.get_content_type() in TEXTS:
        _text(root, root.get_content_type(), parts)
    else:
        raise ValueError(f"what its parts belong to is {root.get_content_type()}")
    for child in related:
        if child.is_multipart():
            raise ValueError("its MIME parts are nested too deeply")
        _attach(child, child.get_content_type(), parts)
    return None


def _leaf(part: Message, kind: str, parts: Parts) -> None:
    is_body = kind in TEXTS and not parts.texts and part.get_content_disposition() != "attachment"
    if is_body and not part.get_filename():
        return _text(part, kind, parts)
    return _attach(part, kind, parts)


def _text(part: Message, kind: str, parts: Parts) -> None:
    if kind in parts.texts:
        raise ValueError(f"it has two texts of type {kind}")
    charset = str(part.get_content_charset() or "us-ascii")
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        name = ""
    if not _CHARSET.fullmatch(name):
        raise ValueError(f"the charset of its text is unknown: {charset[:40]}")
    octets = _decoded(part)
    try:
        # Text that says it is ASCII and is not is UTF-8, if it is anything.
        text = octets.decode("utf-8" if name == "ascii" else name)
    except UnicodeDecodeError:
        raise ValueError(f"its text is not valid {charset[:40]}") from None
    if "\0" in text:
        raise ValueError("its text holds NUL")
    parts.texts[kind] = text


def _attach(part: Message, kind: str, parts: Parts) -> None:
    if len(parts.attachments) >= MAX_PARTS:
        raise ValueError("it has too many MIME parts")
    content_id = str(part.get("Content-ID") or "").strip().removeprefix("<").removesuffix(">") or None
    extension = kind.partition("/")[2]
    name = part.get_filename() or f"part-{len(parts.attachments) + 1}.{'txt' if extension == 'plain' else extension}"
    parts.attachments.append(
        Attachment(
            content=_decoded(part),
            type=kind,
            filename="".join(character for character in name if character.isprintable())[:255],
            is_inline=part.get_content_disposition() != "attachment" and content_id is not None,
            content_id=content_id,
        )
    )


def _decoded(part: Message) -> bytes:
    encoding = str(part.get("Content-Transfer-Encoding") or "").strip().lower()
    if encoding not in _ENCODINGS:
        raise ValueError(f"the encoding of a part is unknown: {encoding[:40]}")
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes), "it is no container"
    return payload


def _children(part: Message) -> list[Message]:
    return [child for child in part.get_payload() if isinstance(child, Message)]
