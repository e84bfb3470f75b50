"""Handlers for upstreams. Passwords come in, are sealed at once, and never go out."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, computed_field

from relayd.control import tiers
from relayd.control.route import Context, Named, Removed, Request, Route, View, changes
from relayd.control.upstream_kinds import caution_of, check, completed, with_tls_of_port, without_defaults
from relayd.control.upstream_options import Provider, UpstreamOptions, changed
from relayd.control.values import Key, Line, Name
from relayd.control.versions import check_all_know
from relayd.rules.doubt import way_of
from relayd.rules.known_hosts import Dkim, signing_for
from relayd.store import breakers, clients, oauth_tokens, operation_audit, steering, upstreams
from relayd.store.connection import Connection
from relayd.store.ids import new_id
from relayd.store.upstreams import UpstreamRecord


class AddUpstream(UpstreamOptions):
    """A new upstream. `client` left out: shared by all clients."""

    name: Name
    provider: Provider
    client: Key | None = None


class SetUpstream(UpstreamOptions):
    """What to change of an upstream; what is left out stays."""

    name: Key
    is_active: bool = True


class SetBreaker(Request):
    """`open`: no mail goes through it until somebody says `close`; with `close` it is used at once."""

    name: Key
    state: Literal["open", "close"]
    reason: Line | None = None


class ListUpstreams(Request):
    """`client`: only those that it may use."""

    client: Key | None = None


class DeadGrantView(View):
    """A grant that gives no token until somebody mends it. `subject`: for which account, empty for its own."""

    subject: str
    died_at: datetime
    error: str


Has = Annotated[bool, BeforeValidator(lambda sealed: sealed is not None)]


class UpstreamView(View):
    """An upstream; of its secrets only whether it has them."""

    id: UUID
    name: str
    provider: str = Field(validation_alias="provider_type")
    client: str | None
    mode: str | None
    dialect: str | None
    host: str | None = Field(validation_alias="smtp_host")
    port: int | None = Field(validation_alias="smtp_port")
    tls: str | None = Field(validation_alias="smtp_tls")
    verify_certificate: bool = Field(validation_alias="smtp_verify_certificate")
    ca_file: str | None = Field(validation_alias="smtp_ca_file")
    username: str | None = Field(validation_alias="smtp_username")
    has_password: Has = Field(validation_alias="smtp_password_sealed")
    auth_mechanism: str | None = Field(validation_alias="smtp_auth_mechanism")
    allow_plaintext_auth: bool = Field(validation_alias="smtp_allow_plaintext_auth")
    client_certificate: str | None = Field(validation_alias="smtp_client_certificate")
    api_url: str | None
    has_api_key: Has = Field(validation_alias="api_key_sealed")
    token_url: str | None
    authorization_url: str | None
    oauth_client_id: str | None
    has_oauth_client_secret: Has = Field(validation_alias="oauth_client_secret_sealed")
    oauth_account: str | None
    has_refresh_token: Has = Field(validation_alias="oauth_refresh_token_sealed")
    google_service_account: str | None
    ehlo_name: str | None
    source_address: str | None
    max_connections: int
    max_recipients: int
    max_messages_per_connection: int
    idle_seconds: float
    on_uncertain: str
    directory: str | None = Field(validation_alias="capture_directory")
    sender_address: str | None
    sender_name: str | None
    spf_include: str | None
    dkim: str | None
    is_active: bool
    is_verified: bool
    breaker: str
    breaker_reason: str | None
    breaker_retry_at: datetime | None
    consecutive_failures: int
    last_failure: str | None
    last_failed_at: datetime | None
    paused_at: datetime | None
    paused_reason: str | None
    created_at: datetime
    updated_at: datetime
    dead_grants: tuple[DeadGrantView, ...] = ()  # told where one upstream is shown

    @computed_field
    def caution(self) -> str | None:
        """What an operator should know who chooses this way of sending."""
        return caution_of(self.provider, self.mode, self.port, self.tls)

    @computed_field
    def signatures(self) -> str:
        """Which DKIM signatures its mail has, and the fields that they leave out."""
        signing = signing_for(self.provider, self.dialect, self.host, self.dkim)
        rewritten = " and ".join(sorted(name.decode() for name in signing.rewritten))
        is_partial = rewritten and signing.dkim is not Dkim.NONE
        return f"{signing.dkim}, without {rewritten}" if is_partial else str(signing.dkim)


class UpstreamList(View):
    """Upstreams by name."""

    items: list[UpstreamView]


async def add_upstream(context: Context, request: AddUpstream) -> UpstreamView:
    """What is not said is as its kind has it."""
    upstream = UpstreamRecord(new_id(), request.name, request.provider)
    given = request.model_fields_set & UpstreamOptions.model_fields.keys()
    upstream = changed(context.house.seal, upstream, {name: getattr(request, name) for name in given})
    upstream = completed(upstream)
    check(upstream)
    async with context.writing() as connection:
        if request.client is not None:
            upstream = replace(upstream, client_id=(await clients.find_to_use(connection, request.client)).id)
        await _check_lookable(connection, None, upstream)
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
        upstream = await upstreams.find(connection, request.name)
        dead = tuple(map(DeadGrantView.model_validate, await oauth_tokens.dead(connection, upstream.id)))
    return UpstreamView.model_validate(upstream).model_copy(update={"dead_grants": dead})


async def set_upstream(context: Context, request: SetUpstream) -> UpstreamView:
    """Workers take it over within a second; connections under way end as they began."""
    wanted = changes(request, but="name")
    async with context.writing() as connection:
        if "source_address" in wanted:
            await _lock_owner(connection, request.name)
        before = await upstreams.find_to_change(connection, request.name)
        if "mode" in wanted:
            upstream = completed(changed(context.house.seal, without_defaults(before), wanted))
        else:
            upstream = changed(context.house.seal, before, wanted)
        if "port" in wanted and not {"tls", "mode"} & wanted.keys():
            upstream = with_tls_of_port(before, upstream)
        check(upstream)
        await _check_lookable(connection, before, upstream)
        saved = await upstreams.save(connection, upstream)
        if "source_address" in wanted:
            await _check_dedicated(context, connection, saved)
    context.house.wake()
    return UpstreamView.model_validate(saved)


async def set_breaker(context: Context, request: SetBreaker) -> UpstreamView:
    """Lanes follow; upkeep moves those that are not moved at once."""
    async with context.writing() as connection:
        upstream = await upstreams.find(connection, request.name)
        if request.state == "open":
            await breakers.hold_open(connection, upstream.id, request.reason or f"held open by {context.actor}")
        else:
            await breakers.close(connection, upstream.id)
        details = {"upstream": upstream.name, "reason": request.reason}
        await operation_audit.record(connection, "upstream_breakers", f"breaker {request.state}", details)
    await steering.steer(context.house.database, upstream.id)
    await steering.let_go(context.house.database, upstream.id)
    context.house.wake()
    async with context.reading() as connection:
        return UpstreamView.model_validate(await upstreams.find(connection, request.name))


async def remove_upstream(context: Context, request: Named) -> Removed:
    """Refused while a mailbox sends through it."""
    async with context.writing() as connection:
        await upstreams.remove(connection, await upstreams.find_to_change(connection, request.name))
    return Removed(name=request.name)


async def _check_lookable(connection: Connection, before: UpstreamRecord | None, after: UpstreamRecord) -> None:
    # Older nodes would take a doubt for one that nobody can resolve.
    way = way_of(after.provider_type, after.mode)
    if way is not None and (before is None or way_of(before.provider_type, before.mode) is not way):
        await check_all_know(connection, f"an upstream in mode {after.mode}")


async def _lock_owner(connection: Connection, name: str) -> None:
    # A client is locked before what it owns, and its room is to be weighed.
    owner = (await upstreams.find(connection, name)).client_id
    if owner is not None:
        await clients.lock_holdings(connection, owner)


async def _check_dedicated(context: Context, connection: Connection, upstream: UpstreamRecord) -> None:
    if upstream.client_id is not None and upstream.source_address is not None:
        await tiers.check_room(connection, context.house.tiers, upstream.client_id, "dedicated_ips")


ROUTES = (
    Route("POST", "/v1/upstreams", add_upstream, "Add an upstream", AddUpstream, UpstreamView),
    Route("GET", "/v1/upstreams", list_upstreams, "List the upstreams", ListUpstreams, UpstreamList),
    Route("GET", "/v1/upstreams/{name}", show_upstream, "Show an upstream", Named, UpstreamView),
    Route("PATCH", "/v1/upstreams/{name}", set_upstream, "Change an upstream", SetUpstream, UpstreamView),
    Route("POST", "/v1/upstreams/{name}/breaker", set_breaker, "Open or close its breaker", SetBreaker, UpstreamView),
    Route("DELETE", "/v1/upstreams/{name}", remove_upstream, "Remove an upstream", Named, Removed),
)
