"""What one report makes of one entry: its new state, its row in the log, and what follows for the recipient."""

import re
from dataclasses import dataclass
from typing import Any

from relayd.mail import legacy_bounce, loose_header, mime_parts
from relayd.mail.report import Complaint, ReportedRecipient
from relayd.rules.bounce_class import BounceClass, BounceKind, Category, classify
from relayd.rules.report_events import BouncedLater, Complained, Replied
from relayd.rules.states import LogEvent, Status
from relayd.store import late_results, report_effects
from relayd.store.connection import Connection
from relayd.store.late_results import Result, SentEntry

# The codes that mean this address and nothing else.
_SUPPRESSING = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
_SUPPRESSING_WITHOUT_CODE = frozenset({Category.NO_SUCH_USER, Category.DOMAIN_NOT_FOUND})
_CODE = re.compile(r"(?<![\d.:/@-])([45][0-7]\d)(?=[ \-#]|\Z)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """To be applied once. `suppresses` is why the recipient is written to no more, None if it is."""

    entry: SentEntry
    result: Result
    event: BouncedLater | Complained | Replied
    detail: str
    payload: dict[str, Any]
    suppresses: str | None = None


def bounced(entry: SentEntry, failed: ReportedRecipient, explanation: str) -> Outcome:
    """It came back."""
    told = classify(failed.status, failed.diagnostic, explanation)
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
        suppresses="hard_bounce" if _suppresses(told) else None,
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
        suppresses="complaint",
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


async def apply(connection: Connection, outcome: Outcome) -> bool:
    """In the caller's transaction; False if the entry had ended otherwise before, and nothing was done."""
    entry = outcome.entry
    if not await late_results.apply(connection, entry, outcome.result):
        return False
    if outcome.suppresses is not None:
        await report_effects.suppress(
            connection, entry.client_id, entry.recipient.key, outcome.suppresses, outcome.detail, entry.entry_id
        )
    await report_effects.tell_client(
        connection,
        entry.client_id,
        outcome.result.event,
        queue_id=entry.queue_id,
        entry_id=entry.entry_id,
        recipient=str(entry.recipient),
        payload=outcome.payload,
    )
    return True


def writer_of(content: bytes) -> str:
    """The address in From."""
    return legacy_bounce.writer(loose_header.parse(mime_parts.with_lf(content[:65536]))[0]).address


def _suppresses(told: BounceClass) -> bool:
    if told.kind is not BounceKind.HARD:
        return False
    return told.status in _SUPPRESSING or (told.status is None and told.category in _SUPPRESSING_WITHOUT_CODE)
