"""Google's authorization and token endpoints, over TLS: JWTs are verified, PKCE too, every token issued is on record.

    async with GoogleOauth(authority) as google:
        refresh_token = google.grant("noreply@example.com")
        key = google.service_account(users=["noreply@example.com"])  # the text of a key file
        ...  # with token_url=google.token_url, ca_file=authority.file
    google.issued[token].account

What the token endpoint answers next can be put into `script`: an `Answer`, or one of the classes below. With nothing
there it answers as Google does.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.peers.mail import Authority
from tests.peers.winding_up import hang_up

MAIL = "https://mail.google.com/"
AUDIENCE = "https://oauth2.googleapis.com/token"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True)
class Answer:
    """This status and body, whatever is asked."""

    status: int
    body: Mapping[str, Any] | str

    @classmethod
    def error(cls, error: str, description: str = "", status: int = 400) -> "Answer":
        return cls(status, {"error": error, "error_description": description})


@dataclass(frozen=True)
class Slow:
    """Answer as Google does once `event` is set."""

    event: asyncio.Event


@dataclass(frozen=True)
class Endless:
    """Begin an answer that never ends."""


@dataclass(frozen=True)
class Cut:
    """Hang up without an answer."""


@dataclass(frozen=True)
class Issued:
    """What an access token is good for."""

    account: str
    scopes: frozenset[str]


@dataclass
class Grant:
    """What a user has allowed."""

    account: str
    scopes: frozenset[str]


@dataclass
class ServiceAccount:
    """A service account with delegation for these scopes over these users."""

    public_key: rsa.RSAPublicKey
    scopes: frozenset[str]
    users: set[str]


@dataclass
class Pending:
    """A code that a redirect carried."""

    grant: Grant
    challenge: str
    redirect_uri: str


@dataclass
class GoogleOauth:
    """Running between `async with`. `lifetime` is that of access tokens, in seconds."""

    authority: Authority
    client_id: str = "client-1.apps.example.com"
    client_secret: str = "canary-client-secret"
    lifetime: int = 3600
    clock_offset: float = 0.0  # of its Date header
    signs_in_as: str = "noreply@example.com"  # who consents at the authorization address
    gives_refresh_token: bool = True
    # What comes with an access token for a refresh token: nothing, the same one again, or the next one, while the one
    # before it stays good or is good no more. With `strict` one that comes a second time ends the whole grant.
    exchanges: Literal["never", "same", "keeps", "revokes", "strict"] = "never"
    spent: dict[str, str] = field(default_factory=dict)  # of strict: each spent refresh token, and the next one
    gives_id_token: bool = True
    withheld_scopes: frozenset[str] = frozenset()
    script: deque[Answer | Slow | Endless | Cut] = field(default_factory=deque)
    grants: dict[str, Grant] = field(default_factory=dict)
    service_accounts: dict[str, ServiceAccount] = field(default_factory=dict)
    issued: dict[str, Issued] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    requests: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, Pending] = field(default_factory=dict)
    send_as: dict[str, list[str]] = field(default_factory=dict)
    under_way: int = 0
    most_under_way: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    @property
    def authorization_url(self) -> str:
        return f"{self.url}/o/oauth2/v2/auth"

    def refreshes(self, subject: str | None = None) -> int:
        """How many access tokens were asked for, in any way but a code; of one service account's subject."""
        asked = [each for each in self.requests if each["grant_type"] != "authorization_code"]
        return sum(subject is None or each.get("sub") == subject for each in asked)

    def grant(self, account: str = "noreply@example.com", scopes: Collection[str] = (MAIL,)) -> str:
        """A user's refresh token."""
        token = f"1//canary-refresh-{secrets.token_urlsafe(16)}"
        self.grants[token] = Grant(account, frozenset(scopes))
        return token

    def service_account(
        self, *, users: Collection[str], scopes: Collection[str] = (MAIL,), name: str = "relay", **changes: Any
    ) -> str:
        """The text of a new service account's key file."""
        key = _key(len(self.service_accounts) if name == "relay" else 2)
        email = f"{name}@project.iam.example.com"
        self.service_accounts[email] = ServiceAccount(key.public_key(), frozenset(scopes), set(users))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        content = {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "canary-key-id",
            "private_key": pem.decode(),
            "client_email": email,
            "client_id": "104000000000000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": AUDIENCE,
        }
        return json.dumps(content | changes)

    def allows(self, token: str, account: str, scope: str = MAIL) -> bool:
        """Whether a server of Google's would let this token in for that account."""
        found = self.issued.get(token)
        if found is None or token in self.revoked:
            return False
        return found.account.lower() == account.lower() and scope in found.scopes

    def issue(self, account: str, scopes: Collection[str]) -> str:
        """A new access token."""
        token = f"ya29.canary-access-{secrets.token_urlsafe(24)}"
        self.issued[token] = Issued(account, frozenset(scopes))
        return token

    async def consent(self, authorization_url: str) -> str:
        """Do what a person's browser does at that address; the redirect that it is sent to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(authorization_url).query).items()}
        assert asked["response_type"] == "code" and asked["client_id"] == self.client_id
        assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
        assert asked["access_type"] == "offline" and asked["prompt"] == "consent"
        code = f"4/canary-code-{secrets.token_urlsafe(16)}"
        scopes = frozenset(asked["scope"].split()) - self.withheld_scopes
        grant = Grant(self.signs_in_as, scopes)
        self.codes[code] = Pending(grant, asked["code_challenge"], asked["redirect_uri"])
        query = urlencode({"state": asked["state"], "code": code, "scope": " ".join(scopes)})
        return f"{asked['redirect_uri']}?{query}"

    async def consent_with(self, authorization_url: str, change: Mapping[str, Any]) -> str:
        """As consent, on a Google with these fields changed; `answer` is what its token endpoint says next."""
        for name, value in change.items():
            if name == "answer":
                self.script.append(value)
            else:
                setattr(self, name, value)
        return await self.consent(authorization_url)

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/token", self._on_token)
        application.router.add_get("/token", self._on_look)
        application.router.add_get("/gmail/v1/users/me/profile", self._on_profile)
        application.router.add_get("/gmail/v1/users/me/settings/sendAs", self._on_send_as)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", 0, ssl_context=self.authority.server_context("localhost", "127.0.0.1")
        )
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await hang_up(self._runner)

    async def _on_token(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if "assertion" in form:
            form["sub"] = str(_claims(form["assertion"]).get("sub", ""))
        self.requests.append(form)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._act(request, form)
        finally:
            self.under_way -= 1

    async def _act(self, request: web.Request, form: Mapping[str, str]) -> web.StreamResponse:
        match self.script.popleft() if self.script else None:
            case Answer(status, str(text)):
                return web.Response(status=status, text=text, headers=self._headers())
            case Answer(status, body):
                return web.json_response(body, status=status, headers=self._headers())
            case Endless():
                response = web.StreamResponse(headers=self._headers())
                await response.prepare(request)
                while request.transport is not None and not request.transport.is_closing():
                    await response.write(b" " * 65536)
                    await asyncio.sleep(0)  # whoever reads is on the same loop
                return response
            case Cut():
                assert request.transport
                request.transport.abort()
                raise web.HTTPBadRequest
            case Slow(event):
                await event.wait()
        try:
            return web.json_response(self._answer(form), headers=self._headers())
        except _Refused as refusal:
            body = {"error": refusal.error, "error_description": refusal.description}
            return web.json_response(body, status=refusal.status, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {"Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + self.clock_offset))}

    def _answer(self, form: Mapping[str, str]) -> dict[str, Any]:
        match form["grant_type"]:
            case "refresh_token":
                self._check_client(form)
                return self._refresh(form["refresh_token"])
            case "authorization_code":
                self._check_client(form)
                return self._exchange(form)
            case kind if kind == JWT_BEARER:
                return self._token(self._delegated(form["assertion"]))
            case _:
                raise _Refused("unsupported_grant_type", "Invalid grant_type")

    def _refresh(self, presented: str) -> dict[str, Any]:
        if presented in self.spent:
            self.grants.clear()
        grant = self.grants.get(presented)
        if grant is None:
            raise _Refused("invalid_grant", "Token has been expired or revoked.")
        answer = self._token(grant)
        match self.exchanges:
            case "never":
                return answer
            case "same":
                return answer | {"refresh_token": presented}
            case "revokes" | "strict":
                del self.grants[presented]
        following = self.grant(grant.account, grant.scopes)
        if self.exchanges == "strict":
            self.spent[presented] = following
        return answer | {"refresh_token": following}

    def _check_client(self, form: Mapping[str, str]) -> None:
        if form.get("client_id") != self.client_id or form.get("client_secret") != self.client_secret:
            raise _Refused("invalid_client", "The OAuth client was not found.", 401)

    def _token(self, grant: Grant) -> dict[str, Any]:
        return {
            "access_token": self.issue(grant.account, grant.scopes),
            "expires_in": self.lifetime,
            "scope": " ".join(sorted(grant.scopes)),
            "token_type": "Bearer",
        }

    def _exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        pending = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if pending is None or pending.redirect_uri != form["redirect_uri"]:
            raise _Refused("invalid_grant", "Malformed auth code.")
        if pending.challenge != challenge:
            raise _Refused("invalid_grant", "Invalid code verifier.")
        answer = self._token(pending.grant)
        if self.gives_refresh_token:
            answer["refresh_token"] = self.grant(pending.grant.account, pending.grant.scopes)
        if self.gives_id_token and "openid" in pending.grant.scopes:
            claims = {"iss": "https://accounts.google.com", "aud": self.client_id, "email": pending.grant.account}
            parts = [json.dumps(each).encode() for each in ({"alg": "RS256"}, {**claims, "email_verified": True})]
            answer["id_token"] = (
                ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts) + ".c2ln"
            )
        return answer

    def _delegated(self, assertion: str) -> Grant:
        claims = _claims(assertion)
        account = self.service_accounts.get(claims["iss"])
        if account is None:
            raise _Refused("invalid_grant", "Invalid grant: account not found")
        signed, _, signature = assertion.rpartition(".")
        try:
            account.public_key.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise _Refused("invalid_grant", "Invalid JWT Signature.") from None
        if claims["aud"] != AUDIENCE:
            raise _Refused("invalid_grant", "Invalid JWT: Failed audience check.")
        if not claims["iat"] - 300 <= time.time() <= claims["exp"] <= claims["iat"] + 3600:
            raise _Refused("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        scopes = frozenset(claims["scope"].split())
        if not scopes or not scopes <= account.scopes or "sub" not in claims:
            text = "Client is unauthorized to retrieve access tokens using this method"
            raise _Refused("unauthorized_client", text, 401)
        if claims["sub"] not in account.users:
            raise _Refused("invalid_grant", "Invalid email or User ID")
        return Grant(claims["sub"], scopes)

    async def _on_look(self, request: web.Request) -> web.Response:
        return web.Response(status=404, headers=self._headers())

    async def _on_profile(self, request: web.Request) -> web.Response:
        found = self._bearer(request)
        return web.json_response({"emailAddress": found.account, "messagesTotal": 1}, headers=self._headers())

    async def _on_send_as(self, request: web.Request) -> web.Response:
        found = self._bearer(request)
        addresses = [found.account, *self.send_as.get(found.account, [])]
        items = [{"sendAsEmail": each, "verificationStatus": "accepted"} for each in addresses]
        return web.json_response({"sendAs": items}, headers=self._headers())

    def _bearer(self, request: web.Request) -> Issued:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.issued or token in self.revoked:
            raise web.HTTPUnauthorized
        return self.issued[token]


@cache
def _key(number: int) -> rsa.RSAPrivateKey:
    """A key takes a fifth of a second: each process makes its few once."""
    return rsa.generate_private_key(65537, 2048)


class _Refused(Exception):
    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error, self.description, self.status = error, description, status


def _claims(assertion: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(_decoded(assertion.split(".")[1]))
    return claims


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
