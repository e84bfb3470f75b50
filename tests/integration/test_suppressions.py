"""Who is suppressed gets nothing: what a worker remembers of the list, what the door does, how the list grows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relayd.intake.submission import Identity
from relayd.intake.suppression import FRESH_SECONDS, Suppressions
from relayd.mail.address import Address
from relayd.rules.relay_events import Accepted, RecipientDropped
from relayd.rules.suppression import SuppressionReason
from relayd.store import directory, migrate, suppressed, suppressions
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.suppressions import NewSuppression
from tests.builders import claim_all, make_sender
from tests.integration.test_door import Entrance, entrance

__all__ = ["entrance"]

YOU = Address.parse("You@Example.NET")


@dataclass
class Memory:
    """A worker's memory of the list, with a clock of its own, and two clients."""

    db: Database
    acme: Identity
    rival: Identity
    now: float = 0.0
    known: Suppressions = field(init=False)

    def __post_init__(self) -> None:
        self.known = Suppressions(self.db, clock=lambda: self.now)

    async def refuses(self, address: str, identity: Identity | None = None) -> str:
        return str(await self.known.refusal(identity or self.acme, Address.parse(address)) or "")

    async def read_all(self) -> None:
        """Until the list has been read whole."""
        await self.refuses("nobody@example.org")
        if self.known._loading is not None:
            await self.known._loading
        assert self.known._mark is not None

    async def add(self, *addresses: str, identity: Identity | None = None, **fields: Any) -> int:
        async with self.db.transaction() as connection:
            return await put_on_list(connection, identity or self.acme, *addresses, **fields)


async def put_on_list(connection: Connection, identity: Identity, *addresses: str, **fields: Any) -> int:
    lasts = fields.pop("lasts", None)
    if lasts is not None:
        fields["expires_at"] = await connection.fetchval("SELECT relayd_now() + $1::interval", lasts)
    fields = {"reason": SuppressionReason.MANUAL, **fields}
    new = [NewSuppression(identity.client.id, Address.parse(each), **fields) for each in addresses]
    return await suppressions.add(connection, new)


@pytest.fixture
async def memory(db: Database) -> AsyncIterator[Memory]:
    async with db.transaction() as connection:
        await make_sender(connection, "app@example.com")
        await make_sender(connection, "boss@rival.example", client="rival")
        clients = [await directory.find_client(connection, name) for name in ("acme", "rival")]
    assert clients[0] and clients[1]
    found = Memory(db, Identity(clients[0]), Identity(clients[1]))
    yield found
    await found.known.close()


async def test_an_address_is_known_in_any_spelling_and_to_its_client_alone(memory: Memory) -> None:
    await memory.add("You@Example.NET", '"dotted.name"@example.net', "j\u00f6rg@b\u00fccher.example")
    await memory.add("a..b@docomo.test", '".c"@docomo.test', "e\u0301ve@example.net")
    for _ in range(2):
        for text in (
            "you@example.net",
            "YOU@EXAMPLE.NET",
            "dotted.name@example.net",
            "J\u00f6rg@xn--bcher-kva.example",
            "Jo\u0308rg@bu\u0308cher.example",
            "\u00c9ve@example.net",
            "E\u0301ve@example.net",
            '"a..b"@docomo.test',
            "A..b@docomo.test",
            ".c@docomo.test",
        ):
            assert await memory.refuses(text), text
            assert not await memory.refuses(text, memory.rival), text
        assert not await memory.refuses("you2@example.net")
        if memory.known._loading is not None:
            await memory.known._loading  # the second time it is asked of what it remembers


async def test_the_refusal_says_who_since_when_and_why(memory: Memory) -> None:
    await memory.add("you@example.net", reason=SuppressionReason.HARD_BOUNCE)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert await memory.refuses("You@example.net") == (
        f"550 5.7.1 <You@example.net> is suppressed for client acme since {today}: hard bounce;"
        " lifted by: relayd suppression remove"
    )
    await memory.add("j\u00f6rg@example.net")
    assert await memory.refuses("j\u00f6rg@example.net") == (
        f"550 5.7.1 <j\u00f6rg@example.net> is suppressed for client acme since {today}: manual;"
        " lifted by: relayd suppression remove"
    )


