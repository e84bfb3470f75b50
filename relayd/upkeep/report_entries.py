"""Find the entries that a report speaks of, and tell how far it is to be believed: anybody can write one.

A return path is proof, since nobody but relayd can make one. A Message-ID has been seen by all who got the message.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from relayd.mail.report import Bounce, Complaint
from relayd.rules.report_match import is_named
from relayd.rules.states import Status
from relayd.store import late_results
from relayd.store.connection import Connection
from relayd.store.inbound_reports import WaitingReport
from relayd.store.late_results import SentEntry
from relayd.upkeep.report_outcomes import Outcome

# What an address was made for as a return path, None if by somebody else.
SubjectOf = Callable[[str], UUID | None]


@dataclass(frozen=True, slots=True)
class Found:
    """The entries that may be meant. `is_proven`: by a return path."""

    entries: Sequence[SentEntry] = field(default_factory=tuple)
    is_proven: bool = False


async def find(connection: Connection, report: WaitingReport, said: Bounce | Complaint, subject_of: SubjectOf) -> Found:
    """By the return path that the report came to, else by one that it returns, else by the message's ids."""
    returned = [said.original.return_path]
    if isinstance(said, Complaint):
        returned.append(said.original_mail_from)
    subjects = [report.subject_id, *(subject_of(each) for each in returned if each)]
    for subject in dict.fromkeys(each for each in subjects if each is not None):
        entries = await late_results.by_subject(connection, subject, report.client_id)
        if entries:
            return Found(entries, is_proven=True)
    ids = said.original.message_ids
    entries = await late_results.by_message_id(connection, ids, report.client_id) if ids else []
    provider_id = said.original.provider_message_id
    if not entries and provider_id:
        recipients = said.original.recipients
        entries = await late_results.by_provider_id(connection, provider_id, recipients, report.client_id)
    # An app may have given two messages one id, and a resend has its original's: of those the sent ones may bounce.
    return Found(sorted(entries, key=lambda each: each.status is not Status.SENT))


def believed(outcome: Outcome, report: WaitingReport, found: Found, addresses: Sequence[str]) -> Outcome | None:
    """As much of it as follows, None if nothing. `addresses`: whom the report names for it."""
    entry = outcome.entry
    if found.is_proven:
        return outcome
    if entry.has_return_path:
        return None
    # It came to the very mailbox that sent the message, and knows whom it went to: more cannot be asked for.
    if report.mailbox_id == entry.mailbox_id and is_named(entry, addresses):
        return outcome
    return replace(outcome, suppresses=None)
