"""Handlers for the lists of who gets no more mail from a client."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, Field

from relayd.control.route import Context, Request, Route, View
from relayd.control.values import DomainName, EmailAddress, Key, Line
from relayd.errors import NotFound
from relayd.mail.address import Address
from relayd.rules.suppression import SuppressionReason
from relayd.store import clients, messages, operation_audit, suppressions
from relayd.store.connection import Connection
from relayd.store.suppressions import NewSuppression

Days = Annotated[int, Field(ge=1, le=36500, description="For how long; null until it is removed")]
Detail = Annotated[Line, Field(max_length=255, description="Why, for who looks later")]

MOST_IMPORTED = 2_000


class ListSuppressions(Request):
    """Those in force, by address. `cursor`: the address after which to go on."""

    name: Key
    reason: SuppressionReason | None = None
    domain: DomainName | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 50
    cursor: Annotated[str, Field(max_length=320)] = ""


class AddSuppression(Request):
    """An address that is to get no more mail from this client."""

    name: Key
    address: EmailAddress
    detail: Detail | None = None
    days: Days | None = None


class OneSuppression(Request):
    """An address on a client's list."""

    name: Key
    address: EmailAddress


class Imported(Request):
    """One address of an import. `expires_at` null: never; `reason` null: import."""

    address: EmailAddress
    reason: SuppressionReason | None = None
    detail: Detail | None = None
    expires_at: AwareDatetime | None = None


class ImportSuppressions(Request):
    """Many addresses at once."""

    name: Key
    items: Annotated[tuple[Imported, ...], Field(max_length=MOST_IMPORTED)]


class SuppressionView(View):
    """A line of a client's list."""

    address: str
    reason: str
    detail: str | None
    entry_id: UUID | None
    expires_at: datetime | None
    created_at: datetime


class SuppressionPage(View):
    """Some lines; `cursor` is null after the last."""

    items: list[SuppressionView]
    cursor: str | None


class Added(View):
    """How many were new, how many were on the list already, how many had expired before they came."""

    added: int
    known: int
    expired: int


class Lifted(View):
    """The address that was taken off the list."""

    address: str


async def list_suppressions(context: Context, request: ListSuppressions) -> SuppressionPage:
    """By address, a page at a time."""
    async with context.reading() as connection:
        client = await clients.find(connection, request.name)
        found = await suppressions.page(
            connection,
            client.id,
            after=request.cursor,
            reason=request.reason,
            domain=request.domain,
            limit=request.limit,
        )
    cursor = found[-1].address if len(found) == request.limit else None
    return SuppressionPage(items=[SuppressionView.model_validate(each) for each in found], cursor=cursor)


async def add_suppression(context: Context, request: AddSuppression) -> SuppressionView:
    """From within a second on it is refused. What is queued for it goes all the same."""
    address = Address.parse(request.address)
    async with context.writing() as connection:
        client = await clients.find_to_use(connection, request.name)
        expires_at = await messages.now(connection) + timedelta(days=request.days) if request.days else None
        new = NewSuppression(client.id, address, SuppressionReason.MANUAL, request.detail, expires_at=expires_at)
        await _audit(connection, client.name, "add", [address])
        await suppressions.add(connection, [new])
        found = await suppressions.find(connection, client.id, address)
    assert found is not None
    return SuppressionView.model_validate(found)


async def import_suppressions(context: Context, request: ImportSuppressions) -> Added:
    """In one transaction. What is on the list already stays, for the longer of the two times."""
    async with context.writing() as connection:
        client = await clients.find_to_use(connection, request.name)
        now = await messages.now(connection)
        new = [
            NewSuppression(
                client.id,
                Address.parse(each.address),
                each.reason or SuppressionReason.IMPORT,
                each.detail,
                expires_at=each.expires_at,
            )
            for each in request.items
            if each.expires_at is None or each.expires_at > now
        ]
        await _audit(connection, client.name, "import", [each.address for each in new])
        added = await suppressions.add(connection, new)
    return Added(added=added, known=len(new) - added, expired=len(request.items) - len(new))


async def remove_suppression(context: Context, request: OneSuppression) -> Lifted:
    """Mail to it is taken again at once."""
    address = Address.parse(request.address)
    async with context.writing() as connection:
        client = await clients.find_to_use(connection, request.name)
        if not await suppressions.remove(connection, client.id, [address]):
            raise NotFound(
                f"{address} is not on the suppression list of client {client.name}",
                hint=f"relayd suppression list --client {client.name} --domain {address.ascii_domain}",
            )
        await _audit(connection, client.name, "remove", [address])
    return Lifted(address=address.key)


async def _audit(connection: Connection, client: str, deed: str, addresses: Sequence[Address]) -> None:
    some = [address.key for address in addresses[:3]]
    await operation_audit.record(
        connection, "suppressions", deed, {"client": client, "count": len(addresses), "addresses": some}
    )


_LIST = "/v1/clients/{name}/suppressions"
ROUTES = (
    Route("GET", _LIST, list_suppressions, "List a client's suppressions", ListSuppressions, SuppressionPage),
    Route("POST", _LIST, add_suppression, "Suppress an address", AddSuppression, SuppressionView),
    Route("POST", f"{_LIST}/import", import_suppressions, "Suppress many addresses", ImportSuppressions, Added),
    Route("DELETE", f"{_LIST}/{{address}}", remove_suppression, "Lift a suppression", OneSuppression, Lifted),
)
