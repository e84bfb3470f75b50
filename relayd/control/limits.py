"""The handler for the ledger of budgets: every limit and its use."""

from datetime import datetime

from relayd.control.route import Context, Request, Route, View
from relayd.control.values import Key
from relayd.store import budgets, clients, domains, mailboxes, upstreams


class ListLimits(Request):
    """Narrowed by what is given. `mailbox`: all that its mail has to fit, whoever says so."""

    mailbox: Key | None = None
    domain: Key | None = None
    client: Key | None = None
    upstream: Key | None = None


class LimitView(View):
    """A budget. `unit_limit` null: unlimited; `turns_at`: when some or all of what is used comes back."""

    kind: str
    whose: str
    client: str | None
    unit_limit: int | None
    bulk_limit: int | None
    used: int
    limit_window: str
    time_zone: str
    turns_at: datetime | None


class LimitList(View):
    """By kind and owner: clients, domains, mailboxes, providers."""

    items: list[LimitView]


async def list_limits(context: Context, request: ListLimits) -> LimitList:
    """As they stand at this instant."""
    async with context.reading() as connection:
        found = await budgets.living(
            connection,
            mailbox_id=(await mailboxes.find(connection, request.mailbox)).id if request.mailbox else None,
            domain_id=(await domains.find(connection, request.domain)).id if request.domain else None,
            client_id=(await clients.find(connection, request.client)).id if request.client else None,
            upstream_id=(await upstreams.find(connection, request.upstream)).id if request.upstream else None,
        )
    return LimitList.model_validate({"items": found})


ROUTES = (Route("GET", "/v1/limits", list_limits, "Every limit and its use", ListLimits, LimitList),)
