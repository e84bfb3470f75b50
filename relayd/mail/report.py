"""What a message that came back says: a bounce, a complaint, a reply, or nothing that counts.

Addresses and texts are a stranger's words: printable, within caps, and trusted by nobody.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from relayd.mail.loose_header import LooseHeader

MAX_ADDRESS_CHARACTERS = 320
MAX_DIAGNOSTIC_CHARACTERS = 1000
MAX_EXPLANATION_CHARACTERS = 4000


class Action(StrEnum):
    """RFC 3464 2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """One recipient of a report. `status` is enhanced (`5.1.1`); `diagnostic` the reply or reason, as it came.

    `address` is where it failed, which may be behind a forward; `original_address` what relayd wrote to, if told.
    """

    address: str
    original_address: str | None
    action: Action
    status: str | None
    diagnostic: str
    remote_mta: str | None = None


@dataclass(frozen=True, slots=True)
class Original:
    """What a report returns of the message that it speaks of."""

    message_ids: tuple[str, ...] = ()  # with their brackets, the likeliest first
    provider_message_id: str | None = None  # what the upstream called it in its reply to DATA
    return_path: str | None = None
    sender: str | None = None  # the address in its From
    recipients: tuple[str, ...] = ()
    header: LooseHeader = field(default=LooseHeader(), repr=False)


@dataclass(frozen=True, slots=True)
class Bounce:
    """Recipients that were given up. `explanation` is what the report tells a reader, if it has one recipient only."""

    recipients: tuple[ReportedRecipient, ...]
    original: Original
    envelope_id: str | None = None
    reporting_mta: str | None = None
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class DelayNotice:
    """Recipients that are still being tried."""

    recipients: tuple[ReportedRecipient, ...]
    original: Original


@dataclass(frozen=True, slots=True)
class Complaint:
    """Somebody called a message spam. `feedback_type` is as in RFC 5965 7.3, in lower case."""

    feedback_type: str
    original: Original
    original_mail_from: str | None = None
    original_recipients: tuple[str, ...] = ()
    source_ip: str | None = None
    arrived_at: str | None = None
    reported_by: str | None = None  # the User-Agent or the domain that wrote it


@dataclass(frozen=True, slots=True)
class Reply:
    """A person's answer."""

    in_reply_to: tuple[str, ...]
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AutoReply:
    """A machine's answer: on holiday, ticket opened, message read."""

    in_reply_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """Nothing of the kind. `why` is for whoever looks at it."""

    why: str


Report = Bounce | DelayNotice | Complaint | Reply | AutoReply | Unrecognised
