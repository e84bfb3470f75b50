"""One attempt: a message and some of its recipients, handed to an upstream within the time that the lease allows."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Protocol
from uuid import UUID

from relayd import failpoints
from relayd.delivery.breakers import Breakers
from relayd.delivery.settler import Ended, Settler
from relayd.delivery.upstreams import Fleet, UpstreamTerms
from relayd.errors import RelaydError
from relayd.mail.address import Address
from relayd.mail.envelope import NOTHING_SAID, RecipientNotice, Transmission
from relayd.rules.doubt import Trace, Way
from relayd.rules.kept_return_path import KEEPS_REVERSE_PATH
from relayd.rules.known_hosts import USUAL, Signing
from relayd.rules.news import Action, is_wanted
from relayd.rules.outcome import Cause, Deferred, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.store import references
from relayd.store.attempts import Start
from relayd.store.claim import ClaimedEntry
from relayd.store.ids import new_id
from relayd.store.pool import Database

# How long a message that cannot be signed now waits.
UNSIGNED_SECONDS = 60.0


class Finisher(Protocol):
    """Makes of a stored message what a mailbox sends to an upstream, where that is not the same."""

    async def finish(
        self, content: bytes, *, client_id: UUID, mailbox_id: UUID, rewrites_from: bool, signing: Signing
    ) -> bytes:
        """The signed bytes. Raises RelaydError where it cannot be signed now."""
        ...


# Makes durable under what name an upstream knows an attempt. Raises StoreUnavailable.
Keep = Callable[[Sequence[ClaimedEntry], str], Awaitable[None]]


class ReturnPaths(Protocol):
    """Gives what is sent a reverse-path by which its bounces are known."""

    async def choose(self, mailbox_id: UUID, subject: UUID) -> Address | None:
        """The reverse-path for an entry or a message of this mailbox; None: as it was submitted. Raises nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """Claimed entries of one message and mailbox that go in one transaction."""

    terms: UpstreamTerms
    entries: tuple[ClaimedEntry, ...]


def plan(entries: Sequence[ClaimedEntry], fleet: Fleet) -> tuple[list[Attempt], list[ClaimedEntry]]:
    """Group claimed entries into transactions of at most the upstream's recipients.

    Second: entries whose upstream this worker does not know (removed a moment ago); give them back.
    """
    attempts: list[Attempt] = []
    unknown: list[ClaimedEntry] = []
    # By mailbox, too: recipients of a pool's message may have come to different members.
    by_message = sorted(entries, key=lambda entry: (*_together(entry), entry.entry_id))
    for (_, upstream_id, _), group in groupby(by_message, key=_together):
        together = tuple(group)
        terms = fleet.terms(upstream_id)
        if terms is None:
            unknown += together
            continue
        for begin in range(0, len(together), terms.max_recipients):
            attempts.append(Attempt(terms, together[begin : begin + terms.max_recipients]))
    return attempts, unknown


async def run(
    attempt: Attempt,
    started: Start,
    fleet: Fleet,
    settler: Settler,
    breakers: Breakers,
    *,
    finisher: Finisher | None,
    keep: Keep,
    return_paths: ReturnPaths | None = None,
    longest_seconds: float,
    on_delivered: Callable[[], None],
) -> None:
    """Deliver and settle what `started` holds of it. Its start is durable already; on return its end is too.

    `on_delivered` is called once, when the connection is free for the next one: before the end is durable.
    """
    began = asyncio.get_running_loop().time()
    transmission = replace(_transmission(attempt, started), keep_reference=partial(keep, attempt.entries))
    submitted_path = transmission.reverse_path
    failpoints.reach("attempt-started")
    try:
        if return_paths is not None:
            transmission = await _with_return_path(attempt, transmission, return_paths)
        unsigned = started.messages[transmission.queue_id].sign_at_attempt
        finished = await _finished(attempt, transmission, finisher, unsigned=unsigned)
        if isinstance(finished, Transmission):
            outcomes = await _deliver(attempt, finished, fleet, longest_seconds)
        else:
            outcomes = (finished,) * len(attempt.entries)
    finally:
        on_delivered()
    failpoints.reach("attempt-ended")
    if transmission.reverse_path != submitted_path:
        outcomes = tuple(replace(each, dsn_passed=False) if isinstance(each, Sent) else each for each in outcomes)
    seconds = asyncio.get_running_loop().time() - began
    # First, so that what is due again at once does not find the same upstream.
    await breakers.judge(attempt.terms.id, attempt.entries[0].claimed_by, outcomes)
    await settler.settle(
        [
            _ended(attempt, entry, started.notices.get(entry.entry_id, NOTHING_SAID), outcome, seconds)
            for entry, outcome in zip(attempt.entries, outcomes, strict=True)
        ]
    )


def _transmission(attempt: Attempt, started: Start) -> Transmission:
    first = attempt.entries[0]
    message = started.messages[first.queue_id]
    asked = [started.notices.get(entry.entry_id) for entry in attempt.entries]
    return Transmission(
        queue_id=message.queue_id,
        reverse_path=message.reverse_path,
        recipients=tuple(entry.recipient for entry in attempt.entries),
        content=message.content,
        smtputf8=message.smtputf8,
        body_8bitmime=message.body_8bitmime,
        mailbox=started.mailboxes.get(first.mailbox_id),
        notices=tuple(notice or NOTHING_SAID for notice in asked) if any(asked) else (),
        dsn_ret=message.dsn_ret,
        envelope_id=message.envelope_id,
    )


