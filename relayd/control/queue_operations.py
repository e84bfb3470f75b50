"""Handlers that hold, release, retry and cancel queue entries.

A filter is counted first and acts only on a count that was confirmed. Entries are changed in small transactions, and a
request works for a few seconds at most: where more is left, its answer carries a cursor to go on from.
"""

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from relayd.control.queue import lookback_note
from relayd.control.route import Context, Route, View
from relayd.control.selecting import Cursor, Selecting
from relayd.control.values import Line
from relayd.errors import Refusal
from relayd.rules.states import Status
from relayd.store import operation_audit, selection, suppressions
from relayd.store.operations import Operation, acts_on, operate
from relayd.store.selection import Filter, Position, Selection

_BATCH = 1000
_SECONDS = 10.0
_MOST_NAMED = 20  # suppressed recipients in an answer


class Operate(Selecting):
    """What to act on. By filter: first without a count, then with the one that was answered."""

    confirm_count: Annotated[int | None, Field(ge=0, description="Act only if so many entries match")] = None
    any_count: Annotated[bool, Field(description="Act on however many match")] = False
    reason: Annotated[Line | None, Field(description="For the log, and for who looks later")] = None
    cursor: Annotated[str | None, Field(max_length=200, description="Go on with what was confirmed before")] = None

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if self.filter().is_empty:
            raise ValueError("say which entries: ids, or a filter; states=['queued'] means all that are queued")
        return self


class Retry(Operate):
    """As the others; `failed_too` brings back what failed or bounced."""

    failed_too: Annotated[bool, Field(description="Also failed and bounced entries, with a fresh budget")] = False
    suppressed_too: Annotated[
        bool,
        Field(description="Also those whose recipient is suppressed; without it nothing is changed if there are any"),
    ] = False


class SuppressedView(View):
    """A recipient that is on the suppression list of its client."""

    recipient: str
    client: str
    reason: str
    expires_at: datetime | None


class Operated(View):
    """What was done. `selected` were in a state for it, `changed` were changed by now.

    `suppressed_count` entries would be retried to a suppressed recipient; `suppressed` names some of them.
    """

    operation: Operation
    selected: int
    changed: int
    needs_confirmation: bool
    left_alone: dict[Status, int]  # matched, but in a state that this does not act on
    cursor: str | None
    note: str | None
    suppressed_count: int = 0
    suppressed: tuple[SuppressedView, ...] = ()


async def hold_entries(context: Context, request: Operate) -> Operated:
    """Queued entries wait until they are released."""
    return await _operate(context, Operation.HOLD, request)


async def release_entries(context: Context, request: Operate) -> Operated:
    """Held entries, and those in doubt, are due at once; scheduled ones only where they are named by id."""
    return await _operate(context, Operation.RELEASE, request)


async def retry_entries(context: Context, request: Retry) -> Operated:
    """Deferred entries are due at once."""
    asks = request.failed_too and not request.suppressed_too and request.cursor is None
    return await _operate(context, Operation.RETRY, request, failed_too=request.failed_too, asks_of_suppressed=asks)


async def cancel_entries(context: Context, request: Operate) -> Operated:
    """What waits fails, and nobody is told."""
    return await _operate(context, Operation.CANCEL, request)


async def _operate(
    context: Context,
    operation: Operation,
    request: Operate,
    *,
    failed_too: bool = False,
    asks_of_suppressed: bool = False,
) -> Operated:
    wanted = request.filter()
    targets = acts_on(operation, failed_too=failed_too)
    cursor = Cursor.parse(request.cursor) if request.cursor else None
    chosen, counts = await _choose(context, operation, wanted, targets, cursor)
    selected = sum(counts.get(status, 0) for status in targets)
    left_alone = {status: many for status, many in counts.items() if status not in targets}
    acts = cursor is not None or bool(wanted.ids) or request.any_count or request.confirm_count is not None
    if cursor is None:
        _check_count(operation, request, wanted, selected, left_alone)
    count = 0
    suppressed: list[SuppressedView] = []
    if asks_of_suppressed and selected:
        count, suppressed = await _suppressed(context, chosen)
    acts = acts and not count
    changed, after = 0, None
    if acts and (selected or cursor is not None):
        walk = selection.only(chosen, targets)
        changed, after = await _walk(context, operation, request, walk, cursor, selected, failed_too=failed_too)
        context.house.wake()
    return Operated(
        operation=operation,
        selected=selected,
        changed=changed,
        needs_confirmation=not acts and selected > 0,
        left_alone=left_alone,
        cursor=str(after) if after else None,
        note=lookback_note(selection.only(chosen, targets)),
        suppressed_count=count,
        suppressed=tuple(suppressed),
    )


