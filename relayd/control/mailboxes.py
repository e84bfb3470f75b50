"""Handlers for mailboxes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from relayd.control import tiers
from relayd.control.alignment import check_mailbox
from relayd.control.inboxes import InboxView
from relayd.control.mail_routes import Upstreams, pairs
from relayd.control.route import Context, Removed, Request, Route, View, changes
from relayd.control.values import EmailAddress, Key, Limit, Line
from relayd.control.versions import check_all_know
from relayd.errors import BadValue, Refusal
from relayd.mail.address import Address
from relayd.rules.budgets import LimitWindow
from relayd.rules.mail_class import MailClass
from relayd.store import clients, domains, inboxes, mailbox_pools, mailboxes, upstreams, ways
from relayd.store.connection import Connection

EightBit = Annotated[Literal["keep", "convert"], Field(description="What is done to 8-bit bodies")]


class AddMailbox(Request):
    """A new mailbox. `upstream` may be left out where there is only one."""

    email_address: EmailAddress
    display_name: Line | None = None
    upstream: Key | None = None
    upstreams: Upstreams | None = None
    allow_misaligned: bool = False
    daily_send_limit: Limit | None = 10
    time_zone: Line = "UTC"
    limit_window: LimitWindow = LimitWindow.CALENDAR
    is_paced: bool = False
    mail_class: MailClass = MailClass.TRANSACTIONAL
    eight_bit: EightBit = "keep"
    is_default: bool = False


class NamedMailbox(Request):
    """A mailbox by its address."""

    email_address: Key


class SetMailbox(Request):
    """What to change of a mailbox; what is left out stays."""

    email_address: Key
    display_name: Line | None = None
    upstream: Key | None = None
    upstreams: Upstreams | None = None
    allow_misaligned: bool = False
    daily_send_limit: Limit | None = None
    time_zone: Line = "UTC"
    limit_window: LimitWindow = LimitWindow.CALENDAR
    is_paced: bool = False
    mail_class: MailClass = MailClass.TRANSACTIONAL
    eight_bit: EightBit = "keep"
    is_default: bool = False
    status: Literal["active", "paused", "suspended"] = "active"
    status_reason: Line | None = None


class ListMailboxes(Request):
    """Narrowed by what is given."""

    client: Key | None = None
    domain: Key | None = None
    upstream: Key | None = None


class MailboxView(View):
    """A mailbox. `used` counts against `daily_send_limit`; some of it comes back at `window_ends_at`.

    `upstreams`: all that it has, in order or as `name=weight`; `sends_through`: where its mail goes now. `warnings`,
    right after a change of its list: which upstreams could not take over, and why.
    """

    id: UUID
    email_address: str
    client: str
    domain: str
    upstream: str
    upstreams: list[str]
    sends_through: str
    display_name: str | None
    status: str
    status_reason: str | None
    daily_send_limit: int | None
    is_warming: bool
    used: int
    window_ends_at: datetime | None
    time_zone: str
    limit_window: str
    is_paced: bool
    mail_class: str
    eight_bit: str
    is_default: bool
    created_at: datetime
    updated_at: datetime
    warnings: Sequence[str] = ()


class MailboxDetails(MailboxView):
    """A mailbox, and where its reports and answers are read."""

    inbox: InboxView | None


class MailboxList(View):
    """Mailboxes by domain and address."""

    items: list[MailboxView]


async def add_mailbox(context: Context, request: AddMailbox) -> MailboxView:
    """It belongs to its domain's client. Refused if the domain is unknown, the upstream not clear or the tier full."""
    async with context.writing() as connection:
        domain = await domains.find_to_use(connection, Address.parse(request.email_address).domain)
        listed = await _listed(connection, request, domain.client_id, domain.client)
        first = listed[0].name if listed else request.upstream
        upstream = await upstreams.choose(connection, first, client_id=domain.client_id, client=domain.client)
        mailbox = await mailboxes.add(
            connection,
            client_id=domain.client_id,
            domain_id=domain.id,
            upstream_id=upstream.id,
            email_address=request.email_address,
            display_name=request.display_name,
            daily_send_limit=request.daily_send_limit,
            time_zone=request.time_zone,
            limit_window=request.limit_window,
            is_paced=request.is_paced,
            mail_class=request.mail_class,
            eight_bit=request.eight_bit,
        )
        if request.is_default:
            # Before the client is locked: a domain comes first.
            mailbox = await mailboxes.make_default(connection, mailbox)
        await tiers.check_room(connection, context.house.tiers, domain.client_id, "mailboxes")
        if listed:
            await ways.put(connection, mailbox, listed, may_misalign=request.allow_misaligned)
            mailbox = await mailboxes.find(connection, mailbox.email_address)
    view = MailboxView.model_validate(mailbox)
    return view.model_copy(update={"warnings": await check_mailbox(context, mailbox.id)}) if listed else view


