"""Handlers that look at the queue."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.selecting import Cursor, Selecting
from relayd.control.values import AnyId
from relayd.rules.duration import span_in_words
from relayd.rules.states import LIVE, PendingReason, Status
from relayd.store import entries, messages, selection

_LOG_ROWS = 200


class ListEntries(Selecting):
    """Live entries unless ids or states say otherwise."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    cursor: Annotated[str | None, Field(max_length=200)] = None


class EntryView(View):
    """A queue entry."""

    entry_id: UUID
    queue_id: UUID
    client: str
    mailbox: str
    upstream: str | None
    reverse_path: str
    recipient: str
    subject: str
    size_octets: int
    status: str
    reason: str | None
    pending_reason: str | None
    retry_count: int
    max_retries: int
    next_attempt_at: datetime
    first_attempt_at: datetime | None
    claimed_by: str | None
    attempt_started_at: datetime | None
    lease_expires_at: datetime | None
    provider_message_id: str | None
    sent_at: datetime | None
    failed_at: datetime | None
    bounced_at: datetime | None
    created_at: datetime
    look_at: datetime | None  # in doubt: when relayd looks for it at the upstream, null: never
    looks: int


class LogView(View):
    """One event of an entry's life."""

    entry_id: UUID
    at: datetime
    event: str
    attempt: int | None
    late: bool
    stage: str | None
    error_code: int | None
    enhanced_code: str | None
    text: str | None
    upstream: str | None
    provider: str | None
    actor: str | None


class EntryPage(View):
    """Some of the entries; `more` are left, from `cursor` on."""

    items: list[EntryView]
    total: int
    more: int
    cursor: str | None
    note: str | None
    now: datetime


class ShowEntries(Request):
    """A message's entries, or one entry."""

    id: AnyId
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ShownEntries(View):
    """Entries of one message with their log, oldest event first."""

    queue_id: UUID
    entries: list[EntryView]
    total: int
    log: list[LogView]
    now: datetime


async def list_entries(context: Context, request: ListEntries) -> EntryPage:
    """Live ones oldest first, then ended ones newest first."""
    return await page_of(context, request, None)


async def page_of(context: Context, request: ListEntries, pending_reason: PendingReason | None) -> EntryPage:
    """Of all entries, or of those that are pending for this reason."""
    cursor = Cursor.parse(request.cursor) if request.cursor else None
    wanted = request.filter()
    async with context.reading() as connection:
        chosen = await selection.resolve(connection, wanted, states=tuple(Status) if wanted.ids else LIVE)
        if pending_reason is not None:
            chosen = replace(chosen, states=(Status.PENDING,), pending_reason=pending_reason)
        now = chosen.read_at
        if cursor is not None:
            chosen = replace(chosen, created_before=cursor.created_before)
        total = sum((await selection.count(connection, chosen)).values())
        after = cursor.position if cursor else None
        page = await selection.page(connection, chosen, after=after, limit=request.limit)
        found = await entries.by_ids(connection, [position.entry_id for position in page])
    shown = (cursor.done if cursor else 0) + len(page)
    is_last = len(page) < request.limit or shown >= total
    return EntryPage(
        items=[EntryView.model_validate(entry) for entry in found],
        total=total,
        more=0 if is_last else total - shown,
        cursor=None if is_last else str(Cursor.after(page[-1], chosen, shown)),
        note=lookback_note(chosen),
        now=now,
    )


async def show_entries(context: Context, request: ShowEntries) -> ShownEntries:
    """By a message's id or an entry's."""
    async with context.reading() as connection:
        ids, total = await entries.ids_of(connection, request.id, limit=request.limit)
        found = await entries.by_ids(connection, ids)
        log = await entries.log(connection, ids, newest=_LOG_ROWS)
        now = await messages.now(connection)
    return ShownEntries(
        queue_id=found[0].queue_id,
        entries=[EntryView.model_validate(entry) for entry in found],
        total=total,
        log=[LogView.model_validate(row) for row in log],
        now=now,
    )


def lookback_note(chosen: selection.Selection) -> str | None:
    """What to say where ended entries were looked for in a span that nobody asked for."""
    if chosen.looks_back is None:
        return None
    return f"ended entries of the last {span_in_words(chosen.looks_back)}; --younger-than looks further back"


ROUTES = (
    Route("GET", "/v1/queue", list_entries, "List queue entries", ListEntries, EntryPage),
    Route("GET", "/v1/queue/{id}", show_entries, "Show a message's entries or one entry", ShowEntries, ShownEntries),
)