async def test_keys_that_were_stored_decomposed_are_found_after_the_migration(memory: Memory) -> None:
    old, new = "jo\u0308rg@example.net", "j\u00f6rg@example.net"
    both = "\u00e9@example.net"
    await memory.add(both)
    async with memory.db.connection() as connection:
        for key in (old, "e\u0301@example.net"):
            await connection.execute(
                "INSERT INTO suppressions (client_id, address, reason, fingerprint) VALUES ($1, $2, 'manual', $3)",
                memory.acme.client.id,
                key,
                suppressions.fingerprint(memory.acme.client.id, key),
            )
        await connection.execute("UPDATE email_mailboxes SET email_address = $1 WHERE email_address LIKE 'app%'", old)
        await connection.execute((migrate.find_directory() / "0025_composed_addresses.up.sql").read_text())
        assert await connection.fetchval("SELECT count(*) FROM email_mailboxes WHERE email_address = $1", new) == 1
    await memory.read_all()
    for text in (old, new, both, "e\u0301@example.net"):
        assert await memory.refuses(text), text
    async with memory.db.connection() as connection:
        assert await suppressions.remove(connection, memory.acme.client.id, [Address.parse(old)]) == [new]
    assert not await memory.refuses(new)


async def test_a_change_is_seen_within_a_second_and_a_removal_at_once(memory: Memory) -> None:
    await memory.read_all()
    await memory.add("you@example.net")
    memory.now += FRESH_SECONDS
    assert await memory.refuses("you@example.net")
    async with memory.db.transaction() as connection:
        assert await suppressions.remove(connection, memory.acme.client.id, [YOU]) == ["you@example.net"]
        assert await suppressions.remove(connection, memory.acme.client.id, [YOU]) == []
    assert not await memory.refuses("you@example.net")
    await memory.add("you@example.net")
    assert await memory.refuses("you@example.net"), "what was removed and comes back is still remembered"


async def test_what_commits_later_than_it_began_is_not_missed(memory: Memory) -> None:
    """A transaction that is under way while the list is read has an older number than those that are read."""
    async with memory.db.connection() as connection:
        under_way = connection.transaction()
        await under_way.start()
        await put_on_list(connection, memory.acme, "late@example.net")
        await memory.read_all()
        await memory.add("early@example.net")
        memory.now += FRESH_SECONDS
        assert await memory.refuses("early@example.net")
        assert not await memory.refuses("late@example.net")
        await under_way.commit()
    memory.now += FRESH_SECONDS
    assert await memory.refuses("late@example.net")