async def _suppressed(context: Context, chosen: Selection) -> tuple[int, list[SuppressedView]]:
    """How many of the failed and bounced entries have a suppressed recipient, and some of these."""
    ended = selection.only(chosen, (Status.FAILED, Status.BOUNCED))
    count = 0
    some: list[SuppressedView] = []
    position: Position | None = None
    while True:
        async with context.reading() as connection:
            page = await selection.page(connection, ended, after=position, limit=_BATCH)
            found = await suppressions.of_entries(connection, [each.entry_id for each in page])
            owners = await suppressions.clients_of(connection, list(found)[: _MOST_NAMED - len(some)])
        count += len(found)
        some += [
            SuppressedView(
                recipient=line.address, client=owners[entry_id], reason=line.reason, expires_at=line.expires_at
            )
            for entry_id, line in found.items()
            if entry_id in owners
        ]
        if len(page) < _BATCH:
            return count, some
        position = page[-1]


async def _choose(
    context: Context, operation: Operation, wanted: Filter, targets: tuple[Status, ...], cursor: Cursor | None
) -> tuple[Selection, dict[Status, int]]:
    """What is meant, and how many of it are in which state. By filter, states besides `targets` are not looked at:
    nobody is surprised that sent mail is not held. What is in flight is told, since it may come back."""
    states = tuple(Status) if wanted.ids else (*targets, Status.SENDING)
    if wanted.states and not set(wanted.states) & set(targets):
        named = ", ".join(wanted.states)
        raise Refusal(
            f"{operation} acts on entries that are {' or '.join(targets)}, not on {named}", hint=_hint(operation)
        )
    async with context.reading() as connection:
        chosen = await selection.resolve(connection, wanted, states=states)
        if operation is Operation.RETRY and not wanted.ids:
            # What somebody cancelled comes back only when it is named.
            chosen = replace(chosen, includes_cancelled=False)
        if cursor is not None:
            return replace(chosen, created_before=cursor.created_before), {}
        return chosen, await selection.count(connection, chosen)


def _check_count(
    operation: Operation, request: Operate, wanted: Filter, selected: int, left_alone: dict[Status, int]
) -> None:
    if request.confirm_count is not None and request.confirm_count != selected:
        raise Refusal(
            f"{selected} entries match now, not {request.confirm_count}; nothing was changed",
            hint=f"if that is right: --count {selected}",
        )
    if wanted.ids and not selected:
        states = ", ".join(f"{many} {status}" for status, many in left_alone.items()) or "none matches"
        raise Refusal(f"nothing to {operation}: {states}; nothing was changed", hint=_hint(operation))


async def _walk(
    context: Context,
    operation: Operation,
    request: Operate,
    chosen: Selection,
    cursor: Cursor | None,
    selected: int,
    *,
    failed_too: bool,
) -> tuple[int, Cursor | None]:
    """How many entries were changed, and where to go on if time ran out."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + _SECONDS
    changed, position = 0, cursor.position if cursor else None
    while True:
        async with context.writing() as connection:
            if position is None:
                # Before anything changes: a walk that is cut short has been audited all the same.
                await operation_audit.record(connection, "email_queue", operation, details(request, selected))
            page = await selection.page(connection, chosen, after=position, limit=_BATCH)
            ids = [found.entry_id for found in page]
            changed += await operate(
                connection,
                operation,
                ids,
                reason=request.reason,
                failed_too=failed_too,
                # Nobody who lets go what is held means to send early what was to be sent later.
                scheduled_too=bool(request.ids),
            )
        if len(page) < _BATCH:
            return changed, None
        position = page[-1]
        if clock() >= ends_at:
            return changed, Cursor.after(position, chosen, 0)


def details(request: Operate, selected: int) -> dict[str, object]:
    """What the audit trail keeps of a request."""
    asked = request.model_dump(mode="json", exclude_defaults=True, exclude={"confirm_count", "any_count", "cursor"})
    return {"selected": selected, **asked}


def _hint(operation: Operation) -> str | None:
    match operation:
        case Operation.HOLD:
            return "what is being sent cannot be held; what is pending waits already"
        case Operation.RELEASE:
            return "relayd queue list --state pending shows what is held"
        case Operation.RETRY:
            return "failed and bounced entries: relayd queue retry --failed; held ones: relayd queue release"
        case Operation.CANCEL:
            return "what is being sent, or has ended, cannot be cancelled"


ROUTES = (
    Route("POST", "/v1/queue/hold", hold_entries, "Hold queued entries", Operate, Operated),
    Route("POST", "/v1/queue/release", release_entries, "Release held entries", Operate, Operated),
    Route("POST", "/v1/queue/retry", retry_entries, "Make entries due now", Retry, Operated),
    Route("POST", "/v1/queue/cancel", cancel_entries, "Cancel entries that wait", Operate, Operated),
)
