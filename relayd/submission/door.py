"""What a session needs of the rest of relayd: who is speaking, and the one door for messages."""

from typing import Protocol

from relayd.intake.submission import Identity, Submission
from relayd.mail.address import Address
from relayd.mail.reply import Reply
from relayd.store.directory import SendingClient as Client

__all__ = ["Client", "Door", "Identity", "Submission", "Verifier"]


class Door(Protocol):
    """The one way in for every message."""

    async def check_reverse_path(self, identity: Identity, reverse_path: Address | None) -> Reply | None:
        """None if this identity may send from there, else the refusal. May raise StoreUnavailable."""
        ...

    async def check_recipient(self, identity: Identity, forward_path: Address) -> Reply | None:
        """None if this identity may write there, else the refusal. May raise StoreUnavailable."""
        ...

    async def accept(self, submission: Submission) -> Reply:
        """The final reply. A 250 is given after the commit, never before; raises only for bugs."""
        ...


class Verifier(Protocol):
    """Knows credentials and trusted networks."""

    async def authenticate(self, login: str, secret: str) -> Identity | None:
        """None for an unknown login as for a wrong secret; else who it is, even if it may not send now.

        Raises StoreUnavailable.
        """
        ...

    async def knows(self, login: str) -> bool:
        """Whether there is such a login: what there is not may be a password in the wrong field, and is not logged."""
        ...

    async def confirm(self, identity: Identity) -> Identity | None:
        """An authenticated identity as it is now; None once its login, or this secret of it, opens nothing any more.

        May raise StoreUnavailable.
        """
        ...

    async def network_identity(self, peer_address: str) -> Identity | None:
        """Whose trusted network this IP address is in, if any. May raise StoreUnavailable."""
        ...
