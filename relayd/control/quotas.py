"""Handlers for what a provider allows an upstream, or one mailbox of it."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from relayd.control.route import Context, Named, Removed, Request, Route, View, changes
from relayd.control.values import Key, Limit, Line, Percent
from relayd.errors import BadValue, NotFound
from relayd.rules.budgets import LimitWindow
from relayd.store import mailboxes, quotas, upstreams
from relayd.store.connection import Connection
from relayd.store.mailboxes import MailboxRecord
from relayd.store.quotas import QuotaRecord, QuotaTerms
from relayd.store.upstreams import UpstreamRecord


class SetQuota(Request):
    """What a provider allows; what is left out stays. `mailbox` left out: the upstream as a whole."""

    name: Key
    mailbox: Key | None = None
    daily_limit: Limit | None = None
    hourly_limit: Limit | None = None
    limit_window: LimitWindow = LimitWindow.ROLLING
    time_zone: Line = "UTC"
    bulk_reserve_percent: Percent = 0


class NamedQuota(Request):
    """The quota of a mailbox of an upstream."""

    name: Key
    mailbox: Key


class QuotaView(View):
    """A quota and its use; what has no limit is not counted. `mailbox` null: of the upstream as a whole."""

    id: UUID
    upstream: str
    mailbox: str | None
    daily_limit: int | None
    daily_used: int | None
    daily_turns_at: datetime | None
    hourly_limit: int | None
    hourly_used: int | None
    hourly_turns_at: datetime | None
    limit_window: str
    time_zone: str
    bulk_reserve_percent: int
    created_at: datetime
    updated_at: datetime


class QuotaList(View):
    """The upstream's own first, then its mailboxes' by address."""

    items: list[QuotaView]


async def list_quotas(context: Context, request: Named) -> QuotaList:
    """Of one upstream."""
    async with context.reading() as connection:
        upstream = await upstreams.find(connection, request.name)
        return QuotaList(items=[_view(each) for each in await quotas.of_upstream(connection, upstream.id)])


async def set_quota(context: Context, request: SetQuota) -> QuotaView:
    """Makes it if there is none. Refused for a mailbox that sends through another upstream."""
    wanted = changes(request, but="name")
    wanted.pop("mailbox", None)
    async with context.writing() as connection:
        mailbox, upstream = await _owners(connection, request.name, request.mailbox)
        found = await quotas.find(connection, upstream, mailbox)
        terms = replace(found.terms if found else QuotaTerms(), **wanted)
        if not wanted or (found is None and terms.daily_limit is None and terms.hourly_limit is None):
            raise BadValue("nothing to limit was given", hint="--daily N, --hourly N, or both")
        stored = await quotas.put(connection, upstream, mailbox, terms)
    context.house.wake()
    return _view(stored)


async def remove_quota(context: Context, request: Named) -> Removed:
    """Of the upstream as a whole; those of its mailboxes stay."""
    return await _remove(context, request.name, None)


async def remove_mailbox_quota(context: Context, request: NamedQuota) -> Removed:
    """From now on what the provider allows this mailbox is not looked at."""
    return await _remove(context, request.name, request.mailbox)


async def _remove(context: Context, name: str, address: str | None) -> Removed:
    async with context.writing() as connection:
        mailbox, upstream = await _owners(connection, name, address)
        whose = f"upstream {upstream.name}" + (f", mailbox {mailbox.email_address}" if mailbox else "")
        if not await quotas.remove(connection, upstream, mailbox):
            raise NotFound(
                f"there is no quota of {whose}", hint=f"relayd upstream quota {upstream.name} shows what there is"
            )
    context.house.wake()
    return Removed(name=whose)


async def _owners(
    connection: Connection, name: str, address: str | None
) -> tuple[MailboxRecord | None, UpstreamRecord]:
    # The mailbox before the upstream, as whoever gives the mailbox another upstream does.
    mailbox = await mailboxes.find_to_change(connection, address) if address else None
    return mailbox, await upstreams.find_to_change(connection, name)


def _view(quota: QuotaRecord) -> QuotaView:
    return QuotaView(
        id=quota.id,
        upstream=quota.upstream,
        mailbox=quota.mailbox,
        daily_limit=quota.terms.daily_limit,
        daily_used=quota.daily_used,
        daily_turns_at=quota.daily_turns_at,
        hourly_limit=quota.terms.hourly_limit,
        hourly_used=quota.hourly_used,
        hourly_turns_at=quota.hourly_turns_at,
        limit_window=quota.terms.limit_window,
        time_zone=quota.terms.time_zone,
        bulk_reserve_percent=quota.terms.bulk_reserve_percent,
        created_at=quota.created_at,
        updated_at=quota.updated_at,
    )


_PATH = "/v1/upstreams/{name}/quotas"
ROUTES = (
    Route("GET", _PATH, list_quotas, "What the provider allows, and its use", Named, QuotaList),
    Route("PATCH", _PATH, set_quota, "Say what the provider allows", SetQuota, QuotaView),
    Route("DELETE", _PATH, remove_quota, "Forget what the provider allows the whole", Named, Removed),
    Route(
        "DELETE", f"{_PATH}/{{mailbox}}", remove_mailbox_quota, "Forget what it allows a mailbox", NamedQuota, Removed
    ),
)
