"""Handlers for domains and the DNS records that they need."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from relayd.control import bounce_domain, tiers
from relayd.control.route import Context, Publishing, Removed, Request, Route, View, changes
from relayd.control.values import DomainName, EmailAddress, Key, Limit, Line
from relayd.errors import BadValue, Refusal
from relayd.intake.keys import make_keys
from relayd.mail.address import to_ascii
from relayd.rules.budgets import LimitWindow
from relayd.rules.dns_records import records_for, zone_lines
from relayd.store import budgets, clients, domains, mailbox_pools, mailboxes
from relayd.store.connection import Connection
from relayd.store.domains import DomainRecord


class AddDomain(Request):
    """A new domain; its DKIM keys are made with it."""

    domain: DomainName
    client: Key


class NamedDomain(Request):
    """A domain by its name."""

    domain: Key


class SetDomain(Request):
    """What to change of a domain; what is left out stays. `default_mailbox`, `default_pool` null: none.

    `own_daily_limit` null: the larger of 50 and the sum of its mailboxes' limits.
    """

    domain: Key
    status: Literal["pending", "active", "suspended"] = "active"
    default_mailbox: EmailAddress | None = None
    own_daily_limit: Limit | None = None
    limit_window: LimitWindow = LimitWindow.CALENDAR
    time_zone: Line = "UTC"
    default_pool: Key | None = None
    bounce_domain: DomainName | None = None


class ListDomains(Request):
    """`client`: only its own."""

    client: Key | None = None


class DomainView(View):
    """A domain. `daily_send_limit` is in force today; `own_daily_limit` null: it follows the mailboxes' limits."""

    id: UUID
    domain: str
    client: str
    provider: str
    status: str
    default_mailbox: str | None
    daily_send_limit: int | None
    own_daily_limit: int | None
    limit_window: str
    time_zone: str
    default_pool: str | None
    bounce_domain: str | None
    created_at: datetime
    updated_at: datetime


class DomainList(View):
    """Domains by name."""

    items: list[DomainView]


class KeyView(View):
    """The public half of a DKIM key."""

    selector: str
    algorithm: str
    status: str
    created_at: datetime


class DomainDetails(DomainView):
    """A domain and its keys. `used` counts against its limit; `turns_at` is when some of it comes back."""

    used: int
    turns_at: datetime | None
    keys: list[KeyView]


class RecordView(View):
    """A DNS record to publish; `priority` for MX alone."""

    type: str
    name: str
    value: str
    priority: int | None
    purpose: str


class Records(View):
    """What a domain is to publish. `zone`: the same as lines of a zone file. `notes`: what is left out, and why."""

    domain: str
    items: list[RecordView]
    zone: list[str]
    notes: list[str]


class AddedDomain(View):
    """The new domain and what to publish for it."""

    domain: DomainView
    records: Records


async def add_domain(context: Context, request: AddDomain) -> AddedDomain:
    """Refused if the domain is there already, whoever's it is, and beyond the client's tier."""
    keys = await asyncio.to_thread(make_keys, context.house.seal, datetime.now(UTC))
    async with context.writing() as connection:
        client = await clients.find_to_use(connection, request.client)
        domain = await domains.add(connection, client_id=client.id, domain=request.domain, keys=keys)
        await tiers.check_room(connection, context.house.tiers, client.id, "domains")
        records = await _records(connection, domain, context.house.publishing)
    return AddedDomain(domain=DomainView.model_validate(domain), records=records)


async def list_domains(context: Context, request: ListDomains) -> DomainList:
    """By name."""
    async with context.reading() as connection:
        client_id = (await clients.find(connection, request.client)).id if request.client else None
        return DomainList.model_validate({"items": await domains.living(connection, client_id=client_id)})


async def show_domain(context: Context, request: NamedDomain) -> DomainDetails:
    """With its keys, and its use of its limit."""
    async with context.reading() as connection:
        domain = await domains.find(connection, request.domain)
        keys = [KeyView.model_validate(key) for key in await domains.keys_of(connection, domain.id)]
        usage = await budgets.usage(connection, domain.id)
    return DomainDetails(
        **DomainView.model_validate(domain).model_dump(), used=usage.used, turns_at=usage.turns_at, keys=keys
    )


