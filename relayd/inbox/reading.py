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


class Inbox(Protocol):
    """One inbox, opened."""

    async def fresh(self, most: int) -> tuple[list[Fresh], Position]:
        """Up to so many new messages, oldest first, and the position when there is none. Raises InboxError."""
        ...

    async def whole(self, message: Fresh, most_octets: int) -> bytes:
        """One of them, or so much of it. Raises InboxError."""
        ...

    async def close(self) -> None:
        """Let go. Raises nothing."""
        ...
