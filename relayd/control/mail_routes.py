"""Handlers for routes, and for asking which way a message would go."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field

from relayd.control.alignment import check_route
from relayd.control.route import Context, Named, Removed, Request, Route, View, changes
from relayd.control.values import EmailAddress, Key, Name, domain_pattern, sender_pattern
from relayd.control.versions import check_all_know
from relayd.errors import BadValue, NotFound, Refusal
from relayd.mail.address import Address
from relayd.rules.breaker import BreakerState
from relayd.rules.routing import route_for
from relayd.store import clients, directory, mail_routes, mailboxes, routing, ways
from relayd.store.mail_routes import MailRouteRecord
from relayd.store.ways import Standing

RecipientDomain = Annotated[str, Field(max_length=255), AfterValidator(domain_pattern)]
HeaderFrom = Annotated[str, Field(max_length=254), AfterValidator(sender_pattern)]
Position = Annotated[int, Field(ge=0, le=1_000_000)]


class ListedUpstream(Request):
    """One upstream of a list; `weight` left out in all of them: in order."""

    name: Key
    weight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


Upstreams = Annotated[tuple[ListedUpstream, ...], Field(min_length=1, max_length=ways.MOST)]


class AddRoute(Request):
    """A new route: mail that fits all of its conditions goes through these upstreams. `client` left out: of all."""

    name: Name
    client: Key | None = None
    mailbox: Key | None = None
    recipient_domain: RecipientDomain | None = None
    header_from: HeaderFrom | None = None
    upstreams: Upstreams
    position: Position | None = None
    allow_misaligned: bool = False


class SetRoute(Request):
    """What to change of a route; what is left out stays."""

    name: Key
    recipient_domain: RecipientDomain | None = None
    header_from: HeaderFrom | None = None
    upstreams: Upstreams | None = None
    position: Position | None = None
    allow_misaligned: bool | None = None


class ListRoutes(Request):
    """`client`: those that its mail may take."""

    client: Key | None = None


class TestRoute(Request):
    """A message with this header From to this recipient."""

    header_from: EmailAddress
    recipient: EmailAddress


class MailRouteView(View):
    """A route. `client` null: for mail of all clients. `warnings`, right after a change: who could not take over."""

    id: UUID
    name: str
    client: str | None
    mailbox: str | None
    recipient_domain: str | None
    header_from: str | None
    position: int
    upstreams: list[str]
    allow_misaligned: bool = Field(validation_alias="may_misalign")
    created_at: datetime
    updated_at: datetime
    warnings: Sequence[str] = ()


class MailRouteList(View):
    """Routes in the order in which they are asked."""

    items: list[MailRouteView]


class TestedUpstream(View):
    """One of the upstreams that it may go through. `goes_through`: where what would rather go through it goes now.

    `share`: the part of the messages that fall to it; null where only those before it matter. `aligned` null: DNS has
    not told.
    """

    name: str
    share: float | None
    goes_through: str | None
    state: str
    breaker_reason: str | None
    retry_at: datetime | None
    aligned: bool | None
    why: str | None


class TestedRoute(View):
    """Which way it would go: `route` null means by the mailbox's own list."""

    mailbox: str
    route: str | None
    why: str
    upstreams: list[TestedUpstream]


async def add_route(context: Context, request: AddRoute) -> MailRouteView:
    """What waits already follows it."""
    if request.mailbox is None and request.recipient_domain is None and request.header_from is None:
        raise BadValue(
            "a route says of which mail it is: a mailbox, a recipient domain or a From",
            hint="where all of a mailbox's mail goes is said by: relayd mailbox set ADDRESS --upstreams a,b",
        )
    async with context.writing() as connection:
        await check_all_know(connection, "a route")
        client = await clients.find_to_use(connection, request.client) if request.client else None
        mailbox = await mailboxes.find(connection, request.mailbox) if request.mailbox else None
        if mailbox and client and mailbox.client_id != client.id:
            raise Refusal(f"mailbox {mailbox.email_address} is client {mailbox.client}'s, not {client.name}'s")
        client_id = mailbox.client_id if mailbox else client.id if client else None
        owner = mailbox.client if mailbox else client.name if client else "all clients"
        made = await mail_routes.add(
            connection,
            name=request.name,
            client_id=client_id,
            mailbox_id=mailbox.id if mailbox else None,
            recipient_domain=request.recipient_domain,
            header_from=request.header_from,
            position=request.position,
            upstreams=await ways.members(connection, pairs(request.upstreams), client_id=client_id, client=owner),
            may_misalign=request.allow_misaligned,
        )
    warnings = await check_route(context, made.id)
    context.house.wake()
    return MailRouteView.model_validate(made).model_copy(update={"warnings": warnings})


async def list_routes(context: Context, request: ListRoutes) -> MailRouteList:
    """In the order in which they are asked."""
    async with context.reading() as connection:
        client_id = (await clients.find(connection, request.client)).id if request.client else None
        return MailRouteList.model_validate({"items": await mail_routes.living(connection, client_id=client_id)})


