"""Look into the sending mailboxes' inboxes: store bounces, complaints, and answers to what was sent; nothing else.

Of ordinary mail the header is read, to see that it is ordinary, and not kept. An answer is kept as its header alone.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from relayd.inbox.reading import Fresh, Inbox, InboxError
from relayd.mail.report_filter import Interest, interest
from relayd.rules.report_events import InboxFailed, ReportEvent
from relayd.store import inbound_reports, inboxes, late_results
from relayd.store.inbound_reports import NewReport
from relayd.store.inboxes import InboxRecord
from relayd.store.pool import Database

# Opens an inbox where its record says. Raises InboxError.
Open = Callable[[InboxRecord], Awaitable[Inbox]]


@dataclass(frozen=True, slots=True)
class PullTerms:
    """How often, how much, how many at once."""

    every_seconds: float = 300.0
    most_messages: int = 200
    most_octets: int = 1_048_576
    max_waiting: int = 10_000
    at_once: int = 4
    # The lease outlives the look.
    look_seconds: float = 300.0
    lease_seconds: float = 600.0


async def pull_reports(
    database: Database, open_inbox: Open, terms: PullTerms, *, emit: Callable[[ReportEvent], None]
) -> None:
    """One round over all whose turn it is, some at once. Safe to repeat, to be cut off, and to be done by two."""
    await asyncio.gather(*(_pull_some(database, open_inbox, terms, emit) for _ in range(terms.at_once)))


async def _pull_some(
    database: Database, open_inbox: Open, terms: PullTerms, emit: Callable[[ReportEvent], None]
) -> None:
    while True:
        async with database.transaction() as connection:
            record = await inboxes.take(
                connection, lease_seconds=terms.lease_seconds, every_seconds=terms.every_seconds
            )
        if record is None:
            return
        try:
            async with asyncio.timeout(terms.look_seconds):
                await _look(database, record, open_inbox, terms)
        except (InboxError, TimeoutError) as error:
            text = str(error) or f"no end within {terms.look_seconds:.0f} s"
            async with database.connection() as connection:
                failures = await inboxes.fail(connection, record.id, text)
            emit(InboxFailed(record.email_address, record.client, failures, text))
        else:
            async with database.connection() as connection:
                await inboxes.succeed(connection, record.id)


async def _look(database: Database, record: InboxRecord, open_inbox: Open, terms: PullTerms) -> None:
    inbox = await open_inbox(record)
    try:
        found, end = await inbox.fresh(terms.most_messages)
        for message in found:
            content = await _content(database, record, inbox, message, terms.most_octets)
            async with database.transaction() as connection:
                if content is not None and not await _store(connection, record, message, content, terms):
                    return  # so many wait to be read that this one has to
                position = message.position
                await inboxes.advance(connection, record.id, position.uid_validity, position.last_uid, position.read_to)
        if len(found) < terms.most_messages:
            async with database.connection() as connection:
                await inboxes.advance(connection, record.id, end.uid_validity, end.last_uid, end.read_to)
    finally:
        await inbox.close()


async def _content(
    database: Database, record: InboxRecord, inbox: Inbox, message: Fresh, most_octets: int
) -> bytes | None:
    """What is to be kept of it, None of what is none of relayd's business."""
    kind, answered = interest(message.header)
    if kind is Interest.REPORT:
        return await inbox.whole(message, most_octets)
    if kind is Interest.ANSWER:
        async with database.connection() as connection:
            if await late_results.has_sent(connection, record.mailbox_id, answered):
                return message.header
    return None


async def _store(
    connection: inboxes.Connection, record: InboxRecord, message: Fresh, content: bytes, terms: PullTerms
) -> bool:
    new = NewReport(
        client_id=record.client_id,
        source=record.kind,
        content=content or b"\n",
        mailbox_id=record.mailbox_id,
        source_key=message.key[:200],
    )
    return await inbound_reports.add(connection, new, max_waiting=terms.max_waiting) is not None
