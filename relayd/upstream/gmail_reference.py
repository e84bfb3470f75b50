"""The name under which an attempt is found at Gmail: its draft, the draft's thread, and the mark in its header."""

import re
from dataclasses import dataclass, replace
from typing import Self

_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class Reference:
    """`is_refused`: Gmail was told to send and did not, for certain."""

    draft_id: str
    thread_id: str
    mark: str
    is_refused: bool = False

    @classmethod
    def made(cls, draft_id: str, thread_id: str, mark: str) -> Self | None:
        """None where the draft's id is none that can be kept; of a thread's the look can do without."""
        if not _ID.fullmatch(draft_id):
            return None
        return cls(draft_id, thread_id if _ID.fullmatch(thread_id) else "", mark)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What str() gave; None for anything else."""
        match text.split(":"):
            case ["draft" | "refused" as kind, draft_id, thread_id, mark]:
                return cls(draft_id, thread_id, mark, is_refused=kind == "refused")
            case _:
                return None

    def refused(self) -> Self:
        """The same, and known not to have been sent."""
        return replace(self, is_refused=True)

    def __str__(self) -> str:
        return f"{'refused' if self.is_refused else 'draft'}:{self.draft_id}:{self.thread_id}:{self.mark}"
