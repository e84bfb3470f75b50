"""Handlers for mailbox pools. A pool's name is its client's, so a path names both."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from relayd.control.route import Context, Removed, Request, Route, View, changes
from relayd.control.values import Key, Name
from relayd.errors import Refusal
from relayd.store import clients, mailbox_pools, mailboxes
from relayd.store.connection import Connection
from relayd.store.mailbox_pools import PoolRecord


class AddPool(Request):
    """A new pool, without members."""

    name: Name
    client: Key


class NamedPool(Request):
    """A pool by its client and name."""

    client: Key
    name: Key


class SetPool(Request):
    """What to change of a pool; what is left out stays."""

    client: Key
    name: Key
    may_rewrite_from: bool = False


class PoolMember(Request):
    """A mailbox of a pool's client."""

    client: Key
    name: Key
    email_address: Key


class ListPools(Request):
    """`client`: only its own."""

    client: Key | None = None


class PoolView(View):
    """A pool: its mailboxes, and the credentials and domains whose mail it sends."""

    id: UUID
    name: str
    client: str
    may_rewrite_from: bool
    members: list[str]
    credentials: list[str]
    domains: list[str]
    created_at: datetime
    updated_at: datetime


class PoolList(View):
    """Pools by client and name."""

    items: list[PoolView]


async def add_pool(context: Context, request: AddPool) -> PoolView:
    """Refused if the client has one of that name."""
    async with context.writing() as connection:
        client = await clients.find_to_use(connection, request.client)
        pool = await mailbox_pools.add(connection, client_id=client.id, client=client.name, name=request.name)
    return PoolView.model_validate(pool)


async def list_pools(context: Context, request: ListPools) -> PoolList:
    """By client and name."""
    async with context.reading() as connection:
        client_id = (await clients.find(connection, request.client)).id if request.client else None
        return PoolList.model_validate({"items": await mailbox_pools.living(connection, client_id=client_id)})


async def show_pool(context: Context, request: NamedPool) -> PoolView:
    """One of them."""
    async with context.reading() as connection:
        client = await clients.find(connection, request.client)
        pool = await mailbox_pools.find(connection, client.id, client.name, request.name)
    return PoolView.model_validate(pool)


async def set_pool(context: Context, request: SetPool) -> PoolView:
    """Whether the sending mailbox's address may take the place of header From."""
    wanted = changes(request, but=("client", "name"))
    async with context.writing() as connection:
        pool = await _to_change(connection, request.client, request.name)
        if wanted["may_rewrite_from"]:
            _check_rewritable(pool, pool.members)
        saved = await mailbox_pools.save(connection, replace(pool, **wanted))
    return PoolView.model_validate(saved)


async def remove_pool(context: Context, request: NamedPool) -> Removed:
    """Refused while a credential or a domain sends by it."""
    async with context.writing() as connection:
        await mailbox_pools.remove(connection, await _to_change(connection, request.client, request.name))
    return Removed(name=request.name)


async def add_member(context: Context, request: PoolMember) -> PoolView:
    """It may be in several pools. Refused if it is another client's."""
    async with context.writing() as connection:
        # Before the pool, as whoever removes the mailbox does.
        mailbox = await mailboxes.find_to_change(connection, request.email_address)
        pool = await _to_change(connection, request.client, request.name)
        if mailbox.client_id != pool.client_id:
            raise Refusal(
                f"mailbox {mailbox.email_address} is not client {pool.client}'s",
                hint=f"relayd mailbox list --client {pool.client} shows which are",
            )
        if pool.may_rewrite_from:
            _check_rewritable(pool, [mailbox.email_address])
        saved = await mailbox_pools.add_member(connection, pool, mailbox.id, mailbox.email_address)
    return PoolView.model_validate(saved)


async def remove_member(context: Context, request: PoolMember) -> PoolView:
    """What is queued in it stays there. Refused for the last one of a pool in use."""
    async with context.writing() as connection:
        pool = await _to_change(connection, request.client, request.name)
        mailbox = await mailboxes.find(connection, request.email_address)
        saved = await mailbox_pools.remove_member(connection, pool, mailbox.id, mailbox.email_address)
    return PoolView.model_validate(saved)


def _check_rewritable(pool: PoolRecord, addresses: Sequence[str]) -> None:
    # A message that any upstream takes must not need SMTPUTF8 because of who happens to send it.
    if foreign := [address for address in addresses if not address.isascii()]:
        raise Refusal(
            f"{foreign[0]} cannot take the place of From: it is not ASCII, and not every upstream takes such a message",
            hint=f"relayd pool set {pool.name} --client {pool.client} --keep-from, or leave it out of the pool",
        )


async def _to_change(connection: Connection, client_name: str, name: str) -> PoolRecord:
    client = await clients.find_to_use(connection, client_name)
    return await mailbox_pools.find_to_change(connection, client.id, client.name, name)


_PATH = "/v1/clients/{client}/pools/{name}"
_MEMBER = f"{_PATH}/members/{{email_address}}"
ROUTES = (
    Route("POST", "/v1/pools", add_pool, "Add a mailbox pool", AddPool, PoolView),
    Route("GET", "/v1/pools", list_pools, "List the mailbox pools", ListPools, PoolList),
    Route("GET", _PATH, show_pool, "Show a mailbox pool", NamedPool, PoolView),
    Route("PATCH", _PATH, set_pool, "Change a mailbox pool", SetPool, PoolView),
    Route("DELETE", _PATH, remove_pool, "Remove a mailbox pool", NamedPool, Removed),
    Route("POST", _MEMBER, add_member, "Add a mailbox to a pool", PoolMember, PoolView),
    Route("DELETE", _MEMBER, remove_member, "Remove a mailbox from a pool", PoolMember, PoolView),
)