async def list_mailboxes(context: Context, request: ListMailboxes) -> MailboxList:
    """By domain and address."""
    async with context.reading() as connection:
        found = await mailboxes.living(
            connection,
            client_id=(await clients.find(connection, request.client)).id if request.client else None,
            domain_id=(await domains.find(connection, request.domain)).id if request.domain else None,
            upstream_id=(await upstreams.find(connection, request.upstream)).id if request.upstream else None,
        )
    return MailboxList.model_validate({"items": found})


async def show_mailbox(context: Context, request: NamedMailbox) -> MailboxDetails:
    """With its use of today's limit, and how its inbox is read."""
    async with context.reading() as connection:
        mailbox = MailboxView.model_validate(await mailboxes.find(connection, request.email_address))
        inbox = await inboxes.find(connection, mailbox.id)
    return MailboxDetails(**mailbox.model_dump(), inbox=InboxView.model_validate(inbox) if inbox else None)


async def set_mailbox(context: Context, request: SetMailbox) -> MailboxView:
    """A raised limit, another upstream or a status made active lets waiting mail go at once."""
    wanted = changes(request, but="email_address")
    is_default: bool | None = wanted.pop("is_default", None)
    misalign: bool | None = wanted.get("allow_misaligned")
    if "status" in wanted:
        wanted.setdefault("status_reason", None)
    async with context.writing() as connection:
        mailbox = await mailboxes.find_to_change(connection, request.email_address)
        if "daily_send_limit" in wanted and mailbox.is_warming:
            raise Refusal(
                f"mailbox {mailbox.email_address} warms up: its limit follows its schedule",
                hint=f"relayd warmup start {mailbox.email_address} --cap LIMIT bounds it; "
                f"relayd warmup complete {mailbox.email_address} ends it",
            )
        listed = await _listed(connection, request, mailbox.client_id, mailbox.client)
        if "upstream" in wanted:
            chosen = await upstreams.choose(
                connection, wanted["upstream"], client_id=mailbox.client_id, client=mailbox.client
            )
            listed = [ways.Member(chosen.id, chosen.name, None)]
        for name in ("upstream", "upstreams", "allow_misaligned"):
            wanted.pop(name, None)
        if listed:
            wanted["upstream_id"] = listed[0].upstream_id
        saved = await mailboxes.save(connection, mailbox, replace(mailbox, **wanted))
        if listed:
            await ways.put(connection, mailbox, listed, may_misalign=misalign)
        elif misalign is not None:
            await ways.set_misalign(connection, mailbox, misalign)
        if listed or misalign is not None:
            saved = await mailboxes.find(connection, mailbox.email_address)
        if is_default is not None:
            saved = await mailboxes.make_default(connection, saved, is_default)
    view = MailboxView.model_validate(saved)
    if listed and len(listed) > 1:
        view = view.model_copy(update={"warnings": await check_mailbox(context, saved.id)})
    context.house.wake()
    return view


async def remove_mailbox(context: Context, request: NamedMailbox) -> Removed:
    """Refused while it has mail that is not settled, or is the last one of a pool in use."""
    async with context.writing() as connection:
        mailbox = await mailboxes.find_to_remove(connection, request.email_address)
        await mailbox_pools.leave_all(connection, mailbox.id, mailbox.client, mailbox.email_address)
        await mailboxes.remove(connection, mailbox)
        await inboxes.remove(connection, mailbox.id)
    return Removed(name=mailbox.email_address)


async def _listed(
    connection: Connection, request: AddMailbox | SetMailbox, client_id: UUID, client: str
) -> list[ways.Member]:
    """The list that was asked for; empty where none was."""
    if request.upstreams is None:
        return []
    if request.upstream is not None:
        raise BadValue("one of upstream and upstreams, not both")
    if len(request.upstreams) > 1:
        await check_all_know(connection, "a list of upstreams")
    return await ways.members(connection, pairs(request.upstreams), client_id=client_id, client=client)


_PATH = "/v1/mailboxes/{email_address}"
ROUTES = (
    Route("POST", "/v1/mailboxes", add_mailbox, "Add a mailbox", AddMailbox, MailboxView),
    Route("GET", "/v1/mailboxes", list_mailboxes, "List the mailboxes", ListMailboxes, MailboxList),
    Route("GET", _PATH, show_mailbox, "Show a mailbox", NamedMailbox, MailboxDetails),
    Route("PATCH", _PATH, set_mailbox, "Change a mailbox", SetMailbox, MailboxView),
    Route("DELETE", _PATH, remove_mailbox, "Remove a mailbox", NamedMailbox, Removed),
)
