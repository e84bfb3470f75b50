"""Read what came in of bounces, complaints and answers, and settle each with the entries that it speaks of.

Reading happens outside of any transaction and off the loop: it may take long. What a report says is settled in one
transaction with the report itself, so it counts once, whoever reads it and how often.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from relayd.errors import StoreUnavailable
from relayd.mail.report import AutoReply, Bounce, Complaint, DelayNotice, Reply, Report, Unrecognised
from relayd.mail.report_reader import read
from relayd.rules.complaint_class import counts
from relayd.rules.report_events import ReportEvent, ReportKind, ReportRead, ReportStatus
from relayd.rules.report_match import matching
from relayd.rules.states import Status
from relayd.store import client_events, inbound_reports, late_results
from relayd.store.connection import Connection
from relayd.store.inbound_reports import Reading, WaitingReport
from relayd.store.late_results import SentEntry
from relayd.store.pool import Database
from relayd.upkeep import report_outcomes
from relayd.upkeep.report_outcomes import Outcome

log = logging.getLogger(__name__)

BATCH = 20
AGAIN_SECONDS = 60.0
# A bounce may be quicker than the settlement of what it bounces; one of mail in doubt may be the first to know.
PATIENCE_SECONDS = 86_400.0
_LIVE = frozenset({Status.PENDING, Status.QUEUED, Status.SENDING})

SubjectOf = Callable[[str], UUID | None]


@dataclass(slots=True)
class _Made:
    """What a report has come to so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Applied:
    """What has changed an entry."""

    suppression_days: float
    outcomes: list[Outcome] = field(default_factory=list)


async def settle_reports(
    database: Database,
    subject_of: SubjectOf,
    *,
    suppression_days: float,
    emit: Callable[[ReportEvent], None],
    batch: int = BATCH,
) -> None:
    """Read all that waits. Safe to repeat, to be cut off, and to be done by two at once."""
    while True:
        async with database.connection() as connection:
            reports = await inbound_reports.waiting(connection, most=batch)
        for report in reports:
            try:
                await _settle(database, report, subject_of, suppression_days, emit)
            except StoreUnavailable:
                raise
            except Exception as error:
                # One that breaks the reader must not keep the others waiting.
                log.exception("report %s could not be read", report.id)
                async with database.connection() as connection:
                    text = f"could not be read: {type(error).__name__}"
                    await inbound_reports.postpone(connection, report.id, text, seconds=PATIENCE_SECONDS)
        if len(reports) < batch:
            return


async def _settle(
    database: Database,
    report: WaitingReport,
    subject_of: SubjectOf,
    suppression_days: float,
    emit: Callable[[ReportEvent], None],
) -> None:
    said = await asyncio.to_thread(read, report.content)
    async with database.transaction() as connection:
        age_seconds = await inbound_reports.lock(connection, report.id)
        if age_seconds is None:
            return
        is_old = age_seconds > PATIENCE_SECONDS
        applied = _Applied(suppression_days)
        reading = await _apply(connection, report, said, subject_of, applied, is_old=is_old)
        await inbound_reports.settle(connection, report.id, reading)
        await client_events.add(connection, [outcome.client_event for outcome in applied.outcomes])
    events: list[ReportEvent] = [outcome.event for outcome in applied.outcomes]
    if reading.status != ReportStatus.NEW:
        events.append(
            ReportRead(
                report_id=report.id,
                client=report.client,
                source=report.source,
                kind=ReportKind(reading.kind),
                status=ReportStatus(reading.status),
                detail=reading.detail,
            )
        )
    for event in events:
        emit(event)


