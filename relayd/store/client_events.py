"""What a client's programs read of its mail's fate, in order and without a gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from relayd.store.connection import Connection

# "relac": apart from the other advisory locks.
_SPACE = 0x72656C63


class EventKind(StrEnum):
    """client_events.kind."""

    BOUNCED = "bounced"
    DELAYED = "delayed"
    RELAYED = "relayed"
    SUPPRESSED = "suppressed"
    COMPLAINED = "complained"
    REPLIED = "replied"


@dataclass(frozen=True, slots=True)
class NewClientEvent:
    """An event to be stored. `payload` is JSON; what holds for most kinds is in docs/bounces.md."""

    client_id: UUID
    kind: EventKind
    queue_id: UUID | None
    entry_id: UUID | None
    recipient: str | None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """A stored event. Ids rise, with gaps."""

    id: int
    kind: str
    queue_id: UUID | None
    entry_id: UUID | None
    recipient: str | None
    payload: dict[str, Any]
    created_at: datetime


# From here to the commit nobody else draws an id for these clients: what is committed later has a higher one.
LOCK = "SELECT pg_advisory_xact_lock($1, hashtext(id::text)) FROM (SELECT unnest($2::uuid[]) AS id ORDER BY 1) x"

# Ids are drawn in the order given. Index: client_events_pkey.
ADD = """
INSERT INTO client_events (client_id, kind, message_id, entry_id, recipient, payload)
SELECT client_id, kind, message_id, entry_id, recipient, payload
  FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::jsonb[])
       WITH ORDINALITY AS t (client_id, kind, message_id, entry_id, recipient, payload, place)
 ORDER BY place
"""

# $1 client, $2 after this id, $3 kinds or NULL. Index: client_events_client.
AFTER = """
SELECT id, kind, message_id AS queue_id, entry_id, recipient, payload, created_at FROM client_events
 WHERE client_id = $1 AND id > $2 AND ($3::text[] IS NULL OR kind = ANY($3))
 ORDER BY id LIMIT $4
"""

# Index: client_events_created_at.
PRUNE = """
DELETE FROM client_events WHERE id IN (
  SELECT id FROM client_events WHERE created_at < relayd_now() - $1::interval ORDER BY created_at LIMIT $2)
"""


async def add(connection: Connection, events: Sequence[NewClientEvent]) -> None:
    """Store them in this transaction, as its last deed but the commit: others of the same clients wait for it."""
    if not events:
        return
    await connection.execute(LOCK, _SPACE, list({event.client_id for event in events}))
    await connection.execute(
        ADD,
        [event.client_id for event in events],
        [event.kind for event in events],
        [event.queue_id for event in events],
        [event.entry_id for event in events],
        [event.recipient for event in events],
        [dict(event.payload) for event in events],
    )


async def after(
    connection: Connection, client_id: UUID, last_id: int, *, kinds: Sequence[EventKind] | None, limit: int
) -> list[ClientEvent]:
    """Up to `limit` events that came after that one, the oldest first. None that comes later has a lower id."""
    rows = await connection.fetch(AFTER, client_id, last_id, list(kinds) if kinds else None, limit)
    return [ClientEvent(**dict(row)) for row in rows]


async def prune(connection: Connection, age: timedelta, *, limit: int) -> int:
    """Remove up to `limit` that are older; returns how many."""
    return int((await connection.execute(PRUNE, age, limit)).split()[-1])
