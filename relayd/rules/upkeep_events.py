"""What the chores did that an operator may want to know. Metrics count these and the mail log writes them."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from relayd.rules.doubt import Sight


class Way(StrEnum):
    """Which way a stage went."""

    ON = "on"
    HELD = "held"
    LOWERED = "lowered"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class WarmUpTurned:
    """A warming mailbox's day has turned. `note` says why its stage was held or lowered, None if it went on."""

    mailbox: str
    client: str
    stage_before: int
    stage: int
    daily_limit: int
    note: str | None
    completed: bool

    @property
    def way(self) -> Way:
        """Which way the stage went."""
        if self.completed:
            return Way.COMPLETED
        if self.stage < self.stage_before:
            return Way.LOWERED
        return Way.ON if self.stage > self.stage_before else Way.HELD


@dataclass(frozen=True, slots=True)
class MailboxPaused:
    """relayd itself has paused a mailbox, for what became of its mail."""

    mailbox: str
    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class PoolMailMoved:
    """Queued entries went to another mailbox of their pool, since theirs could not send."""

    from_mailbox: str
    to_mailbox: str
    entries: int
    reason: str


class LookResult(StrEnum):
    """What a look made of an entry in doubt."""

    SENT = "sent"
    RETRY = "retry"
    HELD = "held"
    FAILED = "failed"
    LOOK_AGAIN = "look_again"


@dataclass(frozen=True, slots=True)
class DoubtLookedInto:
    """An attempt in doubt was looked for at its upstream."""

    queue_id: UUID
    entry_id: UUID
    recipient: str
    upstream: str
    sight: Sight
    conclusion: LookResult
    text: str


@dataclass(frozen=True, slots=True)
class MailRerouted:
    """Entries that waited go another way, as routes or lists say now."""

    entries: int


UpkeepEvent = WarmUpTurned | MailboxPaused | PoolMailMoved | DoubtLookedInto | MailRerouted
