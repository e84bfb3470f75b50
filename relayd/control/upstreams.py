"""Handlers for upstreams. Passwords come in, are sealed at once, and never go out."""

from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyAddress, SecretStr

from relayd.control import tiers
from relayd.control.route import Context, House, Named, Removed, Request, Route, View, changes
from relayd.control.values import EmailAddress, Key, Line, Name
from relayd.errors import BadValue
from relayd.store import clients, upstreams
from relayd.store.connection import Connection
from relayd.store.ids import new_id
from relayd.store.upstreams import UpstreamRecord

_DEFAULT_PORTS = {"starttls": 587, "implicit": 465, "none": 25}
# What the API calls otherwise than the table does.
_COLUMNS = {
    "host": "smtp_host",
    "port": "smtp_port",
    "tls": "smtp_tls",
    "verify_certificate": "smtp_verify_certificate",
    "ca_file": "smtp_ca_file",
    "username": "smtp_username",
    "auth_mechanism": "smtp_auth_mechanism",
    "allow_plaintext_auth": "smtp_allow_plaintext_auth",
    "directory": "capture_directory",
}


def _absolute(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise ValueError("must be an absolute path, as the relayd server sees it")
    return text


def _password(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().isprintable():
        raise ValueError("must be one line without control characters")
    return secret


ServerPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_absolute)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=1024), AfterValidator(_password)]


class UpstreamOptions(Request):
    """What may be given when an upstream is added and changed later."""

    host: Line | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["none", "starttls", "implicit"] | None = None
    verify_certificate: bool = True
    ca_file: ServerPath | None = None
    username: Line | None = None
    password: Password | None = None
    auth_mechanism: Literal["PLAIN", "LOGIN"] | None = None
    allow_plaintext_auth: bool = False
    ehlo_name: Line | None = None
    source_address: IPvAnyAddress | None = None
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 20
    max_recipients: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_messages_per_connection: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    on_uncertain: Literal["retry", "hold"] = "retry"
    directory: ServerPath | None = None
    sender_address: EmailAddress | None = None
    sender_name: Line | None = None


class AddUpstream(UpstreamOptions):
    """A new upstream. `client` left out: shared by all clients."""

    name: Name
    provider: Literal["smtp_relay", "capture", "google_workspace", "sendgrid"]
    client: Key | None = None


class SetUpstream(UpstreamOptions):
    """What to change of an upstream; what is left out stays."""

    name: Key
    is_active: bool = True


class ListUpstreams(Request):
    """`client`: only those that it may use."""

    client: Key | None = None


class UpstreamView(View):
    """An upstream; of its password only whether it has one."""

    id: UUID
    name: str
    provider: str = Field(validation_alias="provider_type")
    client: str | None
    host: str | None = Field(validation_alias="smtp_host")
    port: int | None = Field(validation_alias="smtp_port")
    tls: str | None = Field(validation_alias="smtp_tls")
    verify_certificate: bool = Field(validation_alias="smtp_verify_certificate")
    ca_file: str | None = Field(validation_alias="smtp_ca_file")
    username: str | None = Field(validation_alias="smtp_username")
    has_password: Annotated[bool, BeforeValidator(lambda sealed: sealed is not None)] = Field(
        validation_alias="smtp_password_sealed"
    )
    auth_mechanism: str | None = Field(validation_alias="smtp_auth_mechanism")
    allow_plaintext_auth: bool = Field(validation_alias="smtp_allow_plaintext_auth")
    ehlo_name: str | None
    source_address: str | None
    max_connections: int
    max_recipients: int
    max_messages_per_connection: int
    on_uncertain: str
    directory: str | None = Field(validation_alias="capture_directory")
    sender_address: str | None
    sender_name: str | None
    is_active: bool
    paused_at: datetime | None
    paused_reason: str | None
    created_at: datetime
    updated_at: datetime


class UpstreamList(View):
    """Upstreams by name."""

    items: list[UpstreamView]


async def add_upstream(context: Context, request: AddUpstream) -> UpstreamView:
    """Providers other than smtp_relay and capture are refused in this version."""
    if request.provider not in ("smtp_relay", "capture"):
        raise BadValue(
            f"provider {request.provider} is not supported by this version", hint="use smtp_relay or capture"
        )
    upstream = UpstreamRecord(new_id(), request.name, request.provider)
    given = request.model_fields_set & UpstreamOptions.model_fields.keys()
    wanted = {name: getattr(request, name) for name in given}
    upstream = _with_defaults(_changed(context.house, upstream, wanted))
    _check(upstream)
    async with context.writing() as connection:
        if request.client is not None:
            upstream = replace(upstream, client_id=(await clients.find_to_use(connection, request.client)).id)
        added = await upstreams.add(connection, upstream)
        await _check_dedicated(context, connection, added)
    return UpstreamView.model_validate(added)