async def show_route(context: Context, request: Named) -> MailRouteView:
    """One of them."""
    async with context.reading() as connection:
        return MailRouteView.model_validate(await mail_routes.find(connection, request.name))


async def set_route(context: Context, request: SetRoute) -> MailRouteView:
    """What waits follows."""
    wanted = changes(request, but="name")
    listed: tuple[ListedUpstream, ...] | None = wanted.pop("upstreams", None)
    misalign: bool | None = wanted.pop("allow_misaligned", None)
    async with context.writing() as connection:
        found = await mail_routes.find_to_change(connection, request.name)
        if wanted:
            await mail_routes.save(connection, _changed(found, wanted))
        if listed is not None:
            members = await ways.members(
                connection, pairs(listed), client_id=found.client_id, client=found.client or "all clients"
            )
            keeps = found.may_misalign if misalign is None else misalign
            await mail_routes.put_upstreams(connection, found, members, may_misalign=keeps)
        elif misalign is not None:
            await mail_routes.set_misalign(connection, found, misalign)
        saved = await mail_routes.find(connection, request.name)
    warnings = await check_route(context, saved.id) if listed is not None else []
    context.house.wake()
    return MailRouteView.model_validate(saved).model_copy(update={"warnings": warnings})


async def remove_route(context: Context, request: Named) -> Removed:
    """What waits goes as its mailbox's list says."""
    async with context.writing() as connection:
        await mail_routes.remove(connection, await mail_routes.find_to_change(connection, request.name))
    context.house.wake()
    return Removed(name=request.name)


async def test_route(context: Context, request: TestRoute) -> TestedRoute:
    """As intake would decide it, without a message."""
    author, recipient = Address.parse(request.header_from), Address.parse(request.recipient)
    async with context.reading() as connection:
        mailbox = await directory.find_mailbox(connection, author)
        if mailbox is None:
            raise NotFound(f"no mailbox sends for From {author}", hint=f"relayd mailbox add {author}")
        rules = (await routing.routes_of(connection, mailbox.client_id)).rules
        rule = route_for(rules, mailbox_id=mailbox.id, author=author, recipient=recipient)
        named = {each.id: each for each in await mail_routes.living(connection, client_id=mailbox.client_id)}
        standings = await ways.standings(connection, mailbox.id, rule.id if rule else None)
    route = named[rule.id] if rule else None
    return TestedRoute(
        mailbox=str(mailbox.address),
        route=route.name if route else None,
        why=_why(route, str(mailbox.address)),
        upstreams=[_tested(each, standings) for each in standings],
    )


def pairs(listed: tuple[ListedUpstream, ...]) -> list[tuple[str, int | None]]:
    """Names and weights, as the store takes them."""
    return [(each.name, each.weight) for each in listed]


def _changed(route: MailRouteRecord, wanted: dict[str, Any]) -> MailRouteRecord:
    if wanted.get("position", 0) is None:
        raise BadValue("position is required")
    changed = replace(route, **wanted)
    if changed.mailbox_id is None and changed.recipient_domain is None and changed.header_from is None:
        raise BadValue("a route says of which mail it is", hint=f"relayd route remove {route.name} takes it away")
    return changed


def _why(route: MailRouteRecord | None, mailbox: str) -> str:
    if route is None:
        return f"no route fits, so the upstreams of mailbox {mailbox} are used"
    said = [
        route.mailbox and f"the mailbox is {route.mailbox}",
        route.recipient_domain and f"the recipient's domain fits {route.recipient_domain}",
        route.header_from and f"From fits {route.header_from}",
    ]
    return " and ".join(each for each in said if each)


def _tested(each: Standing, standings: list[Standing]) -> TestedUpstream:
    total = sum(other.weight or 0 for other in standings)
    is_preferred = bool(total) or each is standings[0]
    if not each.is_active:
        state = "inactive"
    elif each.paused_at is not None:
        state = "paused"
    else:
        state = "works" if each.breaker is BreakerState.CLOSED else "does not work"
    why = each.why
    if each.may_misalign:
        why = f"allowed whatever DNS says{f' ({why})' if why else ''}"
    return TestedUpstream(
        name=each.name,
        share=round((each.weight or 0) / total, 4) if total else 1.0 if is_preferred else None,
        goes_through=ways.goes_through(standings, each).name if is_preferred else None,
        state=state,
        breaker_reason=each.breaker_reason,
        retry_at=each.retry_at,
        aligned=each.is_aligned,
        why=why or "not checked against DNS yet",
    )


_PATH = "/v1/routes/{name}"
ROUTES = (
    Route("POST", "/v1/routes", add_route, "Add a route", AddRoute, MailRouteView),
    Route("GET", "/v1/routes", list_routes, "List the routes", ListRoutes, MailRouteList),
    Route("GET", "/v1/route-test", test_route, "Which way a message would go", TestRoute, TestedRoute),
    Route("GET", _PATH, show_route, "Show a route", Named, MailRouteView),
    Route("PATCH", _PATH, set_route, "Change a route", SetRoute, MailRouteView),
    Route("DELETE", _PATH, remove_route, "Remove a route", Named, Removed),
)
