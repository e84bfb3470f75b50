"""What every way into an inbox offers."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from relayd.errors import RelaydError


class InboxError(RelaydError):
    """It cannot be read now; the text says why and what to do, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far an inbox was read. All None: never yet."""

    uid_validity: int | None = None
    last_uid: int | None = None
    read_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fresh:
    """A message that came since. `key` names it for ever; `position` is where reading stands once it is done with."""

    key: str
    header: bytes = field(repr=False)
    position: Position


class Unreadable(InboxError):
    """One message cannot be had. The next call of `fresh` goes on behind it."""

    def __init__(self, message: Fresh, text: str) -> None:
        super().__init__(text)
        self.message = message


class Inbox(Protocol):
    """One inbox, opened for one look at it."""

    async def fresh(self, most: int) -> tuple[list[Fresh], Position | None]:
        """Up to so many new messages, oldest first, behind those of the last call; the position once that is all.

        None in its place: there may be more. Raises InboxError; Unreadable where one message is in the way.
        """
        ...

    async def whole(self, message: Fresh, most_octets: int) -> bytes:
        """One of them, or so much of it. Raises InboxError; Unreadable where it may be this one's fault."""
        ...

    async def close(self) -> None:
        """Let go. Raises nothing."""
        ...
