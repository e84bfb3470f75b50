"""A token source that fetches from nowhere: it hands out what a test put into it."""

from collections import deque
from dataclasses import dataclass, field

from relayd.errors import RelaydError


@dataclass
class Tokens:
    """Gives the first of `waiting` until it is refused, then the next; the last one stays. Or raises `error`."""

    waiting: "deque[str]" = field(default_factory=lambda: deque(["token"]))
    error: RelaydError | None = None
    refusals: list[str] = field(default_factory=list)
    subjects: list[str | None] = field(default_factory=list)

    async def token(self, subject: str | None = None) -> str:
        self.subjects.append(subject)
        if self.error is not None:
            raise self.error
        return self.waiting[0]

    async def refused(self, token: str, subject: str | None = None) -> None:
        self.refusals.append(token)
        if len(self.waiting) > 1 and self.waiting[0] == token:
            self.waiting.popleft()

    async def close(self) -> None:
        """Nothing is under way."""
