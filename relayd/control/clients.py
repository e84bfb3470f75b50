"""Handlers for clients."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from relayd.control import tiers
from relayd.control.route import Context, Named, Nothing, Removed, Request, Route, View, changes
from relayd.control.values import Key, Limit, Line, Name, Percent, Tier
from relayd.rules.budgets import LimitWindow
from relayd.rules.tiers import Noun
from relayd.store import budgets, clients

SuppressionDays = Annotated[
    int, Field(ge=0, le=36500, description="How long a hard bounce counts; 0 not at all, null as configured")
]


class AddClient(Request):
    """A new client."""

    name: Name
    tier: Tier = "Ignition"
    may_send_bounces: bool = False
    daily_send_limit: Limit | None = None
    limit_window: LimitWindow = LimitWindow.CALENDAR
    time_zone: Line = "UTC"
    bulk_reserve_percent: Percent = 0


class SetClient(Request):
    """What to change of a client; what is left out stays."""

    name: Key
    tier: Tier = "Ignition"
    status: Literal["active", "suspended"] = "active"
    may_send_bounces: bool = False
    daily_send_limit: Limit | None = None
    limit_window: LimitWindow = LimitWindow.CALENDAR
    time_zone: Line = "UTC"
    bulk_reserve_percent: Percent = 0
    bounces: Annotated[Literal["mail", "event", "both"], Field(description="What it is told goes out so")] = "mail"
    suppressed: Annotated[Literal["refuse", "drop"], Field(description="What is done to such recipients")] = "refuse"
    suppression_days: SuppressionDays | None = None
    repeated_recipients: Annotated[
        Literal["refuse", "join"], Field(description="What is done to a message with several To or Cc fields")
    ] = "refuse"
    foreign_senders: Annotated[
        Literal["refuse", "remove"],
        Field(description="What is done to a message whose Sender or Resent-* fields name an address of others"),
    ] = "refuse"


class ClientView(View):
    """A client."""

    id: UUID
    name: str
    tier: str
    status: str
    may_send_bounces: bool
    daily_send_limit: int | None
    limit_window: str
    time_zone: str
    bulk_reserve_percent: int
    bounces: str
    suppressed: str
    suppression_days: int | None
    repeated_recipients: str
    foreign_senders: str
    created_at: datetime
    updated_at: datetime


class ShareView(View):
    """How many there are, and how many the tier allows; null is no limit."""

    count: int
    limit: int | None


class ClientDetails(ClientView):
    """A client and what it has of what its tier allows; shares are null for a tier that is not configured.

    `used` counts against `daily_send_limit`; `turns_at` is when some of it comes back.
    """

    used: int
    turns_at: datetime | None
    domains: ShareView | None
    mailboxes: ShareView | None
    dedicated_ips: ShareView | None


class ClientList(View):
    """All clients, by name."""

    items: list[ClientView]


async def add_client(context: Context, request: AddClient) -> ClientView:
    """Refused if the name is taken or the tier not known."""
    tiers.known(context.house.tiers, request.tier)
    async with context.writing() as connection:
        client = await clients.add(
            connection,
            name=request.name,
            tier=request.tier,
            may_send_bounces=request.may_send_bounces,
            daily_send_limit=request.daily_send_limit,
            limit_window=request.limit_window,
            time_zone=request.time_zone,
            bulk_reserve_percent=request.bulk_reserve_percent,
        )
    return ClientView.model_validate(client)


async def list_clients(context: Context, request: Nothing) -> ClientList:
    """By name."""
    async with context.reading() as connection:
        return ClientList.model_validate({"items": await clients.living(connection)})


async def show_client(context: Context, request: Named) -> ClientDetails:
    """One of them, with what it has of what its tier allows, and its use of its limit."""
    async with context.reading() as connection:
        client = await clients.find(connection, request.name)
        holdings = await clients.holdings(connection, client.id)
        usage = await budgets.usage(connection, client.id)
    tier = context.house.tiers.get(client.tier)

    def share(noun: Noun) -> ShareView | None:
        return ShareView(count=holdings.count(noun), limit=tier.limit(noun)) if tier else None

    return ClientDetails(
        **ClientView.model_validate(client).model_dump(),
        used=usage.used,
        turns_at=usage.turns_at,
        domains=share("domains"),
        mailboxes=share("mailboxes"),
        dedicated_ips=share("dedicated_ips"),
    )


async def set_client(context: Context, request: SetClient) -> ClientView:
    """Its mail may go at once. Refused for a tier that allows less than the client has."""
    wanted = changes(request, but="name")
    if "tier" in wanted:
        tiers.known(context.house.tiers, wanted["tier"])
    async with context.writing() as connection:
        client = await clients.find_to_change(connection, request.name)
        saved = await clients.save(connection, client, replace(client, **wanted))
        if saved.tier != client.tier:
            await tiers.check_all(connection, context.house.tiers, client.id)
    context.house.wake()
    return ClientView.model_validate(saved)


async def remove_client(context: Context, request: Named) -> Removed:
    """Refused while it has domains, mailboxes, credentials or upstreams of its own."""
    async with context.writing() as connection:
        await clients.remove(connection, await clients.find_to_change(connection, request.name))
    return Removed(name=request.name)


ROUTES = (
    Route("POST", "/v1/clients", add_client, "Add a client", AddClient, ClientView),
    Route("GET", "/v1/clients", list_clients, "List the clients", Nothing, ClientList),
    Route("GET", "/v1/clients/{name}", show_client, "Show a client", Named, ClientDetails),
    Route("PATCH", "/v1/clients/{name}", set_client, "Change a client", SetClient, ClientView),
    Route("DELETE", "/v1/clients/{name}", remove_client, "Remove a client", Named, Removed),
)
