"""Handler of `explain`: for each entry where it is, why it waits, when it goes, and what happened so far."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from relayd.control.queue import LogView
from relayd.control.route import Context, Request, Route, View
from relayd.control.values import AnyId
from relayd.rules.budget import Budget
from relayd.rules.explain import Where, explain
from relayd.store import entries, explanation, messages

_LOG_ROWS = 100


class Explain(Request):
    """A message, or one entry. Entries cost a count each, so there is a limit."""

    id: AnyId
    limit: Annotated[int, Field(ge=1, le=200)] = 20


class BudgetView(View):
    """A limit that it has to fit, in recipients. `binds`: it waits for this one. `turns_at`: when more may go.

    `unit_limit` null: none; `bulk_limit` is what of it bulk mail may use; `grows`: as the mailbox warms up.
    """

    kind: str
    name: str
    unit_limit: int | None
    bulk_limit: int | None
    used: int
    window: str
    is_rolling: bool
    time_zone: str
    turns_at: datetime | None
    grows: bool
    binds: bool


class ExplainedEntry(View):
    """The verdict on one entry; `goes_at` is an estimate, null where only somebody's act can tell.

    `is_earliest`: it may as well be later than `goes_at`, more waits than was looked at.
    """

    entry_id: UUID
    recipient: str
    status: str
    where: Where
    sentence: str
    goes_at: datetime | None
    is_earliest: bool
    ahead: int
    next_step: str | None
    budgets: list[BudgetView]
    log: list[LogView]


class Explanation(View):
    """A message, as far as its entries were asked for."""

    queue_id: UUID
    mailbox: str
    subject: str
    reverse_path: str
    size_octets: int
    created_at: datetime
    now: datetime
    entries: list[ExplainedEntry]
    total: int


async def explain_message(context: Context, request: Explain) -> Explanation:
    """Everything in one view of the database."""
    async with context.reading() as connection:
        ids, total = await entries.ids_of(connection, request.id, limit=request.limit)
        gathered = await explanation.gather(connection, ids, context.house.terms)
        (message,) = await messages.by_ids(connection, [gathered[0].queue_id])
        log = [LogView.model_validate(row) for row in await entries.log(connection, ids, newest=_LOG_ROWS)]
    return Explanation(
        queue_id=message.queue_id,
        mailbox=message.mailbox,
        subject=message.subject,
        reverse_path=message.reverse_path,
        size_octets=message.size_octets,
        created_at=message.created_at,
        now=gathered[0].now,
        entries=[_view(one, [row for row in log if row.entry_id == one.entry_id]) for one in gathered],
        total=total,
    )


def _view(one: explanation.Explained, log: list[LogView]) -> ExplainedEntry:
    verdict, limits = explain(one.facts, one.now), one.facts.limits
    return ExplainedEntry(
        entry_id=one.entry_id,
        recipient=one.recipient,
        status=one.facts.entry.status,
        where=verdict.where,
        sentence=verdict.sentence,
        goes_at=verdict.goes_at,
        is_earliest=one.facts.entry.ahead_is_capped or not limits.estimate.is_known,
        ahead=one.facts.entry.ahead,
        next_step=verdict.next_step,
        budgets=[_budget(budget, binds=budget is limits.binding) for budget in limits.budgets],
        log=log,
    )


def _budget(budget: Budget, *, binds: bool) -> BudgetView:
    return BudgetView(
        kind=budget.kind,
        name=budget.name,
        unit_limit=budget.unit_limit,
        bulk_limit=budget.bulk_limit,
        used=budget.used,
        window=budget.window,
        is_rolling=budget.is_rolling,
        time_zone=budget.time_zone,
        turns_at=budget.turns_at,
        grows=budget.growth is not None,
        binds=binds,
    )


ROUTES = (
    Route("GET", "/v1/explain/{id}", explain_message, "Where it is, why it waits, when it goes", Explain, Explanation),
)
