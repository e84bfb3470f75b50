"""What travels beside the bytes: RFC 5321's envelope, and one transaction's worth of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

from relayd.mail.address import Address


@dataclass(frozen=True, slots=True)
class RecipientNotice:
    """What the submitter asks to be told of one recipient (RFC 3461 4.1, 4.2). None: nothing was said.

    `notify` is NEVER or a comma-separated list of SUCCESS, FAILURE and DELAY; `orcpt` is `type;xtext`, as it came.
    """

    notify: str | None = None
    orcpt: str | None = None


NOTHING_SAID = RecipientNotice()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message's envelope as submitted. `reverse_path` None is the null reverse-path `<>`.

    `notices` is empty or has one for each of `forward_paths`. `dsn_ret` is FULL or HDRS (RFC 3461 4.3); `envelope_id`
    is ENVID in xtext, as it came (4.4).
    """

    reverse_path: Address | None
    forward_paths: tuple[Address, ...]
    smtputf8: bool = False
    body_8bitmime: bool = False
    notices: tuple[RecipientNotice, ...] = ()
    dsn_ret: str | None = None
    envelope_id: str | None = None


async def keep_nothing(reference: str) -> None:
    """For a transmission that nobody will ask about."""


@dataclass(slots=True)
class Reached:
    """How far an upstream has come, for a caller that cuts it off: the value of a rules.outcome.Stage.

    An upstream that does not say so may have sent the message.
    """

    stage: str = "dot"


@dataclass(frozen=True, slots=True)
class Transmission:
    """One SMTP transaction to hand to an upstream: one message, some of its recipients.

    `content` ends lines in CRLF, is not dot-stuffed, holds no bare CR, LF or NUL, and is signed already. `mailbox` is
    the sending account, where it is known. `notices` is empty or has one for each of `recipients`.
    `keep_reference` makes durable, before the upstream is told to send, under what name to look there afterwards; it
    raises StoreUnavailable, and then nothing may be sent.
    """

    queue_id: UUID
    reverse_path: Address | None
    recipients: tuple[Address, ...]
    content: bytes
    smtputf8: bool
    body_8bitmime: bool
    mailbox: Address | None = None
    notices: tuple[RecipientNotice, ...] = ()
    dsn_ret: str | None = None
    envelope_id: str | None = None
    keep_reference: Callable[[str], Awaitable[None]] = keep_nothing
    reached: Reached = field(default_factory=Reached, compare=False)