async def show_records(context: Context, request: NamedDomain) -> Records:
    """What to publish, from its keys and the settings of this node."""
    async with context.reading() as connection:
        return await _records(connection, await domains.find(connection, request.domain), context.house.publishing)


async def set_domain(context: Context, request: SetDomain) -> DomainView:
    """A domain made active again, or given more, may have mail to send."""
    wanted = changes(request, but="domain")
    async with context.writing() as connection:
        if "default_mailbox" in wanted:
            # Before the domain, as whoever removes the mailbox does.
            address = wanted.pop("default_mailbox")
            mailbox = await mailboxes.find_to_change(connection, address) if address else None
            if mailbox and mailbox.domain != to_ascii(request.domain):
                raise BadValue(f"mailbox {address} is not in the domain {request.domain}")
            wanted["default_mailbox_id"] = mailbox and mailbox.id
        domain = await domains.find_to_change(connection, request.domain)
        if "default_pool" in wanted:
            name = wanted.pop("default_pool")
            owner = (domain.client_id, domain.client)
            pool = await mailbox_pools.find_to_use(connection, *owner, name) if name else None
            await mailbox_pools.use_for_domain(connection, domain.id, pool)
        if "bounce_domain" in wanted:
            await bounce_domain.save(connection, domain, wanted.pop("bounce_domain"))
        saved = await domains.save(connection, domain, replace(domain, **wanted))
    context.house.wake()
    return DomainView.model_validate(saved)


async def remove_domain(context: Context, request: NamedDomain) -> Removed:
    """Refused while it has mailboxes or mail that is not settled."""
    async with context.writing() as connection:
        domain = await domains.find_to_change(connection, request.domain)
        await domains.remove(connection, domain)
    return Removed(name=domain.domain)


async def _records(connection: Connection, domain: DomainRecord, publishing: Publishing) -> Records:
    keys = await domains.keys_of(connection, domain.id)
    active = [(key.selector, key.algorithm, key.record_value) for key in keys if key.status == "active"]
    try:
        records = records_for(
            domain.domain,
            active,
            spf_hosts=publishing.spf_hosts,
            mx_host=publishing.mx_host,
            dmarc_policy=publishing.dmarc_policy,
            dmarc_rua=publishing.dmarc_rua,
        )
    except ValueError as error:
        raise Refusal(f"the records cannot be made: {error}", hint="mend [publish] in relayd's configuration") from None
    records = (*records, *bounce_domain.records(domain, publishing))
    return Records(
        domain=domain.domain,
        items=[RecordView.model_validate(record) for record in records],
        zone=list(zone_lines(records)),
        notes=[*_notes(publishing), *bounce_domain.notes(domain, publishing)],
    )


def _notes(publishing: Publishing) -> Sequence[str]:
    notes = []
    if not publishing.spf_hosts:
        notes.append("SPF is left out: say which hosts send in publish.spf_hosts of relayd's configuration")
    if publishing.mx_host is None:
        notes.append("MX is left out: say where replies go in publish.mx_host of relayd's configuration")
    return notes


ROUTES = (
    Route("POST", "/v1/domains", add_domain, "Add a domain and make its DKIM keys", AddDomain, AddedDomain),
    Route("GET", "/v1/domains", list_domains, "List the domains", ListDomains, DomainList),
    Route("GET", "/v1/domains/{domain}", show_domain, "Show a domain and its keys", NamedDomain, DomainDetails),
    Route("GET", "/v1/domains/{domain}/records", show_records, "The DNS records to publish", NamedDomain, Records),
    Route("PATCH", "/v1/domains/{domain}", set_domain, "Change a domain", SetDomain, DomainView),
    Route("DELETE", "/v1/domains/{domain}", remove_domain, "Remove a domain", NamedDomain, Removed),
)
