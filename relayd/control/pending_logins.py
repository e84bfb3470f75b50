"""Logins that have begun and not come back. They live in this process's memory: what proves them is never stored."""

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

from relayd.errors import Refusal

LIFE_SECONDS = 600.0
MOST = 100


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """One that may come back, once. `verifier` is PKCE's (RFC 7636 4.1)."""

    upstream_id: UUID
    redirect_uri: str
    scopes: tuple[str, ...]
    ends_at: float
    verifier: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        """What the authorization server is told of the verifier (RFC 7636 4.2, S256)."""
        return urlsafe_b64encode(sha256(self.verifier.encode()).digest()).decode().rstrip("=")


class PendingLogins:
    """By state. The oldest give way when there are too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending: dict[str, PendingLogin] = {}

    def begin(self, upstream_id: UUID, redirect_uri: str, scopes: tuple[str, ...]) -> tuple[str, PendingLogin]:
        """A new one, and the state that stands for it."""
        while len(self._pending) >= MOST:
            del self._pending[next(iter(self._pending))]
        state = secrets.token_urlsafe(32)
        pending = PendingLogin(upstream_id, redirect_uri, scopes, self._clock() + LIFE_SECONDS)
        self._pending[state] = pending
        return state, pending

    def take(self, state: str, upstream_id: UUID) -> PendingLogin:
        """The login of this state, which is over with that. Raises Refusal for any that is not pending."""
        pending = self._pending.get(state)
        again = "nothing was stored; begin again: relayd upstream login NAME"
        if pending is None or pending.upstream_id != upstream_id:
            raise Refusal(
                "the redirect's state is of no login that is under way here, or it has come before", hint=again
            )
        del self._pending[state]
        if pending.ends_at <= self._clock():
            raise Refusal(f"the login took longer than {LIFE_SECONDS / 60:.0f} minutes", hint=again)
        return pending
