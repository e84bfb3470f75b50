"""How a peer says which queue entries it means, and where a walk through them goes on."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field

from relayd.control.route import Request
from relayd.control.values import AnyId, Duration, Key, Recipients
from relayd.errors import BadValue
from relayd.rules.duration import parse_duration
from relayd.rules.states import Status
from relayd.store.selection import Filter, Position, Selection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


class Selecting(Request):
    """Ids, or criteria that must all hold."""

    ids: Annotated[tuple[AnyId, ...], Field(max_length=1000, description="Of messages (queue ids) or of entries")] = ()
    states: tuple[Status, ...] = ()
    mailbox: Key | None = None
    domain: Annotated[Key | None, Field(description="The sender's")] = None
    recipient: Recipients | None = None
    older_than: Duration | None = None
    younger_than: Duration | None = None
    client: Key | None = None
    upstream: Key | None = None

    def filter(self) -> Filter:
        """As the store takes it."""
        return Filter(
            ids=tuple(dict.fromkeys(self.ids)),
            states=tuple(dict.fromkeys(self.states)),
            mailbox=self.mailbox,
            domain=self.domain,
            recipient=self.recipient,
            older_than=parse_duration(self.older_than) if self.older_than else None,
            younger_than=parse_duration(self.younger_than) if self.younger_than else None,
            client=self.client,
            upstream=self.upstream,
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a walk stands, how far it has come, and the moment it began: what came later is not part of it."""

    position: Position
    created_before: datetime
    done: int

    @classmethod
    def after(cls, position: Position, selection: Selection, done: int) -> Self:
        """The cursor of a walk that has got to `position`."""
        return cls(position, selection.created_before, done)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadValue for what no walk gave out."""
        try:
            status, created, entry_id, before, done = text.split(".")
            position = Position(Status(status), _instant(created), UUID(entry_id))
            return cls(position, _instant(before), int(done, 16))
        except (ValueError, OverflowError):
            raise BadValue("the cursor is not one that relayd gave; leave it out to begin at the start") from None

    def __str__(self) -> str:
        at = self.position
        created, before = _ticks(at.created_at), _ticks(self.created_before)
        return f"{at.status}.{created:x}.{at.entry_id.hex}.{before:x}.{self.done:x}"


def _ticks(when: datetime) -> int:
    return (when - _EPOCH) // _TICK


def _instant(text: str) -> datetime:
    return _EPOCH + int(text, 16) * _TICK
