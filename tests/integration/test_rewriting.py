"""What is finished at the attempt: From of a pool that rewrites it, and the signatures that an upstream accepts.

The queue keeps one message, as it was stored.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from relayd.delivery.attempt import plan
from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Pace
from relayd.delivery.scheduler import Scheduler
from relayd.delivery.settler import Settler
from relayd.delivery.upstreams import Fleet, UpstreamTerms
from relayd.errors import RelaydError
from relayd.intake.keys import make_keys
from relayd.intake.rewriting import Rewriter
from relayd.intake.signer import Signer
from relayd.mail import headers
from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.rules.breaker import BreakerTerms
from relayd.rules.known_hosts import KNOWN_SERVERS, USUAL, Dkim, Signing
from relayd.rules.outcome import Cause, Outcome, Sent, Stage
from relayd.rules.retry import RetryPolicy
from relayd.seal import Seal, new_key, parse_key
from relayd.store import directory, messages
from relayd.store.claim import ClaimedEntry
from relayd.store.clock import DatabaseClock
from relayd.store.domains import ADD_KEY, NewKey
from relayd.store.ids import new_id
from relayd.store.pool import Database
from relayd.store.queue import NewMessage, enqueue
from tests.builders import NoBounces, Sender, make_sender, new_message, put
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


async def deliver_all(db: Database, sender: Sender, seal: Seal, signing: Signing = USUAL) -> list[Transmission]:
    """What goes out until nothing is on its way."""
    recorder, clock = Recorder(), DatabaseClock()
    terms = UpstreamTerms(sender.upstream_id, "capture", "capture", 2, 100, "retry", "1", signing=signing)

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


SES = KNOWN_SERVERS["ses"].signing
FOREIGN = b"DKIM-Signature: v=1; a=rsa-sha256; d=app.example; s=x; h=From; bh=AAAA; b=AAAA\r\n"
BARE = b"Received: from app\r\n" + FOREIGN + b"Message-ID: <1@example.com>\r\nDate: today\r\n" + UNSIGNED


async def put_signed(db: Database, sender: Sender, seal: Seal, content: bytes = BARE) -> bytes:
    """A message as the door stores it; its bytes."""
    async with db.connection() as c:
        domain = await directory.find_domain(c, sender.address.partition("@")[2])
    assert domain is not None
    signed = await Signer(db, seal).sign(domain, content, headers.scan(content), datetime.now(UTC))
    async with db.transaction() as c:
        await put(c, sender, content=signed)
    return signed


@pytest.fixture
async def sender(db: Database) -> Sender:
    async with db.transaction() as c:
        return await make_sender(c, "a@example.com")


@pytest.mark.parametrize(
    ("signing", "algorithms", "keeps_foreign", "covers_id"),
    [
        (USUAL, ["ed25519-sha256", "rsa-sha256"], True, True),
        (SES, ["rsa-sha256"], False, False),
        (Signing(Dkim.RSA), ["rsa-sha256"], False, True),
        (Signing(Dkim.ALL, SES.rewritten), ["ed25519-sha256", "rsa-sha256"], True, False),
        (Signing(Dkim.NONE), [], False, False),
        (Signing(Dkim.NONE, SES.rewritten), [], False, False),
    ],
    ids=["all", "ses", "rsa", "ses with all", "none", "ses with none"],
)
async def test_an_upstream_gets_the_signatures_that_it_accepts(
    db: Database,
    sender: Sender,
    seal: Seal,
    signing: Signing,
    algorithms: list[str],
    keeps_foreign: bool,
    covers_id: bool,
) -> None:
    records = await add_keys(db, sender, seal, make_keys(seal, datetime.now(UTC)))
    stored = await put_signed(db, sender, seal)
    (taken,) = await deliver_all(db, sender, seal, signing)
    assert (FOREIGN in taken.content) == keeps_foreign
    assert taken.content.endswith(BARE if keeps_foreign else BARE.replace(FOREIGN, b""))
    own = taken.content[: taken.content.index(b"Received:")]
    assert own.count(b"DKIM-Signature:") == len(algorithms)
    # dkimpy stops at a signature without a key, so the foreign one is looked at apart.
    assert verified_algorithms(taken.content.replace(FOREIGN, b""), records) == algorithms
    assert (b"Message-ID:" in own.replace(b"\r\n\t", b"")) == (b"Date:" in own.replace(b"\r\n\t", b"")) == covers_id
    async with db.connection() as c:
        assert await c.fetchval("SELECT content FROM message_bodies") == stored


async def test_a_message_of_a_rewriting_pool_is_signed_for_its_upstream_too(
    db: Database, sender: Sender, seal: Seal
) -> None:
    records = await add_keys(db, sender, seal, make_keys(seal, datetime.now(UTC)))
    async with db.transaction() as c:
        await enqueue(c, [replace(_message(sender), sign_at_attempt=True)])
        await c.execute("UPDATE mailbox_lanes SET due_at = relayd_now()")
    (taken,) = await deliver_all(db, sender, seal, SES)
    assert b"From: Jo <a@example.com>\r\n" in taken.content
    assert verified_algorithms(taken.content, records) == ["rsa-sha256"]


async def test_of_two_rsa_keys_one_signs_where_one_signature_is_accepted(
    db: Database, sender: Sender, seal: Seal
) -> None:
    records = await add_keys(db, sender, seal, make_keys(seal, datetime.now(UTC)))
    records |= await add_keys(db, sender, seal, make_keys(seal, datetime.now(UTC)))
    await put_signed(db, sender, seal)
    (taken,) = await deliver_all(db, sender, seal, SES)
    assert verified_algorithms(taken.content, records) == ["rsa-sha256"]


RSA_GONE = "UPDATE dkim_keys SET status = 'retired' WHERE algorithm = 'rsa-sha256'"
KEYS_GONE = "UPDATE dkim_keys SET status = 'retired'"
FLIPPED = "set_byte(private_key_sealed, 30, get_byte(private_key_sealed, 30) # 1)"
SPOILT = f"UPDATE dkim_keys SET private_key_sealed = {FLIPPED}"
RENAMED = "UPDATE email_domains SET domain = 'x.example'"


@pytest.mark.parametrize(
    ("change", "signing", "reason"),
    [
        (RSA_GONE, SES, "example.com has no active RSA DKIM key"),
        (RSA_GONE, Signing(Dkim.RSA), "example.com has no active RSA DKIM key"),
        (KEYS_GONE, SES, "example.com has no active RSA DKIM key"),
        (KEYS_GONE, Signing(Dkim.ALL, SES.rewritten), "example.com has no active DKIM key"),
        (SPOILT, SES, "cannot be signed: "),
        (RENAMED, SES, "the message's client has no domain example.com"),
    ],
    ids=["no rsa key", "no rsa key, rsa", "no key", "no key, all", "a key that does not open", "no such domain"],
)
async def test_without_the_right_key_mail_waits_and_never_goes_unsigned(
    db: Database, sender: Sender, seal: Seal, change: str, signing: Signing, reason: str
) -> None:
    await add_keys(db, sender, seal, make_keys(seal, datetime.now(UTC)))
    await put_signed(db, sender, seal)
    async with db.transaction() as c:
        await c.execute(change)
    assert await deliver_all(db, sender, seal, signing) == []
    async with db.connection() as c:
        row = await c.fetchrow(
            "SELECT status, reason, retry_count, next_attempt_at > relayd_now() AS w FROM email_queue"
        )
    assert row is not None and (row["status"], row["retry_count"], row["w"]) == ("queued", 0, True)
    assert "cannot be signed: " in row["reason"] and reason in row["reason"]


async def test_an_upstream_without_signatures_needs_no_key(db: Database, sender: Sender, seal: Seal) -> None:
    await add_keys(db, sender, seal, make_keys(seal, datetime.now(UTC)))
    await put_signed(db, sender, seal)
    async with db.transaction() as c:
        await c.execute(SPOILT)
    (taken,) = await deliver_all(db, sender, seal, Signing(Dkim.NONE))
    assert b"DKIM-Signature" not in taken.content


async def test_the_domain_of_another_client_signs_nothing(db: Database, sender: Sender, seal: Seal) -> None:
    await add_keys(db, sender, seal, make_keys(seal, datetime.now(UTC)))
    rewriter = Rewriter(db, Signer(db, seal), now=lambda: datetime.now(UTC))
    with pytest.raises(RelaydError, match="client has no domain"):
        await rewriter.finish(BARE, client_id=new_id(), mailbox_id=sender.mailbox_id, rewrites_from=False, signing=SES)