async def list_upstreams(context: Context, request: ListUpstreams) -> UpstreamList:
    """By name."""
    async with context.reading() as connection:
        client_id = (await clients.find(connection, request.client)).id if request.client else None
        return UpstreamList.model_validate({"items": await upstreams.living(connection, client_id=client_id)})


async def show_upstream(context: Context, request: Named) -> UpstreamView:
    """One of them."""
    async with context.reading() as connection:
        return UpstreamView.model_validate(await upstreams.find(connection, request.name))


async def set_upstream(context: Context, request: SetUpstream) -> UpstreamView:
    """Workers take it over within a second; connections under way end as they began."""
    wanted = changes(request, but="name")
    async with context.writing() as connection:
        upstream = await upstreams.find_to_change(connection, request.name)
        upstream = _changed(context.house, upstream, wanted)
        _check(upstream)
        saved = await upstreams.save(connection, upstream)
        if "source_address" in wanted:
            await _check_dedicated(context, connection, saved)
    context.house.wake()
    return UpstreamView.model_validate(saved)


async def remove_upstream(context: Context, request: Named) -> Removed:
    """Refused while a mailbox sends through it."""
    async with context.writing() as connection:
        await upstreams.remove(connection, await upstreams.find_to_change(connection, request.name))
    return Removed(name=request.name)


async def _check_dedicated(context: Context, connection: Connection, upstream: UpstreamRecord) -> None:
    if upstream.client_id is not None and upstream.source_address is not None:
        await tiers.check_room(connection, context.house.tiers, upstream.client_id, "dedicated_ips")


def _changed(house: House, upstream: UpstreamRecord, wanted: dict[str, Any]) -> UpstreamRecord:
    columns = {_COLUMNS.get(name, name): value for name, value in wanted.items() if name != "password"}
    if columns.get("source_address") is not None:
        columns["source_address"] = str(columns["source_address"])
    if "password" in wanted:
        password: SecretStr | None = wanted["password"]
        columns["smtp_password_sealed"] = password and house.seal.seal(
            password.get_secret_value().encode(), row=upstream.password_seal_row
        )
    return replace(upstream, **columns)


def _with_defaults(upstream: UpstreamRecord) -> UpstreamRecord:
    if upstream.provider_type != "smtp_relay":
        return upstream
    tls = upstream.smtp_tls or "starttls"
    return replace(upstream, smtp_tls=tls, smtp_port=upstream.smtp_port or _DEFAULT_PORTS[tls])


def _check(upstream: UpstreamRecord) -> None:
    if upstream.provider_type == "capture":
        _check_capture(upstream)
    else:
        _check_smtp_relay(upstream)


def _check_capture(upstream: UpstreamRecord) -> None:
    if upstream.capture_directory is None:
        raise BadValue("directory is required for capture: the Maildir to deliver into")
    foreign = [name for name in _COLUMNS if name != "directory" and _is_given(upstream, _COLUMNS[name])]
    if foreign:
        raise BadValue(f"capture does not connect anywhere: {', '.join(foreign)} cannot be used with it")


def _is_given(upstream: UpstreamRecord, column: str) -> bool:
    return bool(getattr(upstream, column) != UpstreamRecord.__dataclass_fields__[column].default)


def _check_smtp_relay(upstream: UpstreamRecord) -> None:
    missing = [name for name in ("host", "port", "tls") if getattr(upstream, _COLUMNS[name]) is None]
    if missing:
        raise BadValue(f"{', '.join(missing)} is required for smtp_relay")
    if upstream.capture_directory is not None:
        raise BadValue("directory is for capture; smtp_relay keeps no mail")
    if (upstream.smtp_username is None) != (upstream.smtp_password_sealed is None):
        raise BadValue("username and password go together", hint="give --username and --password-file, or neither")
    if upstream.smtp_username and upstream.smtp_tls == "none" and not upstream.smtp_allow_plaintext_auth:
        raise BadValue(
            "the password would cross the network in the clear",
            hint="use --tls starttls or implicit; --allow-plaintext-auth permits it all the same",
        )


ROUTES = (
    Route("POST", "/v1/upstreams", add_upstream, "Add an upstream", AddUpstream, UpstreamView),
    Route("GET", "/v1/upstreams", list_upstreams, "List the upstreams", ListUpstreams, UpstreamList),
    Route("GET", "/v1/upstreams/{name}", show_upstream, "Show an upstream", Named, UpstreamView),
    Route("PATCH", "/v1/upstreams/{name}", set_upstream, "Change an upstream", SetUpstream, UpstreamView),
    Route("DELETE", "/v1/upstreams/{name}", remove_upstream, "Remove an upstream", Named, Removed),
)
