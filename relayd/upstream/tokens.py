"""Access tokens, as those need them who log in with one. Where they come from is `oauth`'s business."""

from typing import Protocol

from relayd.errors import RelaydError


class GrantDead(RelaydError):
    """The grant gives no token any more, and only an operator can mend that; the text says how."""


class TokenUnavailable(RelaydError):
    """No token can be had just now; the text says why. Try again later."""


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
