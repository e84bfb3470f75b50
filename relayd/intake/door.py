"""The door: check the sender, complete and sign the message, commit it with others, and only then say 250.

What changes a message's bytes happens here, before signing, once; `rewriting` is for what is known later.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import asyncpg

from relayd import failpoints
from relayd.errors import StoreFull, StoreUnavailable
from relayd.intake import dropping, instructions, sender_fields
from relayd.intake.dropping import Dropped, Prepared, dropped_among, leaving
from relayd.intake.instructions import Instructions
from relayd.intake.prospects import Prospect, Prospects
from relayd.intake.routing import Routing
from relayd.intake.senders import Senders, Way
from relayd.intake.signer import Signer
from relayd.intake.submission import Identity, Submission, entries_of
from relayd.intake.suppression import Suppressions
from relayd.mail import author, header_rules, headers, trace, transfer_encoding
from relayd.mail.address import Address
from relayd.mail.headers import HeaderScan
from relayd.mail.reply import Reply
from relayd.rules.relay_events import Accepted, BatchCommitted, Rejected, RelayEvent, StoreLost
from relayd.seal import SealError
from relayd.store import lanes, queue
from relayd.store.batcher import Batcher, after_commit
from relayd.store.ids import new_id
from relayd.store.pool import Database

log = logging.getLogger(__name__)

MAX_HOPS = 50
BATCH_MESSAGES = 500
# Under load the scheduler has enough to do meanwhile.
WAKE_SPACING_SECONDS = 0.04
BATCH_OCTETS = 16 * 1024 * 1024
LARGE_OCTETS = 1024 * 1024

UNAVAILABLE = Reply(451, "4.3.0", "Temporary server problem, try again later")
FULL = Reply(451, "4.3.1", "Insufficient system storage, try again later")


@dataclass(frozen=True, slots=True)
class DoorTerms:
    """What the door writes and allows: the host's name for Received, attempts an entry may have, how far ahead a
    message may be scheduled."""

    host: str
    max_retries: int
    furthest_schedule: timedelta = timedelta(days=30)


class Door:
    """Takes submissions. One a worker: its batches are the worker's group commit."""

    def __init__(
        self,
        database: Database,
        senders: Senders,
        signer: Signer,
        prospects: Prospects,
        suppressions: Suppressions,
        terms: DoorTerms,
        *,
        emit: Callable[[RelayEvent], None],
        wake: Callable[[], None],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._senders = senders
        self._signer = signer
        self._prospects = prospects
        self._suppressions = suppressions
        self._routing = Routing(database)
        self._terms = terms
        self._emit = emit
        self._wake = wake
        self._now = now
        self._asleep: set[int] = set()
        self._waking: asyncio.Task[None] | None = None
        self._batcher: Batcher[Prepared, None] = Batcher(
            self._commit,
            max_items=BATCH_MESSAGES,
            max_weight=BATCH_OCTETS,
            weigh=lambda prepared: len(prepared.message.content),
        )

    async def check_reverse_path(self, identity: Identity, reverse_path: Address | None) -> Reply | None:
        """None if this identity may send from there, else the refusal. Raises StoreUnavailable."""
        return await self._senders.check_reverse_path(identity, reverse_path)

    async def check_recipient(self, identity: Identity, forward_path: Address) -> Reply | None:
        """None if this identity may write there, else the refusal. Raises StoreUnavailable."""
        return await self._suppressions.refusal(identity, forward_path)

    async def accept(self, submission: Submission) -> Reply:
        """The final reply: 250 with the queue id once the message is committed, or why it is refused."""
        try:
            scan = headers.scan(submission.content)
            joins = submission.identity.client.joins_recipients
            content, scan = header_rules.checked(submission.content, scan, joins_recipients=joins)
            submission = replace(submission, content=content)
            sole_author = author.sole_author(scan)
            asked = instructions.read(scan, now=self._now(), furthest=self._terms.furthest_schedule)
        except ValueError as error:
            return self._refuse(submission, "malformed", Reply(550, "5.6.0", f"Message refused: {error}"))
        if submission.envelope.reverse_path is None:
            refusal = self._senders.check_null_reverse_path(submission.identity, scan)
            if refusal is not None:
                return self._refuse(submission, "null_reverse_path", refusal)
        if headers.received_count(scan) > MAX_HOPS:
            return self._refuse(submission, "loop", Reply(554, "5.4.6", "Too many Received fields: a mail loop"))
        try:
            named = await sender_fields.checked(self._senders, submission.identity, headers.Prepared(content, scan))
            if isinstance(named, Reply):
                return self._refuse(submission, "sender_not_allowed", named)
            content, scan = named
            submission = replace(submission, content=content)
            entries = entries_of(submission.envelope)
            dropped = await dropped_among(self._suppressions, submission.identity, entries)
            way = await self._senders.way_for(submission.identity, sole_author, asked, recipients=len(entries))
            if isinstance(way, Reply):
                return self._refuse(submission, "from_not_allowed", way)
            fitted = await self._fitted(submission, scan, way)
            if isinstance(fitted, Reply):
                return self._refuse(submission, "malformed", fitted)
            content, scan = fitted
            submission = replace(submission, content=content)
            queue_id = new_id()
            entries = await self._routing.place(queue_id, way.mailbox, way.mail_class, sole_author, entries)
            prospect = await self._prospect(submission, way, asked, leaving(entries, dropped))
            if isinstance(prospect, Reply):
                return self._refuse(submission, "leaves_too_late", prospect)
            message = await self._prepare(queue_id, submission, scan, sole_author, way, asked, entries)
            await self._batcher.submit(Prepared(message, dropped))
        except StoreUnavailable as error:
            self._emit(StoreLost("enqueue", str(error)))
            return self._refuse(submission, "unavailable", FULL if isinstance(error, StoreFull) else UNAVAILABLE)
        except SealError as error:
            log.error("cannot sign: %s", error)
            return self._refuse(submission, "unavailable", UNAVAILABLE)
        with after_commit():
            self._report(submission, message, way, dropped)
        failpoints.reach("enqueue-reply")
        when = prospect.text if prospect else None
        return Reply(250, "2.0.0", f"queued as {message.queue_id}" + (f", {when}" if when else ""))

    async def drain(self) -> None:
        """Wait until everything accepted has been answered and its lanes woken."""
        await self._batcher.drain()
        if self._waking is not None:
            await self._waking

    async def _fitted(self, submission: Submission, scan: HeaderScan, way: Way) -> headers.Prepared | Reply:
        """The message with lines and octets that every server takes, or the refusal."""
        fit = partial(
            transfer_encoding.fit,
            submission.content,
            scan,
            converts_eight_bit=way.mailbox.converts_eight_bit,
            refuses=submission.identity.refuses_long_lines,
        )
        try:
            if len(submission.content) > LARGE_OCTETS:
                return await asyncio.to_thread(fit)  # it may take a second, in which others are served
            return fit()
        except ValueError as error:
            return Reply(550, "5.6.0", f"Message refused: {error}")

    async def _prospect(
        self, submission: Submission, way: Way, asked: Instructions, entries: Sequence[queue.NewEntry]
    ) -> Prospect | Reply | None:
        """When it would leave, None where no limit says, or the refusal of a login that does not wait so long."""
        if not (way.mailbox.is_limited and entries) or asked.not_before is not None:
            return None  # whoever names a time knows that it waits
        # Where recipients go different ways, that of the first: their limits are the same, but for the providers'.
        lane_id, recipients = entries[0].lane_id or way.mailbox.lane_id(way.mail_class), len(entries)
        prospect = await self._prospects.join(lane_id, recipients)
        longest = submission.identity.refuse_after_seconds
        refusal = prospect.refusal(longest) if prospect and longest is not None else None
        if refusal is not None:
            await self._prospects.leave(lane_id, recipients)
        return refusal or prospect

    async def _prepare(
        self,
        queue_id: UUID,
        submission: Submission,
        scan: HeaderScan,
        sole_author: Address,
        way: Way,
        asked: Instructions,
        entries: tuple[queue.NewEntry, ...],
    ) -> queue.NewMessage:
        now = self._now()
        envelope = submission.envelope
        message_id = headers.message_id(scan) or f"<{queue_id}@{way.domain.domain}>"
        prepared = headers.prepare(
            submission.content,
            scan,
            received=trace.received_field(
                helo=submission.helo,
                peer=submission.peer,
                host=self._terms.host,
                protocol=submission.protocol,
                queue_id=str(queue_id),
                when=now,
                tls=submission.tls,
                recipient=envelope.forward_paths[0] if len(envelope.forward_paths) == 1 else None,
            ),
            message_id=message_id,
            date=trace.date_text(now),
            host=self._terms.host,
        )
        content = prepared.content
        if not way.rewrites_from:
            content = await self._signer.sign(way.domain, content, prepared.scan, now)
        return queue.NewMessage(
            queue_id=queue_id,
            client_id=submission.identity.client.id,
            mailbox_id=way.mailbox.id,
            lane_id=way.mailbox.lane_id(way.mail_class),
            credential_id=submission.identity.credential_id,
            origin="submission",
            reverse_path=envelope.reverse_path,
            header_from=sole_author,
            message_id_header=message_id,
            subject=headers.decoded_subject(scan),
            content=content,
            # What the message needs, which may be less than what its client announced.
            smtputf8=envelope.smtputf8 and _needs_smtputf8(submission, scan),
            body_8bitmime=not content.isascii(),
            parent_id=None,
            helo=submission.helo[:255],
            peer=submission.peer,
            max_retries=self._terms.max_retries,
            entries=entries,
            not_before=asked.not_before,
            pool_id=way.pool_id,
            sign_at_attempt=way.rewrites_from,
            dsn_ret=envelope.dsn_ret,
            envelope_id=envelope.envelope_id,
        )

    async def _commit(self, batch: Sequence[Prepared]) -> list[None]:
        messages = [prepared.message for prepared in batch]
        began = asyncio.get_running_loop().time()
        failpoints.reach("enqueue-before")
        if any(prepared.dropped for prepared in batch):
            async with self._database.transaction() as connection:
                await dropping.enqueue(connection, batch)
                failpoints.reach_soon("enqueue-sent")
        else:
            async with self._database.connection() as connection:
                failpoints.reach_soon("enqueue-sent")
                await queue.enqueue(connection, messages)
        failpoints.reach("enqueue-committed")
        with after_commit():
            # Not part of the answer's way: the lanes are woken while the 250s go out.
            self._asleep.update(*(message.lane_ids for message in messages))
            if self._waking is None:
                self._waking = asyncio.create_task(self._wake_lanes())
            self._emit(BatchCommitted("enqueue", len(messages), asyncio.get_running_loop().time() - began))
        return [None] * len(messages)

    async def _wake_lanes(self) -> None:
        # One at a time: a wake may wait for a claim, and what gathers meanwhile is woken together.
        try:
            while self._asleep:
                lane_ids, self._asleep = sorted(self._asleep), set()
                try:
                    async with self._database.connection() as connection:
                        await lanes.wake(connection, lane_ids)
                except (StoreUnavailable, asyncpg.PostgresError) as error:
                    with after_commit():
                        self._emit(StoreLost("wake", str(error)))  # upkeep's sweep finds these entries
                self._wake()
                if self._asleep:
                    await asyncio.sleep(WAKE_SPACING_SECONDS)
        finally:
            self._waking = None

    def _refuse(self, submission: Submission, reason: str, reply: Reply) -> Reply:
        identity = submission.identity
        self._emit(
            Rejected(
                identity.client.name,
                submission.peer,
                identity.login,
                reason,
                f"{reply.code} {reply.enhanced}",
                reply.text,
            )
        )
        return reply

    def _report(self, submission: Submission, message: queue.NewMessage, way: Way, dropped: Sequence[Dropped]) -> None:
        self._emit(
            Accepted(
                queue_id=message.queue_id,
                client=submission.identity.client.name,
                mailbox=str(way.mailbox.address),
                reverse_path=str(message.reverse_path or "<>"),
                recipients=len(message.entries),
                size_octets=len(message.content),
                message_id=message.message_id_header,
                peer=submission.peer,
                login=submission.identity.login,
                protocol=submission.protocol,
            )
        )
        for each in dropped:
            self._emit(each.told(message))
        if not headers.is_well_formed_id(message.message_id_header):
            log.warning(
                "%s: its Message-ID is kept as written, but is not <id@example.com>: %s",
                message.queue_id,
                message.message_id_header,
            )


def _needs_smtputf8(submission: Submission, scan: HeaderScan) -> bool:
    envelope = submission.envelope
    paths = [*envelope.forward_paths, *([envelope.reverse_path] if envelope.reverse_path else [])]
    return any(path.needs_smtputf8 for path in paths) or not submission.content[: scan.body_offset].isascii()
