"""Access tokens, as those need them who log in with one. Where they come from is `oauth`'s business."""

from typing import Protocol

from relayd.errors import RelaydError


class GrantDead(RelaydError):
    """The grant gives no token any more, and only an operator can mend that; the text says how."""


class TokenUnavailable(RelaydError):
    """No token can be had just now; the text says why. Try again later."""


class AccountRefused(TokenUnavailable):
    """The grant lives, but not for this account, which its administrator has to mend; the text says what to look at."""


class LoginRefused(RelaydError):
    """A server has refused the token, and a fresh one too. `is_of_account`: others may log in all the same."""

    def __init__(self, text: str, *, is_of_account: bool, code: int, enhanced: str | None) -> None:
        super().__init__(text)
        self.is_of_account = is_of_account
        self.code = code
        self.enhanced = enhanced


class TokenSource(Protocol):
    """The tokens of one grant. Shared by all connections that use it."""

    async def token(self, subject: str | None = None) -> str:
        """A token that is good for minutes yet, for this account (None: the grant's own).

        Raises GrantDead, TokenUnavailable.
        """
        ...

    async def refused(self, token: str, subject: str | None = None) -> None:
        """The server did not take this token: the next `token` gives another."""
        ...

    async def close(self) -> None:
        """Let a fetch under way end: what it brings may be the only refresh token that is good from then on."""
        ...