async def test_what_is_written_while_all_is_read_is_not_missed(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is longer than a slice, read anew while others write to it and sessions ask."""
    monkeypatch.setattr(suppressed, "SLICE", 3)
    monkeypatch.setattr("relayd.intake.suppression.MOST_RECENT", 2)
    await memory.add(*(f"old{number}@example.net" for number in range(10)))
    await memory.read_all()
    for number in range(6):
        await memory.add(f"new{number}@example.net")
        memory.now += FRESH_SECONDS
        await asyncio.gather(*(memory.refuses("nobody@example.net") for _ in range(5)))
        assert await memory.refuses(f"new{number}@example.net")
    if memory.known._loading is not None:
        await memory.known._loading
    memory.now += FRESH_SECONDS
    for name in [f"old{number}" for number in range(10)] + [f"new{number}" for number in range(6)]:
        assert await memory.refuses(f"{name}@example.net"), name
    assert len(memory.known._recent) < 6, "what was many has been taken into the rest"


async def test_a_reading_of_all_that_ends_while_news_are_read_loses_none(memory: Memory) -> None:
    """What began before a change was written must not be taken for newer than the change."""
    await memory.add("old@example.net")
    await memory.read_all()
    known, marked = memory.known._known, memory.known._mark
    await memory.add("you@example.net")
    memory.now += FRESH_SECONDS
    assert await memory.refuses("you@example.net")
    memory.now += FRESH_SECONDS
    async with memory.db.connection() as other:
        lock = other.transaction()
        await lock.start()
        await other.execute("LOCK TABLE suppressions")
        asking = asyncio.create_task(memory.refuses("old@example.net"))
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
        # As a reading leaves it that began when `marked` was taken.
        memory.known._known, memory.known._recent = known, set()
        memory.known._mark, memory.known._read_at = marked, 0.0
        await lock.rollback()
    assert await asking
    assert await memory.refuses("you@example.net")


async def test_what_a_worker_remembers_needs_no_query(memory: Memory) -> None:
    await memory.add("you@example.net")
    await memory.read_all()
    memory.now += FRESH_SECONDS
    assert await memory.refuses("you@example.net")
    await memory.db.close()
    for number in range(100):
        assert not await memory.refuses(f"user{number}@example.net")


async def test_a_suppression_ends_with_its_time(memory: Memory) -> None:
    await memory.add("you@example.net", lasts=timedelta(days=90))
    await memory.read_all()
    assert await memory.refuses("you@example.net")
    async with memory.db.transaction() as connection:
        await connection.execute("UPDATE relayd_state SET clock_offset = interval '91 days'")
    assert not await memory.refuses("you@example.net")
    assert await memory.add("you@example.net", lasts=timedelta(days=90)) == 1, "it begins anew"
    assert await memory.refuses("you@example.net")
    async with memory.db.transaction() as connection:
        await connection.execute("UPDATE relayd_state SET clock_offset = interval '200 days'")
        assert await suppressions.prune(connection, limit=10) == 1


async def test_the_longer_of_two_suppressions_stays(memory: Memory) -> None:
    month, forever = timedelta(days=30), None
    for reason, lasts, added, stays in (
        (SuppressionReason.HARD_BOUNCE, month, 1, "hard_bounce"),
        (SuppressionReason.IMPORT, timedelta(days=7), 0, "hard_bounce"),
        (SuppressionReason.COMPLAINT, forever, 0, "complaint"),
        (SuppressionReason.HARD_BOUNCE, month, 0, "complaint"),
        (SuppressionReason.MANUAL, forever, 0, "complaint"),
    ):
        assert await memory.add("you@example.net", reason=reason, lasts=lasts) == added
        async with memory.db.connection() as connection:
            found = await suppressions.find(connection, memory.acme.client.id, YOU)
        assert found and found.reason == stays
    assert await memory.add("x@example.net", "X@example.net", "you@example.net") == 1


async def test_a_dropped_recipient_is_taken_and_ended_at_once(entrance: Entrance) -> None:
    await entrance.execute("UPDATE clients SET suppressed = 'drop', bounces = 'both'")
    async with entrance.db.transaction() as connection:
        await put_on_list(connection, entrance.acme, "YOU@example.net")
    assert await entrance.door.check_recipient(entrance.acme, YOU) is None
    assert (await entrance.accept()).startswith("250 2.0.0 queued as ")
    entry = await entrance.last()
    assert (entry["status"], entry["reason"], entry["pending_reason"]) == ("failed", "suppressed", None)
    async with entrance.db.connection() as connection:
        assert await claim_all(connection, entrance.sender.upstream_id) == []
        log = await connection.fetch("SELECT event, error_message FROM email_delivery_logs ORDER BY event")
        assert [row["event"] for row in log] == ["queued", "suppressed"]
        assert log[1]["error_message"].startswith("suppressed for client acme since ")
        assert await connection.fetchval("SELECT count(*) FROM messages") == 1, "and no notification"
        event = await connection.fetchrow("SELECT * FROM client_events")
    assert event and (event["kind"], event["recipient"]) == ("suppressed", "you@example.net")
    assert [type(each) for each in entrance.events if isinstance(each, Accepted | RecipientDropped)] == [
        Accepted,
        RecipientDropped,
    ]


async def test_a_refusing_client_is_refused_and_others_are_not(entrance: Entrance) -> None:
    async with entrance.db.transaction() as connection:
        await put_on_list(connection, entrance.acme, "you@example.net")
    refusal = await entrance.door.check_recipient(entrance.acme, YOU)
    assert refusal and str(refusal).startswith("550 5.7.1 <You@example.net> is suppressed for client acme")
    # Suppressed between RCPT and the end of the message: what was taken goes its way.
    assert (await entrance.accept()).startswith("250 ")
    assert (await entrance.last())["status"] == "queued"
