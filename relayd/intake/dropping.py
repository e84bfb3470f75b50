"""Recipients that are taken and dropped, where a client wants no refusal: stored, and ended at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from relayd.intake import suppression
from relayd.intake.submission import Identity
from relayd.intake.suppression import Suppressions
from relayd.rules.relay_events import RecipientDropped
from relayd.store import client_events, queue, suppressed
from relayd.store.client_events import EventKind, NewClientEvent
from relayd.store.connection import Connection
from relayd.store.queue import NewEntry, NewMessage
from relayd.store.suppressed import SuppressedRecipient


@dataclass(frozen=True, slots=True)
class Dropped:
    """An entry that ends as it is stored, and why."""

    entry: NewEntry
    why: SuppressedRecipient

    def told(self, message: NewMessage) -> RecipientDropped:
        """For the log and metrics."""
        return RecipientDropped(
            message.queue_id, self.entry.entry_id, self.why.client, str(self.entry.recipient), self.why.reason
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message to be committed, and those of its entries that end with that."""

    message: NewMessage
    dropped: tuple[Dropped, ...] = ()


async def dropped_among(
    suppressions: Suppressions, identity: Identity, entries: Sequence[NewEntry]
) -> tuple[Dropped, ...]:
    """Those of the entries that are to be dropped. One that was suppressed after its RCPT was taken goes its way where
    such are refused. Raises StoreUnavailable."""
    found = await suppressions.among(identity, [entry.recipient for entry in entries])
    by_key = {each.address.key: each for each in found if each.is_dropped}
    if not by_key:
        return ()
    return tuple(Dropped(entry, by_key[entry.recipient.key]) for entry in entries if entry.recipient.key in by_key)


def leaving(entries: Sequence[NewEntry], dropped: Sequence[Dropped]) -> tuple[NewEntry, ...]:
    """Those of the entries that are not dropped."""
    ended = {each.entry.entry_id for each in dropped}
    return tuple(entry for entry in entries if entry.entry_id not in ended)


async def enqueue(connection: Connection, batch: Sequence[Prepared]) -> None:
    """As `queue.enqueue`, with the ends of what is dropped. Call inside a transaction."""
    await queue.enqueue(connection, [prepared.message for prepared in batch])
    ends = [(prepared.message, each) for prepared in batch for each in prepared.dropped]
    await suppressed.drop(connection, [(each.entry.entry_id, suppression.why(each.why)) for _, each in ends])
    await client_events.add(connection, [_event(message, each) for message, each in ends if each.why.wants_event])


def _event(message: NewMessage, dropped: Dropped) -> NewClientEvent:
    payload = {
        "reason": dropped.why.reason,
        "suppressed_at": dropped.why.since.isoformat(),
        "reverse_path": str(message.reverse_path or ""),
        "message_id": message.message_id_header,
        "subject": message.subject,
    }
    entry = dropped.entry
    return NewClientEvent(
        message.client_id, EventKind.SUPPRESSED, message.queue_id, entry.entry_id, str(entry.recipient), payload
    )
