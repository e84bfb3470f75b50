"""What travels beside the bytes: RFC 5321's envelope, and one transaction's worth of it."""

from dataclasses import dataclass
from uuid import UUID

from relayd.mail.address import Address


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message's envelope as submitted. `reverse_path` None is the null reverse-path `<>`."""

    reverse_path: Address | None
    forward_paths: tuple[Address, ...]
    smtputf8: bool = False
    body_8bitmime: bool = False


@dataclass(frozen=True, slots=True)
class Transmission:
    """One SMTP transaction to hand to an upstream: one message, some of its recipients.

    `content` ends lines in CRLF, is not dot-stuffed, holds no bare CR, LF or NUL, and is signed already.
    """

    queue_id: UUID
    reverse_path: Address | None
    recipients: tuple[Address, ...]
    content: bytes
    smtputf8: bool
    body_8bitmime: bool
