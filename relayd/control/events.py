"""The handler for what a client's programs read of its mail's fate."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.values import Key
from relayd.store import client_events, clients
from relayd.store.client_events import EventKind


class ListEvents(Request):
    """A client's events after one of them, the oldest first."""

    client: Key
    after: Annotated[int, Field(ge=0, le=(1 << 63) - 1, description="The id of the last one that was read")] = 0
    kinds: Annotated[tuple[EventKind, ...], Field(max_length=20)] = ()
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100


class EventView(View):
    """What happened to one recipient of a message."""

    id: int
    kind: str
    queue_id: UUID | None
    entry_id: UUID | None
    recipient: str | None
    payload: dict[str, Any]
    created_at: datetime


class EventList(View):
    """The oldest first. `last`: the id to go on after, that of the request if there was nothing new."""

    items: list[EventView]
    last: int


async def list_events(context: Context, request: ListEvents) -> EventList:
    """None that comes later has a lower id than those that are shown."""
    async with context.reading() as connection:
        client = await clients.find(connection, request.client)
        found = await client_events.after(
            connection, client.id, request.after, kinds=request.kinds, limit=request.limit
        )
    last = found[-1].id if found else request.after
    return EventList(items=[EventView.model_validate(each) for each in found], last=last)


ROUTES = (Route("GET", "/v1/events", list_events, "List a client's events", ListEvents, EventList),)
