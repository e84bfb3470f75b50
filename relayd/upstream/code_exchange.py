"""Make of an authorization code what a login is about: a refresh token, and whose it is (RFC 6749 4.1.3)."""

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from relayd.errors import Refusal
from relayd.rules.outcome import Stage
from relayd.upstream.http import HttpClient, HttpFailure, HttpReply
from relayd.upstream.redaction import redacted, spellings
from relayd.upstream.verdict import clean, judge_exception

GMAIL_URL = "https://gmail.googleapis.com"
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
_NOTHING = "nothing was stored"


@dataclass(frozen=True, slots=True)
class Code:
    """What is exchanged, and with what. None of it is shown."""

    code: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewGrant:
    """`account` is whose it is, where the provider has said so."""

    refresh_token: str = field(repr=False)
    account: str | None


async def exchange(
    http: HttpClient, token_url: str, code: Code, *, scopes: Collection[str], profile_url: str | None
) -> NewGrant:
    """Raises Refusal, which says what went wrong and what to do. `profile_url`: where Gmail says whose token it is."""
    form = {
        "grant_type": "authorization_code",
        "code": code.code,
        "client_id": code.client_id,
        "client_secret": code.client_secret,
        "redirect_uri": code.redirect_uri,
        "code_verifier": code.verifier,
    }
    reply = await _ask(http, "POST", token_url, headers=_FORM, data=urlencode(form).encode())
    answer = _object(reply)
    if reply.status != 200:
        error, description = (_shown(answer.get(name), code) for name in ("error", "error_description"))
        said = f"{error or reply.status}: {description}" if description else error or f"HTTP status {reply.status}"
        raise Refusal(f"the code was not taken ({said}); {_NOTHING}", hint=_cure(error))
    _check_scopes(answer, scopes)
    refresh_token = answer.get("refresh_token")
    if not isinstance(refresh_token, str) or not refresh_token or not refresh_token.isprintable():
        raise Refusal(
            f"the answer has no refresh token: the account had allowed this before; {_NOTHING}",
            hint="take the access away at https://myaccount.google.com/permissions, then login again",
        )
    account = _named(answer.get("id_token"))
    if account is None and profile_url is not None:
        account = await _profile(http, profile_url, str(answer.get("access_token", "")))
    return NewGrant(refresh_token, account)


async def _ask(http: HttpClient, method: str, url: str, **request: Any) -> HttpReply:
    try:
        return await http.request(method, url, **request)
    except HttpFailure as failure:
        cause = judge_exception(Stage.CONNECT, failure.error).cause.text
        raise Refusal(f"the token server cannot be asked: {cause}; {_NOTHING}", hint="login again") from None


def _check_scopes(answer: Mapping[str, Any], scopes: Collection[str]) -> None:
    granted = answer.get("scope")
    if not isinstance(granted, str):
        return  # RFC 6749 5.1: what is not said is as it was asked for
    missing = [scope for scope in scopes if scope not in granted.split() and scope.startswith("https://")]
    if missing:
        raise Refusal(
            f"not all was allowed, missing: {', '.join(missing)}; {_NOTHING}",
            hint="login again and tick every box of the consent page",
        )


def _named(id_token: Any) -> str | None:
    """The address in an ID token, which came from the provider itself over TLS (OpenID Connect Core 3.1.3.7, 6)."""
    try:
        payload = str(id_token).split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        email = claims.get("email")
    except (ValueError, IndexError, AttributeError):
        return None
    return email if isinstance(email, str) and email.isprintable() and "@" in email else None


async def _profile(http: HttpClient, url: str, token: str) -> str | None:
    try:
        reply = await http.request("GET", url, headers={"Authorization": f"Bearer {token}"})
    except HttpFailure:
        return None
    email = _object(reply).get("emailAddress") if reply.status == 200 else None
    return email if isinstance(email, str) and email.isprintable() else None


def _object(reply: HttpReply) -> Mapping[str, Any]:
    try:
        content = json.loads(reply.content)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _shown(text: Any, code: Code) -> str:
    if not isinstance(text, str):
        return ""
    return clean(redacted(text, spellings((code.code, code.verifier, code.client_secret))))[:300]


def _cure(error: str) -> str:
    match error:
        case "invalid_client" | "unauthorized_client":
            return "check --oauth-client-id and --oauth-client-secret-file with relayd upstream set"
        case "redirect_uri_mismatch":
            return "make an OAuth client of type Desktop app: it may redirect to any port of this machine"
        case _:
            return "codes last minutes and serve once: login again"
