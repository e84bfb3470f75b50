"""Handlers for entries in doubt: list them, and decide what they are.

As with the other operations a filter acts only on a count that was confirmed, a page at a time.
"""

import asyncio
from dataclasses import replace
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from relayd.control.queue import EntryPage, ListEntries, page_of
from relayd.control.queue_operations import Operate, details
from relayd.control.route import SET_ACTOR, Context, Route, View
from relayd.control.selecting import Cursor
from relayd.errors import Refusal
from relayd.intake import resolving
from relayd.rules.states import LIVE, PendingReason, Status
from relayd.store import doubts, operation_audit, selection
from relayd.store.connection import Connection
from relayd.store.doubts import Decision, Doubt
from relayd.store.selection import Selection

_BATCH = 200
_SECONDS = 10.0
_HINT = "relayd queue uncertain list shows what is in doubt"


class Answer(StrEnum):
    """What became of the message, as the operator knows or decides."""

    SENT = "sent"
    RETRY = "retry"
    FAILED = "failed"


class Resolve(Operate):
    """Which doubts, and what they are: `sent`; to be sent (again) by `retry`; `failed`, which tells the sender."""

    answer: Annotated[Answer, Field(description="sent, retry or failed")]


class Resolved(View):
    """What was done. `selected` were in doubt, `changed` were decided by now."""

    answer: Answer
    selected: int
    changed: int
    needs_confirmation: bool
    left_alone: dict[Status, int]  # matched, and not in doubt
    cursor: str | None
    note: str | None


async def list_doubts(context: Context, request: ListEntries) -> EntryPage:
    """The oldest first."""
    return await page_of(context, request, PendingReason.UNCERTAIN)


async def resolve_doubts(context: Context, request: Resolve) -> Resolved:
    """Each is decided once: by the operator, or by a look at the upstream, whichever comes first."""
    cursor = Cursor.parse(request.cursor) if request.cursor else None
    chosen, selected, left_alone = await _choose(context, request, cursor)
    acts = cursor is not None or bool(request.ids) or request.any_count or request.confirm_count is not None
    if cursor is None:
        _check_count(request, selected, left_alone)
    changed, after = 0, None
    if acts and (selected or cursor is not None):
        changed, after = await _walk(context, request, chosen, cursor, selected)
        context.house.wake()
    return Resolved(
        answer=request.answer,
        selected=selected,
        changed=changed,
        needs_confirmation=not acts and selected > 0,
        left_alone=left_alone,
        cursor=str(after) if after else None,
        note=None,
    )


async def _choose(
    context: Context, request: Resolve, cursor: Cursor | None
) -> tuple[Selection, int, dict[Status, int]]:
    """The doubts that are meant, how many they are, and what else matches where ids say which."""
    wanted = replace(request.filter(), states=())
    async with context.reading() as connection:
        everything = await selection.resolve(connection, wanted, states=tuple(Status) if wanted.ids else LIVE)
        chosen = replace(everything, states=(Status.PENDING,), pending_reason=PendingReason.UNCERTAIN)
        if cursor is not None:
            return replace(chosen, created_before=cursor.created_before), 0, {}
        selected = (await selection.count(connection, chosen)).get(Status.PENDING, 0)
        others = await selection.count(connection, everything) if wanted.ids else {}
    if Status.PENDING in others:
        others[Status.PENDING] -= selected
    return chosen, selected, {status: many for status, many in others.items() if many}


def _check_count(request: Resolve, selected: int, left_alone: dict[Status, int]) -> None:
    if request.confirm_count is not None and request.confirm_count != selected:
        raise Refusal(
            f"{selected} entries are in doubt now, not {request.confirm_count}; nothing was changed",
            hint=f"if that is right: --count {selected}",
        )
    if request.ids and not selected:
        states = ", ".join(f"{many} {status}" for status, many in left_alone.items()) or "none matches"
        raise Refusal(f"nothing is in doubt: {states}; nothing was changed", hint=_HINT)


async def _walk(
    context: Context, request: Resolve, chosen: Selection, cursor: Cursor | None, selected: int
) -> tuple[int, Cursor | None]:
    """How many entries were decided, and where to go on if time ran out."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + _SECONDS
    changed, position = 0, cursor.position if cursor else None
    if cursor is None:
        # Before anything changes: a walk that is cut short has been audited all the same.
        async with context.writing() as connection:
            asked = details(request, selected)
            await operation_audit.record(connection, "email_queue", f"resolve as {request.answer}", asked)
    while True:
        async with context.reading() as connection:
            page = await selection.page(connection, chosen, after=position, limit=_BATCH)
            found = await doubts.of(connection, [each.entry_id for each in page])
        changed += len(await _decide(context, request, found)) if found else 0
        if len(page) < _BATCH:
            return changed, None
        position = page[-1]
        if clock() >= ends_at:
            return changed, Cursor.after(position, chosen, 0)


async def _decide(context: Context, request: Resolve, found: list[Doubt]) -> set[UUID]:
    status = {Answer.SENT: Status.SENT, Answer.RETRY: Status.QUEUED, Answer.FAILED: Status.FAILED}[request.answer]
    text = f"{request.answer}: an operator says so" + (f": {request.reason}" if request.reason else "")

    async def name_actor(connection: Connection) -> None:
        await connection.execute(SET_ACTOR, context.actor)

    changed, _ = await resolving.apply(
        context.house.database,
        context.house.bouncer,
        [Decision(doubt, status, text, text) for doubt in found],
        by_operator=True,
        first=name_actor,
    )
    return changed


ROUTES = (
    Route("GET", "/v1/queue/uncertain", list_doubts, "List entries in doubt", ListEntries, EntryPage),
    Route("POST", "/v1/queue/uncertain/resolve", resolve_doubts, "Say what became of doubts", Resolve, Resolved),
)