def traces(taken: Sequence[Attempt]) -> dict[UUID, Trace]:
    """How these attempts can be looked for, by entry. By Message-ID another attempt of the message would be found."""
    found: dict[UUID, Trace] = {}
    for each in taken:
        if way := each.terms.looks:
            trace = Trace(way, f"attempt:{new_id()}" if way is Way.MESSAGE_ID else None)
            found |= dict.fromkeys([entry.entry_id for entry in each.entries], trace)
    return found


async def _with_return_path(attempt: Attempt, transmission: Transmission, return_paths: ReturnPaths) -> Transmission:
    """The null reverse-path stays: a bounce of a bounce is nobody's. So does it where the provider writes its own.

    Who further on has something to tell tells relayd then, and no longer the submitter. So relayd asks for what it
    reads, and says of a success itself how far it knows (RFC 3461 5.2.2: `relayed`).
    """
    if transmission.reverse_path is None or attempt.terms.provider not in KEEPS_REVERSE_PATH:
        return transmission
    first = attempt.entries[0]
    # Of one recipient the entry is named: its bounce is known even if it names nobody.
    subject = first.entry_id if len(attempt.entries) == 1 else first.queue_id
    chosen = await return_paths.choose(first.mailbox_id, subject)
    if chosen is None:
        return transmission
    return replace(
        transmission,
        reverse_path=chosen,
        notices=tuple(replace(each, notify=each.notify and "FAILURE") for each in transmission.notices),
        dsn_ret=transmission.dsn_ret and "HDRS",
    )


def untried(entry: ClaimedEntry, reason: str) -> Ended:
    """The end of a claim that was never attempted: no attempt spent, its budget returned, due again at once."""
    return Ended(
        entry_id=entry.entry_id,
        fence=entry.fence,
        claimed_by=entry.claimed_by,
        queue_id=entry.queue_id,
        mailbox_id=entry.mailbox_id,
        recipient=entry.recipient,
        retry_count=entry.retry_count,
        max_retries=entry.max_retries,
        first_attempt_at=entry.first_attempt_at,
        upstream="",
        provider="",
        on_uncertain="retry",
        outcome=Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, f"not tried: {reason}"), 0),
        seconds=0,
    )


def _together(entry: ClaimedEntry) -> tuple[UUID, UUID, UUID]:
    return entry.queue_id, entry.upstream_id, entry.mailbox_id


def keeper(database: Database) -> Keep:
    """Keeps references in the queue."""

    async def keep(entries: Sequence[ClaimedEntry], reference: str) -> None:
        async with database.connection() as connection:
            await references.keep(connection, entries, reference)

    return keep


async def _finished(
    attempt: Attempt, transmission: Transmission, finisher: Finisher | None, *, unsigned: bool
) -> Transmission | Outcome:
    """As this upstream is to get it. `unsigned`: stored without signatures, From is not known before the attempt."""
    if not unsigned and attempt.terms.signing == USUAL:
        return transmission
    assert finisher is not None
    first = attempt.entries[0]
    try:
        content = await finisher.finish(
            transmission.content,
            client_id=first.client_id,
            mailbox_id=first.mailbox_id,
            rewrites_from=unsigned,
            signing=attempt.terms.signing,
        )
    except RelaydError as error:
        return Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, f"cannot be signed: {error}"), UNSIGNED_SECONDS)
    return replace(transmission, content=content)


async def _deliver(
    attempt: Attempt, transmission: Transmission, fleet: Fleet, longest_seconds: float
) -> tuple[Outcome, ...]:
    try:
        async with asyncio.timeout(longest_seconds):
            return await fleet.deliver(attempt.terms, transmission)
    except TimeoutError:
        # Most of the upstream's own timers end sooner; past this point the lease would lapse under the attempt.
        stage = Stage(transmission.reached.stage)
        cause = Cause(stage, f"no end within {longest_seconds:.0f} s")
        outcome: Outcome = Uncertain(cause) if stage is Stage.DOT else Deferred(Scope.UPSTREAM, cause)
    except asyncio.CancelledError:
        stage = Stage(transmission.reached.stage)
        if stage is Stage.DOT:
            raise
        outcome = Postponed(Scope.MESSAGE, Cause(stage, "not sent: relayd was stopped"), 0)
    return (outcome,) * len(attempt.entries)


def _ended(attempt: Attempt, entry: ClaimedEntry, notice: RecipientNotice, outcome: Outcome, seconds: float) -> Ended:
    return Ended(
        entry_id=entry.entry_id,
        fence=entry.fence,
        claimed_by=entry.claimed_by,
        queue_id=entry.queue_id,
        mailbox_id=entry.mailbox_id,
        recipient=entry.recipient,
        retry_count=entry.retry_count,
        max_retries=entry.max_retries,
        first_attempt_at=entry.first_attempt_at,
        upstream=attempt.terms.name,
        provider=attempt.terms.provider,
        on_uncertain=attempt.terms.on_uncertain,
        outcome=outcome,
        seconds=seconds,
        asks_of_success=is_wanted(Action.RELAYED, notice.notify),
        can_look=attempt.terms.looks is not None,
    )