async def _apply(
    connection: Connection,
    report: WaitingReport,
    said: Report,
    subject_of: SubjectOf,
    applied: _Applied,
    *,
    is_old: bool,
) -> Reading:
    match said:
        case Bounce():
            entries = await _entries(connection, report, said, subject_of)
            made = _of_bounce(said, entries)
            return await _settled(connection, ReportKind.BOUNCE, made, applied, is_old=is_old)
        case Complaint() if counts(said.feedback_type):
            entries = await _entries(connection, report, said, subject_of)
            made = _of_complaint(said, entries)
            return await _settled(connection, ReportKind.COMPLAINT, made, applied, is_old=is_old)
        case Complaint():
            text = f"a report of type {said.feedback_type}, which is no complaint"
            return Reading(ReportStatus.IGNORED, ReportKind.COMPLAINT, text)
        case Reply() if report.mailbox_id is None:
            return Reading(ReportStatus.IGNORED, ReportKind.REPLY, "an answer that no mailbox has received")
        case Reply():
            ids = (*said.in_reply_to, *reversed(said.references))
            entries = await late_results.by_message_id(connection, ids, report.client_id, mailbox_id=report.mailbox_id)
            made = _of_reply(report, entries)
            return await _settled(connection, ReportKind.REPLY, made, applied, is_old=is_old)
        case DelayNotice():
            return Reading(ReportStatus.IGNORED, ReportKind.DELAY, "still being tried: nothing changes")
        case AutoReply():
            return Reading(ReportStatus.IGNORED, ReportKind.AUTO_REPLY, "a machine's answer: it counts as none")
        case Unrecognised(why):
            return Reading(ReportStatus.IGNORED, ReportKind.UNRECOGNISED, why)


async def _entries(
    connection: Connection, report: WaitingReport, said: Bounce | Complaint, subject_of: SubjectOf
) -> list[SentEntry]:
    """By the return path that the report came to, else by one that it returns, else by the message's id."""
    returned = [said.original.return_path]
    if isinstance(said, Complaint):
        returned.append(said.original_mail_from)
    subjects = [report.subject_id, *(subject_of(each) for each in returned if each)]
    for subject in dict.fromkeys(each for each in subjects if each is not None):
        found = await late_results.by_subject(connection, subject, report.client_id)
        if found:
            return found
    ids = said.original.message_ids
    found = await late_results.by_message_id(connection, ids, report.client_id) if ids else []
    # An app may have given two messages one id, and a resend has its original's: of those the sent ones may bounce.
    return sorted(found, key=lambda each: each.status is not Status.SENT)


def _of_bounce(said: Bounce, entries: Sequence[SentEntry]) -> _Made:
    made = _Made()
    if not entries:
        return made
    for failed in said.recipients:
        named = [each for each in (failed.original_address, failed.address) if each]
        entry = matching(entries, named)
        if entry is None:
            made.notes.append(f"{failed.address or 'a recipient without a name'} is no recipient of it")
        elif entry.entry_id not in {each.entry.entry_id for each in made.outcomes}:
            made.outcomes.append(report_outcomes.bounced(entry, failed, said.explanation))
    return made


def _of_complaint(said: Complaint, entries: Sequence[SentEntry]) -> _Made:
    entry = matching(entries, said.original_recipients)
    if entry is None:
        return _Made(notes=[f"which of {len(entries)} recipients complained is not told"] if entries else [])
    return _Made([report_outcomes.complained(entry, said)])


def _of_reply(report: WaitingReport, entries: Sequence[SentEntry]) -> _Made:
    if not entries:
        return _Made()
    writer = report_outcomes.writer_of(report.content)
    newest = [each for each in entries if each.queue_id == entries[0].queue_id]
    return _Made([report_outcomes.replied(matching(newest, [writer]) or newest[0])])


async def _settled(
    connection: Connection,
    kind: ReportKind,
    made: _Made,
    applied: _Applied,
    *,
    is_old: bool,
) -> Reading:
    early = [each for each in made.outcomes if each.entry.status in _LIVE]
    if early and not is_old:
        # All or nothing: what was applied before would be applied again.
        text = f"entry {early[0].entry.entry_id} is {early[0].entry.status}: looked at again in a minute"
        return Reading(ReportStatus.NEW, kind, text, again_seconds=AGAIN_SECONDS)
    details = list(made.notes)
    # In one order, whoever else holds entries.
    for outcome in sorted(made.outcomes, key=lambda each: each.entry.entry_id):
        if await report_outcomes.apply(connection, outcome, suppression_days=applied.suppression_days):
            applied.outcomes.append(outcome)
            details.insert(0, outcome.detail)
        else:
            details.append(f"{outcome.entry.recipient} was {outcome.entry.status} already: nothing changes")
    if not made.outcomes:
        text = "; ".join(details) or "no message of this client is meant"
        return Reading(ReportStatus.UNMATCHED, kind, text)
    first = made.outcomes[0].entry
    return Reading(ReportStatus.MATCHED, kind, "; ".join(details), first.queue_id, first.entry_id)
