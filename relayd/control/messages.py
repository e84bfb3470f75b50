"""Handlers for messages: find them, look at them, take their bytes, send them again."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import Field

from relayd.control.queue import EntryView, LogView
from relayd.control.route import Context, Octets, Request, Route, View
from relayd.control.values import AnyId, EmailAddress, Instant, Key, Line, Recipients
from relayd.errors import BadValue
from relayd.mail.address import Address
from relayd.rules.states import Status
from relayd.store import entries, lanes, messages, operation_audit
from relayd.store.messages import Search
from relayd.store.queue import enqueue

_LOOKS_BACK = timedelta(days=7)
_LOG_ROWS = 200


class FindMessages(Request):
    """What to look for; what is given must all hold."""

    recipient: Recipients | None = None
    sender: Annotated[Recipients | None, Field(description="Header From or reverse-path; or @domain")] = None
    subject: Annotated[Line | None, Field(description="A part of it, in any case")] = None
    message_id: Annotated[Key | None, Field(description="Message-ID, with angle brackets or without")] = None
    since: Instant | None = None
    until: Instant | None = None
    state: Annotated[Status | None, Field(description="Of at least one of its recipients")] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50


class MessageView(View):
    """A message, without its bytes."""

    queue_id: UUID
    client: str
    mailbox: str
    credential: str | None
    origin: str
    reverse_path: str
    header_from: str
    message_id_header: str
    subject: str
    size_octets: int
    smtputf8: bool
    body_8bitmime: bool
    parent_id: UUID | None
    helo: str
    peer: str
    created_at: datetime
    states: dict[str, int]


class FoundMessages(View):
    """Newest first; `more` tells that the limit cut the list."""

    items: list[MessageView]
    more: bool
    note: str | None


class ShowMessage(Request):
    """By its queue id, or the id of one of its entries."""

    id: AnyId
    limit: Annotated[int, Field(ge=1, le=1000, description="Entries to show")] = 100


class ShownMessage(View):
    """A message with its entries and their log, oldest event first."""

    message: MessageView
    entries: list[EntryView]
    total: int
    log: list[LogView]
    now: datetime


class NamedMessage(Request):
    """By its queue id, or the id of one of its entries."""

    id: AnyId


class Resend(Request):
    """Which of a message's recipients get it again; none means all."""

    id: AnyId
    recipients: Annotated[tuple[EmailAddress, ...], Field(max_length=10_000)] = ()


class Resent(View):
    """The new message."""

    queue_id: UUID
    parent_id: UUID
    recipients: list[str]


async def find_messages(context: Context, request: FindMessages) -> FoundMessages:
    """Newest first. Without a recipient, a Message-ID or a time, the last seven days."""
    if request.since and request.until and request.since > request.until:
        raise BadValue("since is later than until")
    search = Search(
        recipient=request.recipient,
        sender=request.sender,
        subject=request.subject,
        message_id_header=request.message_id,
        since=request.since,
        until=request.until,
        state=request.state,
    )
    is_selective = request.message_id or (request.recipient and not request.recipient.startswith("@"))
    is_bounded = bool(request.since or is_selective)
    async with context.reading() as connection:
        if not is_bounded:
            search = replace(search, since=(request.until or await messages.now(connection)) - _LOOKS_BACK)
        found = await messages.find(connection, search, limit=request.limit + 1)
        items = await messages.by_ids(connection, found[: request.limit])
    return FoundMessages(
        items=[MessageView.model_validate(item) for item in items],
        more=len(found) > request.limit,
        note=None if is_bounded else f"looked since {search.since:%Y-%m-%d %H:%M}Z (7 days); --since looks further",
    )


async def show_message(context: Context, request: ShowMessage) -> ShownMessage:
    """Its facts, entries and log."""
    async with context.reading() as connection:
        queue_id = await messages.queue_id_of(connection, request.id)
        (message,) = await messages.by_ids(connection, [queue_id])
        ids, total = await entries.ids_of(connection, queue_id, limit=request.limit)
        found = await entries.by_ids(connection, ids)
        log = await entries.log(connection, ids, newest=_LOG_ROWS)
        now = await messages.now(connection)
    return ShownMessage(
        message=MessageView.model_validate(message),
        entries=[EntryView.model_validate(entry) for entry in found],
        total=total,
        log=[LogView.model_validate(row) for row in log],
        now=now,
    )


async def export_message(context: Context, request: NamedMessage) -> Octets:
    """The stored bytes, exactly."""
    async with context.reading() as connection:
        return Octets(content=await messages.content(connection, await messages.queue_id_of(connection, request.id)))


async def resend_message(context: Context, request: Resend) -> Resent:
    """A new message of the same bytes; it has been committed."""
    recipients = tuple(Address.parse(recipient) for recipient in request.recipients)
    async with context.writing() as connection:
        queue_id = await messages.queue_id_of(connection, request.id)
        copy = await messages.copy_of(connection, queue_id, recipients=recipients)
        await enqueue(connection, [copy])
        names = [str(entry.recipient) for entry in copy.entries]
        details = {"message": str(queue_id), "resent_as": str(copy.queue_id), "recipients": len(names)}
        await operation_audit.record(connection, "messages", "resend", details)
    # Not above: waking makes its own commit light, and this one must be on the disk.
    async with context.writing() as connection:
        await lanes.wake(connection, sorted(copy.lane_ids))
    context.house.wake()
    return Resent(queue_id=copy.queue_id, parent_id=queue_id, recipients=names)


ROUTES = (
    Route("GET", "/v1/messages", find_messages, "Find messages", FindMessages, FoundMessages),
    Route("GET", "/v1/messages/{id}", show_message, "Show a message", ShowMessage, ShownMessage),
    Route("GET", "/v1/messages/{id}/content", export_message, "A message's stored bytes", NamedMessage, Octets),
    Route("POST", "/v1/messages/{id}/resend", resend_message, "Send a message again", Resend, Resent),
)
