"""A pool that may rewrite From: stored once and unsigned, each attempt under the address of the mailbox that sends."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from relayd.delivery.attempt import plan
from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Pace
from relayd.delivery.scheduler import Scheduler
from relayd.delivery.settler import Settler
from relayd.delivery.upstreams import Fleet, UpstreamTerms
from relayd.intake.keys import make_keys
from relayd.intake.rewriting import Rewriter
from relayd.intake.signer import Signer
from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.rules.breaker import BreakerTerms
from relayd.rules.outcome import Cause, Outcome, Sent, Stage
from relayd.rules.retry import RetryPolicy
from relayd.seal import Seal, new_key, parse_key
from relayd.store import messages
from relayd.store.claim import ClaimedEntry
from relayd.store.clock import DatabaseClock
from relayd.store.domains import ADD_KEY, NewKey
from relayd.store.ids import new_id
from relayd.store.pool import Database
from relayd.store.queue import NewMessage, enqueue
from tests.builders import Sender, make_sender, new_message, put
from tests.e2e.signatures import signed_part, verified_algorithms
from tests.integration.test_door import Entrance, entrance

__all__ = ["entrance"]

UNSIGNED = b"From: Jo <app@example.com>\r\nSubject: Hi\r\n\r\nBody\r\n"


@dataclass
class Recorder:
    """An upstream that takes everything."""

    taken: list[Transmission] = field(default_factory=list)

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        self.taken.append(transmission)
        return tuple(Sent(Cause(Stage.DOT, "ok", 250, "2.0.0")) for _ in transmission.recipients)

    async def close(self) -> None:
        pass


@dataclass
class KnownTerms:
    """As a fleet that knows one upstream."""

    known: UpstreamTerms

    def terms(self, upstream_id: UUID) -> UpstreamTerms:
        return self.known


class NoBounces:
    async def compose(self, failures: Any) -> list[NewMessage]:
        return []


async def deliver_all(db: Database, sender: Sender, seal: Seal) -> list[Transmission]:
    """What goes out until nothing is on its way."""
    recorder, clock = Recorder(), DatabaseClock()
    terms = UpstreamTerms(sender.upstream_id, "capture", "capture", 2, 100, "retry", "1")

    async def load() -> list[tuple[UpstreamTerms, Callable[[], Recorder]]]:
        return [(terms, lambda: recorder)]

    settler = Settler(db, NoBounces(), RetryPolicy(), emit=lambda event: None, wake=lambda: None, now=clock.now)
    rewriter = Rewriter(db, Signer(db, seal), now=lambda: datetime.now(UTC))
    scheduler = Scheduler(
        db,
        Fleet(load),
        settler,
        Breakers(db, BreakerTerms(), name_of=str, emit=lambda event: None, wake=lambda: None),
        clock,
        claimant="n/1/1",
        pace=Pace(poll_seconds=3600.0),
        emit=lambda event: None,
        finisher=rewriter,
    )
    loop = asyncio.create_task(scheduler.run())
    async with asyncio.timeout(30):
        async with db.connection() as c:
            while await c.fetchval(
                "SELECT EXISTS (SELECT FROM email_queue WHERE status = 'sending'"
                " OR (status = 'queued' AND next_attempt_at <= relayd_now()))"
            ):
                await asyncio.sleep(0.02)
    assert await scheduler.drain(30)
    await loop
    await settler.drain()
    return recorder.taken


@pytest.fixture
def seal() -> Seal:
    return Seal(parse_key(new_key().encode()))


async def add_keys(db: Database, sender: Sender, seal: Seal, keys: tuple[NewKey, ...]) -> dict[str, str]:
    """Keys for the sender's domain; their DNS records."""
    domain = sender.address.partition("@")[2]
    async with db.connection() as c:
        for key in keys:
            values = (key.selector, key.algorithm, key.record_value, key.private_key_sealed)
            await c.execute(ADD_KEY, key.id, sender.client_id, sender.domain_id, *values)
    return {f"{key.selector}._domainkey.{domain}": key.record_value for key in keys}


