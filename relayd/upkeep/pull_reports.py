"""Look into the sending mailboxes' inboxes: store bounces, complaints, and answers to what was sent; nothing else.

Of ordinary mail the header is read, to see that it is ordinary, and not kept. An answer is kept as its header alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from relayd.errors import RelaydError, StoreUnavailable
from relayd.inbox.reading import Fresh, Inbox, InboxError, Position, Unreadable
from relayd.mail.report_filter import Interest, interest
from relayd.rules.report_events import InboxFailed, ReportEvent
from relayd.store import inbound_reports, inboxes, late_results
from relayd.store.inbound_reports import NewReport
from relayd.store.inboxes import Connection, InboxRecord
from relayd.store.pool import Database
from relayd.upkeep import blame

log = logging.getLogger(__name__)

# So many looks in a row may end at one message, which is to blame, before it is passed.
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
                is_to_go_on = await _look(database, record, open_inbox, terms)
        except _Superseded:
            log.info("how the inbox of %s is read was changed meanwhile", record.email_address)
        except _Stuck as error:
            await _fail(database, record, str(error), emit, stuck_key=error.key, stuck_looks=error.looks)
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
                await inboxes.succeed(connection, record, is_to_go_on=is_to_go_on)


async def _fail(
    database: Database,
    record: InboxRecord,
    text: str,
    emit: Callable[[ReportEvent], None],
    *,
    stuck_key: str | None = None,
    stuck_looks: int | None = None,
) -> None:
    async with database.connection() as connection:
        failures = await inboxes.fail(connection, record, text, stuck_key=stuck_key, stuck_looks=stuck_looks)
    if failures is not None:
        emit(InboxFailed(record.email_address, record.client, failures, text))


async def _look(database: Database, record: InboxRecord, open_inbox: Open, terms: PullTerms) -> bool:
    """True: one was passed, and the next look is to go on behind it at once."""
    clock = asyncio.get_running_loop().time
    stop_at = clock() + terms.look_seconds / 2
    inbox = await open_inbox(record)
    try:
        return await _Look(database, record, inbox, terms, lambda: clock() <= stop_at).read()
    finally:
        await inbox.close()


class _Superseded(RelaydError):
    """The inbox is another look's, or its settings are others by now. Nothing of what this one found is kept."""


class _Stuck(InboxError):
    """So many looks in a row have ended at this message, and it is to blame."""

    def __init__(self, text: str, key: str, looks: int) -> None:
        super().__init__(text)
        self.key = key
        self.looks = looks


class _Look:
    """One look at an inbox. Raises InboxError, _Superseded."""

    def __init__(
        self, database: Database, record: InboxRecord, inbox: Inbox, terms: PullTerms, has_time: Callable[[], bool]
    ) -> None:
        self._database = database
        self._record = record
        self._inbox = inbox
        self._terms = terms
        self._has_time = has_time
        # Whether of any message it could be had.
        self._has_header = False
        self._has_content = False

    async def read(self) -> bool:
        """Until all is read, or time is over. True: it ends behind one that was passed."""
        while True:
            try:
                found, end = await self._inbox.fresh(self._terms.most_messages)
            except Unreadable as error:
                if await self._is_stored(error.message):
                    continue
                is_to_blame = self._has_header or await blame.for_its_header(self._inbox, self._has_time)
                return await self._pass(error, is_to_blame)
            self._has_header = self._has_header or bool(found)
            for index, message in enumerate(found):
                if not await self._take_in(message, found[index + 1 :]) or not self._has_time():
                    return False
            if end is not None:
                async with self._database.connection() as connection:
                    await self._advance(connection, end)
            if end is not None or not found:
                return False

    async def _take_in(self, message: Fresh, behind: Sequence[Fresh]) -> bool:
        """Keep of it what is to be kept; False if so many wait to be read that this one has to."""
        try:
            content = await self._content(message)
        except Unreadable as error:
            if await self._is_stored(message):
                return await self._keep(message, None)
            others = [each for each in behind if interest(each.header)[0] is Interest.REPORT]
            is_to_blame = self._has_content or await blame.for_its_content(self._whole, others, self._has_time)
            return await self._pass(error, is_to_blame)
        except (InboxError, StoreUnavailable):
            raise
        except Exception as error:
            log.exception("message %s in the inbox of %s could not be read", message.key, self._record.email_address)
            return await self._keep(message, message.header, _broken(error))
        return await self._keep(message, content)

    async def _content(self, message: Fresh) -> bytes | None:
        """What is to be kept of it, None of what is none of relayd's business."""
        kind, answered = interest(message.header)
        if kind is Interest.REPORT:
            content = await self._whole(message)
            self._has_content = True
            return content
        if kind is Interest.ANSWER:
            async with self._database.connection() as connection:
                if await late_results.has_sent(connection, self._record.mailbox_id, answered):
                    return message.header
        return None

    async def _whole(self, message: Fresh) -> bytes:
        seconds = self._terms.look_seconds / 4
        try:
            async with asyncio.timeout(seconds):
                return await self._inbox.whole(message, self._terms.most_octets)
        except TimeoutError:
            raise Unreadable(message, f"no end within {seconds:.0f} s") from None

    async def _is_stored(self, message: Fresh) -> bool:
        """By an earlier look, passed perhaps: a position may stand before what is done with."""
        async with self._database.connection() as connection:
            return await inbound_reports.has(connection, self._record.mailbox_id, message.key[:200])

    async def _pass(self, error: Unreadable, is_to_blame: bool) -> bool:
        """Leave one behind that could not be had for so long, keeping what there is of its header; False as `_keep`.

        Raises InboxError before that.
        """
        message, record = error.message, self._record
        text = f"message {message.key} cannot be read: {error}"
        if not is_to_blame:
            raise InboxError(text)
        key = message.key[:200]
        looks = record.stuck_looks + 1 if record.stuck_key == key else 1
        if looks < TRIES:
            raise _Stuck(text, key, looks)
        log.warning("in the inbox of %s %s; it is passed", record.email_address, text)
        return await self._keep(message, message.header, text)

    async def _keep(self, message: Fresh, content: bytes | None, error: str | None = None) -> bool:
        """Store it, if there is something, and go on behind it. `error`: why it is not to be read."""
        async with self._database.transaction() as connection:
            if content is not None:
                new = NewReport(
                    client_id=self._record.client_id,
                    source=self._record.kind,
                    content=content or b"\n",
                    mailbox_id=self._record.mailbox_id,
                    source_key=message.key[:200],
                )
                stored = await inbound_reports.add(connection, new, max_waiting=self._terms.max_waiting)
                if stored is None:
                    return False
                if error is not None:
                    await inbound_reports.set_aside(connection, stored, error)
            await self._advance(connection, message.position)
        return True

    async def _advance(self, connection: Connection, to: Position) -> None:
        if not await inboxes.advance(connection, self._record, to.uid_validity, to.last_uid, to.read_to):
            raise _Superseded


def _broken(error: Exception) -> str:
    # Its text may hold what was read.
    return f"it broke the reader: {type(error).__name__}; relayd's log has more"
