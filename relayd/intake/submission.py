"""A message as it stands at the door: who brings it, its envelope, its bytes."""

from dataclasses import dataclass
from uuid import UUID

from relayd.mail.address import Address
from relayd.mail.envelope import NOTHING_SAID, Envelope, RecipientNotice
from relayd.rules.mail_class import MailClass
from relayd.store.directory import SendingClient
from relayd.store.ids import new_ids
from relayd.store.queue import NewEntry


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks. `senders` None means any of the client's; else addresses (`a@x`) and domains (`x`).

    `salt` is that of the secret which opened the session: it tells one secret of a credential from the next.
    `mail_class` None means as the mailbox; `pool_id` is the pool whose members send what this credential submits;
    what would leave later than in `refuse_after_seconds` is refused. `is_active` is the credential's own switch;
    with `refuses_long_lines` its messages are refused rather than changed to have shorter lines.
    """

    client: SendingClient
    credential_id: UUID | None = None
    login: str | None = None
    senders: tuple[str, ...] | None = None
    salt: bytes | None = None
    refuse_after_seconds: int | None = None
    mail_class: MailClass | None = None
    pool_id: UUID | None = None
    is_active: bool = True
    refuses_long_lines: bool = False

    def may_use(self, address: Address) -> bool:
        """Whether the credential's own list of senders allows the address."""
        return self.senders is None or address.key in self.senders or address.ascii_domain in self.senders


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


def entries_of(envelope: Envelope) -> tuple[NewEntry, ...]:
    """An entry a recipient; one named twice is one, with what was asked for it first."""
    asked = envelope.notices or (NOTHING_SAID,) * len(envelope.forward_paths)
    named: dict[str, tuple[Address, RecipientNotice]] = {}
    for recipient, notice in zip(envelope.forward_paths, asked, strict=True):
        named.setdefault(recipient.wire, (recipient, notice))
    return tuple(
        NewEntry(entry_id, recipient, notify=notice.notify, orcpt=notice.orcpt)
        for entry_id, (recipient, notice) in zip(new_ids(len(named)), named.values(), strict=True)
    )
