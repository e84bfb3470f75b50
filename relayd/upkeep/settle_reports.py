"""Read what came in of bounces, complaints and answers, and settle each with the entries that it speaks of.

Reading happens outside of any transaction and off the loop: it may take long. What a report says is settled in one
transaction with the report itself, so it counts once, whoever reads it and how often. One that cannot be read is kept
and left alone.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from relayd.errors import RelaydError, StoreUnavailable
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
from relayd.upkeep.report_entries import Found, SubjectOf, believed, find
from relayd.upkeep.report_outcomes import Outcome

log = logging.getLogger(__name__)

BATCH = 20
AGAIN_SECONDS = 60.0
# The largest takes a second.
READ_SECONDS = 60.0
# What failed for another reason than its content.
POSTPONED_SECONDS = 3600.0
# A bounce may be quicker than the settlement of what it bounces; one of mail in doubt may be the first to know.
PATIENCE_SECONDS = 86_400.0
# What is said to all of so many at once is not about any.
MOST_EXPLAINED = 20
_LIVE = frozenset({Status.PENDING, Status.QUEUED, Status.SENDING})

Read = Callable[[bytes], Report]


class _Broken(RelaydError):
    """The reader fails on this one, and would again."""


@dataclass(slots=True)
class _Made:
    """What a report has come to so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    unproven: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome, report: WaitingReport, found: Found, addresses: Sequence[str]) -> None:
        """As much of an outcome as is to be believed."""
        told = believed(outcome, report, found, addresses)
        if told is not None:
            self.outcomes.append(told)
            return
        self.unproven.append(outcome)
        recipient = outcome.entry.recipient
        self.notes.append(f"of {recipient} it knows the Message-ID and no return path: nothing changes")


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
    read_content: Read = read,
    read_seconds: float = READ_SECONDS,
) -> None:
    """Read all that waits. Safe to repeat, to be cut off, and to be done by two at once.

    `read_content` is called in a thread. After `read_seconds` it is no longer waited for.
    """
    while True:
        async with database.connection() as connection:
            reports = await inbound_reports.waiting(connection, most=batch)
        for report in reports:
            try:
                said = await _read(report, read_content, read_seconds)
                await _settle(database, report, said, subject_of, suppression_days, emit)
            except StoreUnavailable:
                raise
            except _Broken as error:
                await _set_aside(database, report, f"could not be read: {error}", emit)
            except Exception as error:
                # One that breaks the settlement must not keep the others waiting.
                log.exception("report %s could not be settled", report.id)
                await _put_off(database, report, f"could not be settled: {type(error).__name__}", emit)
        if len(reports) < batch:
            return


async def _read(report: WaitingReport, read_content: Read, read_seconds: float) -> Report:
    try:
        async with asyncio.timeout(read_seconds):
            return await asyncio.to_thread(read_content, report.content)
    except TimeoutError:
        log.error("report %s could not be read within %s s", report.id, read_seconds)
        raise _Broken(f"it takes longer than {read_seconds:.0f} s") from None
    except Exception as error:
        log.exception("report %s could not be read", report.id)
        raise _Broken(type(error).__name__) from None


async def _put_off(database: Database, report: WaitingReport, text: str, emit: Callable[[ReportEvent], None]) -> None:
    if report.age_seconds > PATIENCE_SECONDS:
        await _set_aside(database, report, text, emit)
        return
    async with database.connection() as connection:
        await inbound_reports.postpone(connection, report.id, text, seconds=POSTPONED_SECONDS)


async def _set_aside(database: Database, report: WaitingReport, text: str, emit: Callable[[ReportEvent], None]) -> None:
    async with database.connection() as connection:
        is_done = await inbound_reports.set_aside(connection, report.id, text)
    if is_done:
        kind, status = ReportKind.UNRECOGNISED, ReportStatus.IGNORED
        emit(ReportRead(report.id, report.client, report.source, kind, status, text))


async def _settle(
    database: Database,
    report: WaitingReport,
    said: Report,
    subject_of: SubjectOf,
    suppression_days: float,
    emit: Callable[[ReportEvent], None],
) -> None:
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
            found = await find(connection, report, said, subject_of)
            # To look for reasons in the words of a thousand recipients takes long.
            made = await asyncio.to_thread(_of_bounce, report, said, found)
            return await _settled(connection, ReportKind.BOUNCE, made, applied, is_old=is_old)
        case Complaint() if counts(said.feedback_type):
            made = _of_complaint(report, said, await find(connection, report, said, subject_of))
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


def _of_bounce(report: WaitingReport, said: Bounce, found: Found) -> _Made:
    made = _Made()
    if not found.entries:
        return made
    explanation = said.explanation if len(said.recipients) <= MOST_EXPLAINED else ""
    done: set[UUID] = set()
    for failed in said.recipients:
        named = [each for each in (failed.original_address, failed.address) if each]
        entry = matching(found.entries, named)
        if entry is None:
            made.notes.append(f"{failed.address or 'a recipient without a name'} is no recipient of it")
        elif entry.entry_id not in done:
            done.add(entry.entry_id)
            made.add(report_outcomes.bounced(entry, failed, explanation), report, found, named)
    return made


def _of_complaint(report: WaitingReport, said: Complaint, found: Found) -> _Made:
    entry = matching(found.entries, said.original_recipients)
    made = _Made()
    if entry is not None:
        made.add(report_outcomes.complained(entry, said), report, found, said.original_recipients)
    elif found.entries:
        made.notes.append(f"which of {len(found.entries)} recipients complained is not told")
    return made


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
    if made.unproven and not made.outcomes:
        about = made.unproven[0].entry
        return Reading(ReportStatus.IGNORED, kind, "; ".join(details), about.queue_id, about.entry_id)
    if not made.outcomes:
        text = "; ".join(details) or "no message of this client is meant"
        return Reading(ReportStatus.UNMATCHED, kind, text)
    first = made.outcomes[0].entry
    return Reading(ReportStatus.MATCHED, kind, "; ".join(details), first.queue_id, first.entry_id)
