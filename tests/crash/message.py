"""The messages of the load: made from a number alone, so that whoever sees one knows how it must look."""

import hashlib
import re

_FIRST_FIELD = b"X-Load: "
_NUMBER = re.compile(rb"^X-Load: (\d+)\r$", re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^Message-ID: <([0-9a-f-]{36})@", re.MULTILINE)


def compose(number: int, sender: str, recipient: str, octets: int) -> bytes:
    """The content, about so long; with a line that begins with a dot, and octets above 127."""
    head = f"X-Load: {number}\r\nFrom: {sender}\r\nTo: {recipient}\r\nSubject: message {number}\r\n\r\n".encode()
    line = b".%d \xc3\xa9t\xc3\xa9 %s\r\n" % (number, hashlib.sha256(b"%d" % number).hexdigest().encode())
    return head + line * max(1, (octets - len(head)) // len(line))


def digest(content: bytes) -> str:
    """Of the content as it was handed in: what relayd adds stands in front of it."""
    start = content.find(_FIRST_FIELD)
    return hashlib.sha256(content[max(start, 0) :]).hexdigest()


def number_of(content: bytes) -> int | None:
    """The load's number; None for what the load did not make, a DSN that quotes one included."""
    found = _NUMBER.search(_header(content))
    return int(found[1]) if found else None


def queue_id_of(content: bytes) -> str | None:
    """The queue id, from the Message-ID that relayd gives to what has none."""
    found = _MESSAGE_ID.search(_header(content))
    return found[1].decode() if found else None


def _header(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[0] + b"\r\n"
