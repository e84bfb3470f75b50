"""What access tokens are asked for with: a user's refresh token, or a service account with delegation. By google-auth.

`fetch` blocks, so it runs in a thread. Its errors say what is wrong and what to do, and quote nothing that is secret.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from google.auth import exceptions, transport
from google.auth.credentials import Credentials
from google.oauth2 import credentials as user
from google.oauth2 import service_account

from relayd.upstream.redaction import redacted, spellings, without_jwt
from relayd.upstream.tokens import AccountRefused, GrantDead, TokenUnavailable
from relayd.upstream.verdict import clean

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105  an address, no token
_DEFAULT_SECONDS = 3600.0
_LONGEST_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token as it was just given, and how long it is good for.

    `refresh_token`: the one that takes the place of the one presented (RFC 6749 6), None if that one stays.
    """

    value: str = field(repr=False)
    seconds: float
    refresh_token: str | None = field(default=None, repr=False)


class Grant(Protocol):
    """`digest` tells two grants apart. `has_subjects`: it speaks for whole domains, so each token names its account."""

    @property
    def digest(self) -> bytes: ...

    @property
    def has_subjects(self) -> bool: ...

    def fetch(self, http: transport.Request, subject: str | None) -> AccessToken:
        """Ask for a token. Raises GrantDead, AccountRefused, TokenUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class UserGrant:
    """What one user has allowed, in a refresh token. `upstream` is named in errors."""

    upstream: str
    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)
    token_url: str = TOKEN_URL

    has_subjects = False

    @property
    def digest(self) -> bytes:
        """Without the refresh token: a provider exchanges it, and the grant stays the same."""
        return _digest("user", self.client_id, self.client_secret, self.token_url)

    def fetch(self, http: transport.Request, subject: str | None) -> AccessToken:
        """The subject is not asked: the token is the user's."""
        asking = user.Credentials(
            None,
            refresh_token=self.refresh_token,
            token_uri=self.token_url,
            client_id=self.client_id,
            client_secret=self.client_secret,
        )
        try:
            token = _fetched(asking, http)
        except exceptions.RefreshError as error:
            said = _Said.of(error, self.client_secret, self.refresh_token)
            if not said.is_final:
                raise TokenUnavailable(f"no token from {_host(self.token_url)}: {said}") from None
            raise GrantDead(f"the grant is dead ({said}): relayd upstream login {self.upstream}") from None
        except exceptions.GoogleAuthError as error:
            raise TokenUnavailable(f"no token from {_host(self.token_url)}: {clean(str(error))}") from None
        given = asking.refresh_token
        is_new = isinstance(given, str) and given.isprintable() and given not in ("", self.refresh_token)
        return replace(token, refresh_token=given) if is_new else token


@dataclass(frozen=True, slots=True)
class ServiceAccountGrant:
    """A service account that an administrator lets speak for all accounts of a domain. `key` is its key file's JSON."""

    upstream: str
    key: Mapping[str, Any] = field(repr=False)
    scopes: Sequence[str]
    token_url: str = TOKEN_URL

    has_subjects = True

    @property
    def digest(self) -> bytes:
        """Of everything that decides what it gives, but the subject."""
        return _digest("service", self.key["client_email"], self.key["private_key"], self.token_url, *self.scopes)

    def fetch(self, http: transport.Request, subject: str | None) -> AccessToken:
        """For the subject, which it needs."""
        if subject is None:
            raise TokenUnavailable("a service account needs an account to speak for, and the mail has no mailbox")
        # The file's own address for tokens is not believed: a file could send the assertion anywhere.
        info = {**self.key, "token_uri": self.token_url}
        try:
            asking = service_account.Credentials.from_service_account_info(
                info, scopes=list(self.scopes), subject=subject
            )
            return _fetched(asking, http)
        except exceptions.RefreshError as error:
            raise self._explained(_Said.of(error, str(self.key["private_key"])), subject) from None
        except exceptions.GoogleAuthError as error:
            raise TokenUnavailable(f"no token from {_host(self.token_url)}: {clean(str(error))}") from None

    def _explained(self, said: "_Said", subject: str) -> GrantDead | TokenUnavailable:
        name = self.key["client_email"]
        mend = f"relayd doctor google {self.upstream} says what to mend"
        if not said.is_final:
            return TokenUnavailable(f"no token from {_host(self.token_url)}: {said}")
        if "reasonable timeframe" in said.description or "short-lived" in said.description:
            return TokenUnavailable(f"Google does not believe this machine's clock ({said}): set it right")
        if said.error == "invalid_grant" and "signature" in said.description.lower():
            return GrantDead(
                f"the key of {name} is not known any more ({said}): relayd upstream set-service-account {self.upstream}"
            )
        if said.error == "invalid_grant" and "account not found" not in said.description:
            # "Invalid email or User ID": of this one, and the service account itself was let in.
            return AccountRefused(f"{subject} is no account that {name} may speak for ({said})")
        return GrantDead(f"{name} gets no token ({said}): {mend}")


@dataclass(frozen=True, slots=True)
class _Said:
    """What a token endpoint has answered. `is_final`: it is an answer of OAuth's, and asking again would not help."""

    error: str
    description: str
    is_final: bool

    @classmethod
    def of(cls, error: exceptions.RefreshError, *secrets: str) -> "_Said":
        body = error.args[1] if len(error.args) > 1 else None
        if not isinstance(body, Mapping) or not isinstance(body.get("error"), str):
            # A proxy's page, or nothing at all: not the grant's fault, and not fit to be shown.
            return cls("an answer that is not OAuth's", "", is_final=False)
        said = [str(body.get(name) or "") for name in ("error", "error_description")]
        spelt = spellings(secrets)
        texts = [clean(without_jwt(redacted(text, spelt))) for text in said]
        return cls(texts[0][:100], texts[1][:300], is_final=not error.retryable)

    def __str__(self) -> str:
        return f"{self.error}: {self.description}" if self.description else self.error


def _fetched(asking: Credentials, http: transport.Request) -> AccessToken:
    try:
        asking.refresh(http)
    except (ValueError, TypeError, ArithmeticError, AttributeError):
        # google-auth believes that what comes with status 200 is as it should be.
        raise exceptions.TransportError("an answer that makes no sense") from None
    if not isinstance(asking.token, str) or not asking.token.isascii() or not asking.token.isprintable():
        raise exceptions.TransportError("an answer without a usable token")
    if asking.expiry is None:
        return AccessToken(asking.token, _DEFAULT_SECONDS)
    seconds = (asking.expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    return AccessToken(asking.token, max(0.0, min(seconds, _LONGEST_SECONDS)))


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _host(url: str) -> str:
    return urlsplit(url).hostname or url
