"""What came back after it was sent. Metrics count these and the mail log writes them."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from relayd.rules.bounce_category import BounceKind, Category


class ReportKind(StrEnum):
    """What a report was taken for; inbound_reports.kind."""

    BOUNCE = "bounce"
    DELAY = "delay"
    COMPLAINT = "complaint"
    REPLY = "reply"
    AUTO_REPLY = "auto_reply"
    UNRECOGNISED = "unrecognised"


class ReportStatus(StrEnum):
    """inbound_reports.status."""

    NEW = "new"
    MATCHED = "matched"
    UNMATCHED = "unmatched"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class ReportRead:
    """A report was read and settled."""

    report_id: UUID
    client: str
    source: str
    kind: ReportKind
    status: ReportStatus
    detail: str


@dataclass(frozen=True, slots=True)
class BouncedLater:
    """A message that was sent came back."""

    queue_id: UUID
    entry_id: UUID
    client: str
    mailbox: str
    recipient: str
    bounce_type: BounceKind
    category: Category
    status: str | None
    diagnostic: str


@dataclass(frozen=True, slots=True)
class Complained:
    """A reader called a message spam."""

    queue_id: UUID
    entry_id: UUID
    client: str
    mailbox: str
    recipient: str
    feedback_type: str
    reported_by: str | None


@dataclass(frozen=True, slots=True)
class Replied:
    """A reader has answered."""

    queue_id: UUID
    entry_id: UUID
    client: str
    mailbox: str
    recipient: str


@dataclass(frozen=True, slots=True)
class InboxFailed:
    """A mailbox's inbox could not be read; it is looked into again later."""

    mailbox: str
    client: str
    failures: int
    reason: str


ReportEvent = ReportRead | BouncedLater | Complained | Replied | InboxFailed
