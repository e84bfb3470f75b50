"""The only door to relayd's own functions: what is measured here is what a worker calls, as it calls it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from relayd.daemon.storage import HOT_PATH
from relayd.mail.address import Address
from relayd.rules.outcome import Cause, Sent, Stage
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted
from relayd.rules.settlement import settle as decide
from relayd.store import attempts, lanes, retention, settlement
from relayd.store import claim as claiming
from relayd.store.claim import ClaimedEntry
from relayd.store.ids import new_id, new_ids
from relayd.store.pool import Database
from relayd.store.queue import NewEntry, NewMessage, enqueue

# A worker's share of an upstream's 20 connections is 10 of two workers; it asks for those and for one batch ahead.
BATCH = 20
READ_LIMIT = 200
CLAIM_LEASE_SECONDS = 60.0
ATTEMPT_LEASE_SECONDS = 960.0
SPREAD_SECONDS = 300.0
PROVIDER = "smtp_relay"
CONTENT = b"From: app@example.com\r\nSubject: Hello\r\n\r\n" + (b"x" * 76 + b"\r\n") * 12


async def open_as_worker(dsn: str, password: str, *, name: str) -> Database:
    """One connection with a worker's settings."""
    return await Database.open(dsn, password=password, max_size=1, application_name=name, server_settings=HOT_PATH)


async def submit(database: Database, senders: Sequence[Mapping[str, Any]], count: int, *, batch: int = 50) -> None:
    """`count` messages of one recipient each, over the senders in turn; batches as intake makes them under load.

    As a worker, or a foreign key's check would keep the scan that it was planned with while its table was empty.
    """
    for begin in range(0, count, batch):
        messages = [
            _message(senders[number % len(senders)], number) for number in range(begin, min(begin + batch, count))
        ]
        async with database.connection() as connection:
            await enqueue(connection, messages)
            await lanes.wake(connection, sorted({message.lane_id for message in messages}))


async def claim(database: Database, upstream_id: UUID, *, batch: int, claimant: str) -> tuple[list[ClaimedEntry], bool]:
    """One claim, committed; second: another may take more."""
    async with database.transaction() as connection:
        claimed = await claiming.claim(
            connection,
            {upstream_id: batch},
            read_limit=READ_LIMIT,
            claimant=claimant,
            lease_seconds=CLAIM_LEASE_SECONDS,
            spread_seconds=SPREAD_SECONDS,
        )
    return claimed.entries, claimed.leaves_more


async def start(database: Database, entries: Sequence[ClaimedEntry]) -> list[ClaimedEntry]:
    """The durable start; those that may be sent."""
    async with database.connection() as connection:
        started = await attempts.start(
            connection, [(entry, PROVIDER) for entry in entries], lease_seconds=ATTEMPT_LEASE_SECONDS
        )
    return [entry for entry in entries if entry in started.entries]


async def settle_sent(database: Database, entries: Sequence[ClaimedEntry]) -> int:
    """The upstream took them all; how many those are."""
    async with database.connection() as connection:
        left = await settlement.settle_sent(connection, [_sent(entry) for entry in entries])
    if left:
        async with database.transaction() as connection:
            await settlement.settle(connection, left)
    return len(entries)


async def prune(database: Database, before: datetime, *, batch: int = 500) -> int:
    """As upkeep does, until nothing older than `before` is left; how many rows went."""
    total = 0
    while True:
        async with database.transaction() as connection:
            # Upkeep's age is of hours, here a batch's own duration counts: the instant is kept, not the age.
            age = await connection.fetchval("SELECT relayd_now()") - before
            removed = await retention.prune(connection, age, limit=batch)
        if removed == 0:
            return total
        total += removed


def claim_statements(upstream_id: UUID, lane_ids: Sequence[int], *, batch: int) -> dict[str, tuple[str, list[object]]]:
    """The statements of a claim with arguments, for EXPLAIN."""
    return {
        "claim": (claiming.CLAIM, [[upstream_id], [batch], READ_LIMIT, "bench/explain", CLAIM_LEASE_SECONDS, uuid4()]),
        "reschedule": (lanes.RESCHEDULE, [list(lane_ids), [], SPREAD_SECONDS]),
    }


def _sent(entry: ClaimedEntry) -> settlement.Result:
    now = datetime.now(UTC)
    settled = decide(
        Sent(Cause(Stage.DOT, "2.0.0 Ok: queued as 4XyZ", 250, "2.0.0"), "4XyZ"),
        Attempted(entry.retry_count, entry.max_retries, entry.first_attempt_at or now),
        RetryPolicy(),
        on_uncertain="retry",
        now=now,
        dice=0.5,
    )
    return settlement.Result(entry.entry_id, entry.fence, entry.claimed_by, PROVIDER, settled)


def _message(sender: Mapping[str, Any], number: int) -> NewMessage:
    queue_id = new_id()
    return NewMessage(
        queue_id=queue_id,
        client_id=sender["client_id"],
        mailbox_id=sender["mailbox_id"],
        lane_id=sender["lane_id"],
        credential_id=None,
        origin="submission",
        reverse_path=Address.parse("bounces@example.com"),
        header_from=Address.parse(sender["email_address"]),
        message_id_header=f"<{queue_id}@example.com>",
        subject="Hello",
        content=CONTENT,
        smtputf8=False,
        body_8bitmime=False,
        parent_id=None,
        helo="app.example.com",
        peer="192.0.2.1",
        max_retries=50,
        entries=tuple(NewEntry(entry_id, Address.parse(f"user{number}@example.net")) for entry_id in new_ids(1)),
    )
