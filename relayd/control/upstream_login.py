"""Handlers for the grants of upstreams: a user's login, a service account's key. Secrets are sealed at once."""

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlencode, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from relayd.control.route import Context, Request, Route, View
from relayd.control.upstream_kinds import check
from relayd.control.values import Key, Line
from relayd.errors import BadValue, Refusal
from relayd.store import upstreams
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.code_exchange import GMAIL_URL, Code, NewGrant, exchange
from relayd.upstream.grants import TOKEN_URL
from relayd.upstream.http import HttpClient, Timeouts
from relayd.upstream.scopes import IDENTITY, scopes_of
from relayd.upstream.service_account import parse_key

AUTHORIZATION_URL = "https://accounts.google.com/o/oauth2/v2/auth"
_TIMEOUTS = Timeouts(connect=10.0, total=20.0)


def _loopback(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1") or parts.query or parts.fragment:
        raise ValueError("must be an address of this machine such as http://127.0.0.1:8765/ (RFC 8252 7.3)")
    return text


Secret = Annotated[SecretStr, Field(min_length=1, max_length=4096)]


class BeginLogin(Request):
    """`redirect_uri`: where the browser brings the code. `scopes`: what other providers than Google want named."""

    name: Key
    redirect_uri: Annotated[str, Field(max_length=200), AfterValidator(_loopback)]
    scopes: Annotated[list[Line], Field(max_length=20)] | None = None


class LoginBegun(View):
    """Open the address in a browser; finish with the state and the code that its redirect carries."""

    authorization_url: str
    state: str
    scopes: list[str]


class FinishLogin(Request):
    """What the redirect carried: `code`, or `error` if the person has said no."""

    name: Key
    state: Annotated[str, Field(min_length=1, max_length=200)]
    code: Secret | None = None
    error: Annotated[str, Field(max_length=200)] | None = None


class SetServiceAccount(Request):
    """`key` is the text of the key file."""

    name: Key
    key: Annotated[SecretStr, Field(min_length=1, max_length=65536)]


class Granted(View):
    """An upstream whose grant is new. For a service account: what the Admin console has to be told."""

    name: str
    kind: Literal["user", "service account"]
    account: str
    client_id: str | None
    scopes: list[str]


async def begin_login(context: Context, request: BeginLogin) -> LoginBegun:
    """Nothing is stored: the verifier stays in memory for ten minutes."""
    async with context.reading() as connection:
        upstream = await upstreams.find(connection, request.name)
    _check_can_log_in(upstream)
    # What would be refused then is said before anybody goes to a browser for it.
    check(_with_grant(upstream, b""))
    is_google = upstream.provider_type == "google_workspace"
    scopes = tuple(request.scopes or (*scopes_of(upstream.mode), *IDENTITY))
    address = upstream.authorization_url or (AUTHORIZATION_URL if is_google else None)
    if address is None or (not is_google and request.scopes is None):
        raise BadValue(
            f"upstream {upstream.name} is not Google's: where and for what to log in has to be said",
            hint=f"relayd upstream set {upstream.name} --authorization-url URL --token-url URL, then login --scope S",
        )
    state, pending = context.house.logins.begin(upstream.id, request.redirect_uri, scopes)
    query = {
        "response_type": "code",
        "client_id": upstream.oauth_client_id,
        "redirect_uri": request.redirect_uri,
        "scope": " ".join(scopes),
        "state": state,
        "code_challenge": pending.challenge,
        "code_challenge_method": "S256",
        # Without these two Google gives a refresh token at the first consent alone.
        "access_type": "offline",
        "prompt": "consent",
        **({"login_hint": upstream.oauth_account} if upstream.oauth_account else {}),
    }
    return LoginBegun(authorization_url=f"{address}?{urlencode(query)}", state=state, scopes=list(scopes))


async def finish_login(context: Context, request: FinishLogin) -> Granted:
    """The code is exchanged here: the client's secret never leaves the daemon."""
    async with context.reading() as connection:
        upstream = await upstreams.find(connection, request.name)
    pending = context.house.logins.take(request.state, upstream.id)
    if request.error is not None or request.code is None:
        said = request.error or "no code"
        raise Refusal(
            f"the login was not allowed ({said}); nothing was stored",
            hint=f"allow it, or have the administrator do so, and begin again: relayd upstream login {upstream.name}",
        )
    code = Code(request.code.get_secret_value(), pending.verifier, pending.redirect_uri, *_client(context, upstream))
    granted = await _exchanged(upstream, code, pending.scopes)
    account = _whose(upstream, granted)
    async with context.writing() as connection:
        current = await upstreams.find_to_change(connection, request.name)
        if current.id != upstream.id or current.oauth_client_id != upstream.oauth_client_id:
            raise Refusal("the upstream was changed meanwhile; nothing was stored", hint="login again")
        row = current.seal_row("oauth_refresh_token")
        sealed = context.house.seal.seal(granted.refresh_token.encode(), row=row)
        current = replace(_with_grant(current, sealed), oauth_account=account)
        check(current)
        await upstreams.save(connection, current)
    context.house.wake()
    return Granted(name=upstream.name, kind="user", account=account, client_id=None, scopes=list(pending.scopes))


async def set_service_account(context: Context, request: SetServiceAccount) -> Granted:
    """It takes the place of a user's grant."""
    key = parse_key(request.key.get_secret_value())
    async with context.writing() as connection:
        upstream = await upstreams.find_to_change(connection, request.name)
        if upstream.provider_type != "google_workspace":
            raise BadValue(f"upstream {upstream.name} is {upstream.provider_type}: only Google knows service accounts")
        row = upstream.seal_row("google_service_account")
        upstream = replace(
            upstream,
            google_service_account=key.email,
            google_service_account_sealed=context.house.seal.seal(key.as_json(), row=row),
            oauth_account=None,
            oauth_refresh_token_sealed=None,
        )
        check(upstream)
        await upstreams.save(connection, upstream)
    context.house.wake()
    scopes = list(scopes_of(upstream.mode))
    return Granted(
        name=upstream.name, kind="service account", account=key.email, client_id=key.client_id, scopes=scopes
    )


def _check_can_log_in(upstream: UpstreamRecord) -> None:
    if upstream.provider_type not in ("google_workspace", "smtp_relay"):
        raise BadValue(f"upstream {upstream.name} is {upstream.provider_type}: nobody logs in to it")
    if upstream.oauth_client_id is None:
        raise BadValue(
            f"upstream {upstream.name} has no OAuth client",
            hint="make one of type Desktop app at console.cloud.google.com, APIs & Services, Credentials; then: "
            f"relayd upstream set {upstream.name} --oauth-client-id ID --oauth-client-secret-file FILE",
        )


def _with_grant(upstream: UpstreamRecord, refresh_token_sealed: bytes) -> UpstreamRecord:
    """A user's login takes the place of a service account's key."""
    return replace(
        upstream,
        oauth_refresh_token_sealed=refresh_token_sealed,
        google_service_account=None,
        google_service_account_sealed=None,
    )


def _client(context: Context, upstream: UpstreamRecord) -> tuple[str, str]:
    _check_can_log_in(upstream)
    assert upstream.oauth_client_id is not None
    sealed = upstream.oauth_client_secret_sealed
    if sealed is None:
        return upstream.oauth_client_id, ""
    secret = context.house.seal.open(sealed, row=upstream.seal_row("oauth_client_secret"))
    return upstream.oauth_client_id, secret.decode()


async def _exchanged(upstream: UpstreamRecord, code: Code, scopes: tuple[str, ...]) -> NewGrant:
    is_google = upstream.provider_type == "google_workspace"
    profile = f"{upstream.api_url or GMAIL_URL}/gmail/v1/users/me/profile" if is_google else None
    http = HttpClient(max_connections=1, tls=trusting(upstream.smtp_ca_file), timeouts=_TIMEOUTS)
    try:
        return await exchange(http, upstream.token_url or TOKEN_URL, code, scopes=scopes, profile_url=profile)
    finally:
        await http.close()


def trusting(ca_file: str | None) -> ssl.SSLContext | None:
    """The upstream's own authorities, None for the system's. Raises BadValue if the file cannot be used."""
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=Path(ca_file).read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not PEM"
        raise BadValue(f"ca_file {ca_file} cannot be used: {reason}") from None


def _whose(upstream: UpstreamRecord, granted: NewGrant) -> str:
    wanted = upstream.oauth_account or upstream.smtp_username
    account = granted.account or wanted
    if account is None:
        raise Refusal(
            "the provider does not say whose login it was; nothing was stored",
            hint=f"relayd upstream set {upstream.name} --oauth-account ADDRESS, then login again",
        )
    if upstream.oauth_account is not None and account.lower() != upstream.oauth_account.lower():
        raise Refusal(
            f"{account} has logged in, but the upstream's account is {upstream.oauth_account}; nothing was stored",
            hint=f"login again as {upstream.oauth_account}, or first: relayd upstream set {upstream.name}"
            f" --oauth-account {account}",
        )
    return account


ROUTES = (
    Route("POST", "/v1/upstreams/{name}/login", begin_login, "Begin a login by browser", BeginLogin, LoginBegun),
    Route(
        "POST", "/v1/upstreams/{name}/login/finish", finish_login, "Take what the browser brought", FinishLogin, Granted
    ),
    Route(
        "POST",
        "/v1/upstreams/{name}/service-account",
        set_service_account,
        "Log in with a service account's key",
        SetServiceAccount,
        Granted,
    ),
)
