"""What one report makes of one entry: its new state, its row in the log, and what follows for the recipient."""

import re
from dataclasses import dataclass
from typing import Any

from relayd.mail import legacy_bounce, loose_header, mime_parts
from relayd.mail.report import Complaint, ReportedRecipient
from relayd.rules.bounce_class import Refusal, classify
from relayd.rules.report_events import BouncedLater, Complained, Replied
from relayd.rules.states import LogEvent, Status
from relayd.rules.suppression import SuppressionReason
from relayd.store import late_results, suppressions
from relayd.store.client_events import EventKind, NewClientEvent
from relayd.store.connection import Connection
from relayd.store.late_results import Result, SentEntry
from relayd.store.suppressions import HardBounce, NewSuppression

_CODE = re.compile(r"(?<![\d.:/@-])([45][0-7]\d)(?=[ \-#]|\Z)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """To be applied once. `suppresses` is why the recipient is written to no more, None if it is."""

    entry: SentEntry
    result: Result
    event: BouncedLater | Complained | Replied
    detail: str
    payload: dict[str, Any]
    suppresses: SuppressionReason | None = None

    @property
    def client_event(self) -> NewClientEvent:
        """What the client is told, however it wants to hear of bounces: nobody else tells it of this one."""
        entry = self.entry
        kind = EventKind(self.result.event)
        return NewClientEvent(entry.client_id, kind, entry.queue_id, entry.entry_id, str(entry.recipient), self.payload)


def bounced(entry: SentEntry, failed: ReportedRecipient, explanation: str) -> Outcome:
    """It came back."""
    addresses = [each for each in (str(entry.recipient), failed.original_address, failed.address) if each]
    refusal = Refusal(failed.diagnostic, status=failed.status, recipients=tuple(addresses), explanation=explanation)
    told = classify(refusal)
    code = _CODE.search(failed.diagnostic)
    diagnostic = failed.diagnostic or " ".join(explanation.split())[:300]
    reason = f"came back after it was sent ({told.category}): {diagnostic or 'no reason was given'}"
    return Outcome(
        entry=entry,
        result=Result(
            status=Status.BOUNCED,
            event=LogEvent.BOUNCED,
            bounce_type=told.kind,
            reason=reason,
            error_code=int(code.group(1)) if code else None,
            enhanced_code=told.status,
            diagnostic=diagnostic,
        ),
        event=BouncedLater(
            queue_id=entry.queue_id,
            entry_id=entry.entry_id,
            client=entry.client,
            mailbox=entry.mailbox,
            recipient=str(entry.recipient),
            bounce_type=told.kind,
            category=told.category,
            status=told.status,
            diagnostic=diagnostic[:300],
        ),
        detail=f"{entry.recipient} bounced: {told.kind}, {told.category}",
        payload={"bounce_type": told.kind, "category": told.category, "status": told.status, "diagnostic": diagnostic},
        suppresses=SuppressionReason.HARD_BOUNCE if told.suppresses else None,
    )


def complained(entry: SentEntry, said: Complaint) -> Outcome:
    """Somebody called it spam."""
    by = f" by {said.reported_by}" if said.reported_by else ""
    reason = f"complaint ({said.feedback_type}) reported{by}"
    return Outcome(
        entry=entry,
        result=Result(Status.SPAM, LogEvent.COMPLAINED, None, reason, None, None, reason),
        event=Complained(
            queue_id=entry.queue_id,
            entry_id=entry.entry_id,
            client=entry.client,
            mailbox=entry.mailbox,
            recipient=str(entry.recipient),
            feedback_type=said.feedback_type,
            reported_by=said.reported_by,
        ),
        detail=f"{entry.recipient} complained: {said.feedback_type}",
        payload={"feedback_type": said.feedback_type, "reported_by": said.reported_by, "source_ip": said.source_ip},
        suppresses=SuppressionReason.COMPLAINT,
    )


def replied(entry: SentEntry) -> Outcome:
    """Somebody answered."""
    return Outcome(
        entry=entry,
        result=Result(None, LogEvent.REPLIED, None, "", None, None, "answered"),
        event=Replied(entry.queue_id, entry.entry_id, entry.client, entry.mailbox, str(entry.recipient)),
        detail=f"{entry.recipient} answered",
        payload={},
    )


async def apply(connection: Connection, outcome: Outcome, *, suppression_days: float) -> bool:
    """In the caller's transaction; False if the entry had ended otherwise before, and nothing was done.

    `suppression_days`: how long a hard bounce suppresses for clients that do not say. The event is the caller's to add.
    """
    entry = outcome.entry
    if not await late_results.apply(connection, entry, outcome.result):
        return False
    match outcome.suppresses:
        case SuppressionReason.HARD_BOUNCE:
            bounce = HardBounce(entry.entry_id, entry.recipient, outcome.detail)
            await suppressions.add_hard_bounces(connection, [bounce], default_days=suppression_days)
        case SuppressionReason.COMPLAINT:
            complaint = SuppressionReason.COMPLAINT
            line = NewSuppression(entry.client_id, entry.recipient, complaint, outcome.detail, entry.entry_id)
            await suppressions.add(connection, [line])
    return True


def writer_of(content: bytes) -> str:
    """The address in From."""
    return legacy_bounce.writer(loose_header.parse(mime_parts.with_lf(content[:65536]))[0]).address
