"""Look into the sending mailboxes' inboxes: store bounces, complaints, and answers to what was sent; nothing else.

Of ordinary mail the header is read, to see that it is ordinary, and not kept. An answer is kept as its header alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from relayd.errors import StoreUnavailable
from relayd.inbox.reading import Fresh, Inbox, InboxError, Unreadable
from relayd.mail.report_filter import Interest, interest
from relayd.rules.report_events import InboxFailed, ReportEvent
from relayd.store import inbound_reports, inboxes, late_results
from relayd.store.inbound_reports import NewReport
from relayd.store.inboxes import InboxRecord
from relayd.store.pool import Database

log = logging.getLogger(__name__)

# So many looks may end at one message before it is passed.
TRIES = 5

# Opens an inbox where its record says. Raises InboxError.
Open = Callable[[InboxRecord], Awaitable[Inbox]]


@dataclass(frozen=True, slots=True)
class PullTerms:
    """How often, how much, how many at once. `most_messages` are asked for together, until there are no more."""

    every_seconds: float = 300.0
    most_messages: int = 50
    most_octets: int = 1_048_576
    max_waiting: int = 10_000
    at_once: int = 4
    # The lease outlives the look. After half of its time it ends where it is, and goes on at its next turn.
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
            await _fail(database, record, str(error) or f"no end within {terms.look_seconds:.0f} s", emit)
        except StoreUnavailable:
            raise
        except Exception as error:
            # One that breaks the reader must not keep the others waiting.
            log.exception("the inbox of %s could not be read", record.email_address)
            await _fail(database, record, _broken(error), emit)
        else:
            async with database.connection() as connection:
                await inboxes.succeed(connection, record.id)


async def _fail(database: Database, record: InboxRecord, text: str, emit: Callable[[ReportEvent], None]) -> None:
    async with database.connection() as connection:
        failures = await inboxes.fail(connection, record.id, text)
    emit(InboxFailed(record.email_address, record.client, failures, text))


async def _look(database: Database, record: InboxRecord, open_inbox: Open, terms: PullTerms) -> None:
    clock = asyncio.get_running_loop().time
    stop_at = clock() + terms.look_seconds / 2
    inbox = await open_inbox(record)
    try:
        while True:
            try:
                found, end = await inbox.fresh(terms.most_messages)
            except Unreadable as error:
                if not await _pass(database, record, error, terms):
                    return
                continue
            for message in found:
                if not await _take_in(database, record, inbox, message, terms) or clock() > stop_at:
                    return
            if end is not None:
                async with database.connection() as connection:
                    await inboxes.advance(connection, record.id, end.uid_validity, end.last_uid, end.read_to)
            if end is not None or not found:
                return
    finally:
        await inbox.close()


async def _take_in(database: Database, record: InboxRecord, inbox: Inbox, message: Fresh, terms: PullTerms) -> bool:
    """Keep of it what is to be kept; False if so many wait to be read that this one has to."""
    try:
        content = await _content(database, record, inbox, message, terms)
    except Unreadable as error:
        return await _pass(database, record, error, terms)
    except (InboxError, StoreUnavailable):
        raise
    except Exception as error:
        log.exception("message %s in the inbox of %s could not be read", message.key, record.email_address)
        return await _keep(database, record, message, message.header, terms, _broken(error))
    return await _keep(database, record, message, content, terms)


async def _content(
    database: Database, record: InboxRecord, inbox: Inbox, message: Fresh, terms: PullTerms
) -> bytes | None:
    """What is to be kept of it, None of what is none of relayd's business."""
    kind, answered = interest(message.header)
    if kind is Interest.REPORT:
        try:
            async with asyncio.timeout(terms.look_seconds / 4):
                return await inbox.whole(message, terms.most_octets)
        except TimeoutError:
            raise Unreadable(message, f"no end within {terms.look_seconds / 4:.0f} s") from None
    if kind is Interest.ANSWER:
        async with database.connection() as connection:
            if await late_results.has_sent(connection, record.mailbox_id, answered):
                return message.header
    return None


async def _pass(database: Database, record: InboxRecord, error: Unreadable, terms: PullTerms) -> bool:
    """Leave one behind that could not be had for so long, keeping its header. Raises InboxError before that."""
    message = error.message
    text = f"message {message.key} cannot be read: {error}"
    was_the_last_failure = (record.last_error or "").startswith(f"message {message.key} cannot be read: ")
    if not was_the_last_failure or record.failures < TRIES - 1:
        raise InboxError(text)
    log.warning("in the inbox of %s %s; it is passed", record.email_address, text)
    return await _keep(database, record, message, message.header, terms, text)


async def _keep(
    database: Database,
    record: InboxRecord,
    message: Fresh,
    content: bytes | None,
    terms: PullTerms,
    error: str | None = None,
) -> bool:
    """Store it, if there is something, and go on behind it. `error`: why it is not to be read."""
    position = message.position
    async with database.transaction() as connection:
        if content is not None:
            new = NewReport(
                client_id=record.client_id,
                source=record.kind,
                content=content or b"\n",
                mailbox_id=record.mailbox_id,
                source_key=message.key[:200],
            )
            stored = await inbound_reports.add(connection, new, max_waiting=terms.max_waiting)
            if stored is None:
                return False
            if error is not None:
                await inbound_reports.set_aside(connection, stored, error)
        await inboxes.advance(connection, record.id, position.uid_validity, position.last_uid, position.read_to)
    return True


def _broken(error: Exception) -> str:
    # Its text may hold what was read.
    return f"it broke the reader: {type(error).__name__}; relayd's log has more"
