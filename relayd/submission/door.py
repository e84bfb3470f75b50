"""What a session needs of the rest of relayd: who is speaking, and the one door for messages."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from relayd.mail.address import Address
from relayd.mail.envelope import Envelope
from relayd.mail.reply import Reply


@dataclass(frozen=True, slots=True)
class Client:
    """A tenant."""

    id: UUID
    name: str
    may_send_bounces: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks. `senders` None means any of the client's; else addresses (`a@x`) and domains (`x`)."""

    client: Client
    credential_id: UUID | None
    login: str | None
    senders: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Submission:
    """One message as it came in. `content` ends lines in CRLF, is unstuffed, holds no bare CR, LF or NUL.

    `protocol` is the word for the Received header (RFC 3848, RFC 6531); `tls` is version and cipher, or None.
    """

    identity: Identity
    envelope: Envelope
    content: bytes
    helo: str
    peer: str
    protocol: str
    tls: str | None


class Door(Protocol):
    """The one way in for every message."""

    async def check_reverse_path(self, identity: Identity, reverse_path: Address | None) -> Reply | None:
        """None if this identity may send from there, else the refusal. May raise StoreUnavailable."""
        ...

    async def accept(self, submission: Submission) -> Reply:
        """The final reply. A 250 is given after the commit, never before; raises only for bugs."""
        ...


class Verifier(Protocol):
    """Knows credentials and trusted networks."""

    async def authenticate(self, login: str, secret: str) -> Identity | None:
        """None for an unknown login as for a wrong secret. Raises StoreUnavailable."""
        ...

    async def network_identity(self, peer_address: str) -> Identity | None:
        """Whose trusted network this IP address is in, if any. May raise StoreUnavailable."""
        ...