async def test_each_mailbox_sends_under_its_own_address_and_signature(db: Database, seal: Seal) -> None:
    async with db.transaction() as c:
        a = await make_sender(c, "a@example.com")
        b = await make_sender(c, "b@example.org")
        message = replace(_message(a), sign_at_attempt=True)
        await enqueue(c, [message])
        # As if some of its recipients had been moved, on one upstream.
        second = message.entries[1].entry_id
        move = "UPDATE email_queue SET mailbox_id = $1, lane_id = $2 WHERE id = $3"
        await c.execute(move, b.mailbox_id, b.mail_lane_id, second)
        await c.execute("UPDATE mailbox_lanes SET due_at = relayd_now()")
    now = datetime.now(UTC)
    records = await add_keys(db, a, seal, make_keys(seal, now)) | await add_keys(db, b, seal, make_keys(seal, now))
    taken = await deliver_all(db, a, seal)
    sent = {str(each.recipients[0]): each.content for each in taken}
    for recipient, address in (("one@example.net", "a@example.com"), ("two@example.net", "b@example.org")):
        content = sent[recipient]
        assert f"\r\nFrom: Jo <{address}>\r\nReply-To: Jo <app@example.com>\r\n".encode() in content
        assert f"d={address.partition('@')[2]};".encode() in content
        assert verified_algorithms(signed_part(content), records) == ["ed25519-sha256", "rsa-sha256"]
    async with db.connection() as c:
        assert await messages.content(c, message.queue_id) == UNSIGNED
        assert (await messages.copy_of(c, message.queue_id, recipients=())).sign_at_attempt


def _message(sender: Sender) -> NewMessage:
    return new_message(sender, "one@example.net", "two@example.net", content=UNSIGNED)


def test_mailboxes_share_no_transaction() -> None:
    queue_id, upstream_id = new_id(), new_id()
    terms = UpstreamTerms(upstream_id, "capture", "capture", 2, 100, "retry", "1")
    recipient = Address.parse("you@example.net")
    a, b = sorted([new_id(), new_id()])
    claimed = [
        ClaimedEntry(new_id(), 1, "n/1/1/1", queue_id, new_id(), mailbox_id, upstream_id, recipient, 0, 5, None)
        for mailbox_id in (a, b, a)
    ]
    planned, _ = plan(claimed, KnownTerms(terms))  # type: ignore[arg-type]
    assert [[entry.mailbox_id for entry in each.entries] for each in planned] == [[a, a], [b]]


async def test_what_is_signed_already_goes_as_it_is(db: Database, seal: Seal) -> None:
    async with db.transaction() as c:
        a = await make_sender(c, "a@example.com")
        await put(c, a, content=UNSIGNED)
    (taken,) = await deliver_all(db, a, seal)
    assert taken.content == UNSIGNED


async def test_what_cannot_be_signed_waits_and_says_why(db: Database, seal: Seal) -> None:
    async with db.transaction() as c:
        a = await make_sender(c, "a@example.com", daily_limit=10)
        await enqueue(c, [replace(_message(a), sign_at_attempt=True)])
        await c.execute("UPDATE mailbox_lanes SET due_at = relayd_now()")
    other = Seal(parse_key(new_key().encode()))
    await add_keys(db, a, other, make_keys(other, datetime.now(UTC)))
    assert await deliver_all(db, a, seal) == []
    async with db.connection() as c:
        rows = await c.fetch(
            "SELECT status, reason, retry_count, next_attempt_at > relayd_now() AS later FROM email_queue"
        )
        assert {(row["status"], row["retry_count"], row["later"]) for row in rows} == {("queued", 0, True)}
        assert all("cannot be signed" in row["reason"] for row in rows)
        assert await c.fetchval("SELECT max(used) FROM email_mailbox_usage") == 0


async def test_the_pools_owner_decides_whether_the_door_signs(entrance: Entrance, seal: Seal) -> None:
    pool_id = await entrance.make_pool("news", "a@example.com")
    async with entrance.db.connection() as c:
        await c.execute("UPDATE mailbox_pools SET may_rewrite_from = true")
    await entrance.accept(identity=replace(entrance.acme, pool_id=pool_id), author="Jo <app@example.com>")
    async with entrance.db.connection() as c:
        row = await c.fetchrow("SELECT s.sign_at_attempt, b.content FROM messages s, message_bodies b")
        assert row and row["sign_at_attempt"] and b"From: Jo <app@example.com>\r\n" in row["content"]
