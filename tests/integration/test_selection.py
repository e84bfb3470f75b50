"""Which entries a filter means, how they are counted and walked in pages."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from relayd.errors import NotFound
from relayd.mail.address import Address
from relayd.rules.states import LIVE, Status
from relayd.store import messages, selection
from relayd.store.connection import Connection
from relayd.store.messages import Search
from relayd.store.pool import Database
from relayd.store.selection import Filter
from tests.builders import Sender, claim_all, make_sender, put, put_many


async def matching(connection: Connection, wanted: Filter, states: Sequence[Status] = LIVE) -> set[UUID]:
    found = await selection.page(
        connection, await selection.resolve(connection, wanted, states=states), after=None, limit=1000
    )
    return {position.entry_id for position in found}


@pytest.fixture
async def senders(db: Database) -> tuple[Sender, Sender]:
    async with db.connection() as connection:
        return (
            await make_sender(connection, "noreply@example.com"),
            await make_sender(connection, "news@other.example", client="other", upstream="second"),
        )


async def test_each_criterion_selects_its_entries(db: Database, senders: tuple[Sender, Sender]) -> None:
    async with db.transaction() as connection:
        ours = await put(connection, senders[0], "Ann@Example.NET", "bob@example.org")
        theirs = await put(connection, senders[1], "carl@sub.example.net")
        ann, bob, carl = ours.entries[0].entry_id, ours.entries[1].entry_id, theirs.entries[0].entry_id
        for wanted, expected in (
            (Filter(), {ann, bob, carl}),
            (Filter(ids=(ours.queue_id,)), {ann, bob}),
            (Filter(ids=(bob, theirs.queue_id)), {bob, carl}),
            (Filter(mailbox="NoReply@example.com"), {ann, bob}),
            (Filter(domain="other.example"), {carl}),
            (Filter(mailbox="noreply@example.com", domain="other.example"), set()),
            (Filter(recipient="ann@example.net"), {ann}),
            (Filter(recipient="@EXAMPLE.net"), {ann}),
            (Filter(client="other"), {carl}),
            (Filter(upstream="capture"), {ann, bob}),
            (Filter(states=(Status.SENT,)), set()),
            (Filter(client="acme", recipient="bob@example.org"), {bob}),
        ):
            assert await matching(connection, wanted) == expected, wanted


@pytest.mark.parametrize(
    "stored", ["j\u00f6@b\u00fccher.example", "jo\u0308@bu\u0308cher.example", "jo\u0308@xn--bcher-kva.example"]
)
async def test_a_recipient_is_found_by_any_spelling(db: Database, senders: tuple[Sender, Sender], stored: str) -> None:
    async with db.transaction() as connection:
        ours = await put(connection, senders[0], stored)
        await put(connection, senders[0], "other@example.org")
        for asked in (Address.parse(stored).key, "@xn--bcher-kva.example"):
            assert await matching(connection, Filter(recipient=asked)) == {ours.entries[0].entry_id}, asked
            found = await messages.find(connection, Search(recipient=asked), limit=10)
            assert found == [ours.queue_id], asked


async def test_ages_count_on_the_databases_clock(db: Database, senders: tuple[Sender, Sender]) -> None:
    async with db.transaction() as connection:
        old = await put(connection, senders[0])
        await connection.execute("UPDATE relayd_state SET clock_offset = '2 hours'")
        new = await put(connection, senders[0])
        hour = timedelta(hours=1)
        assert await matching(connection, Filter(older_than=hour)) == {old.entries[0].entry_id}
        assert await matching(connection, Filter(younger_than=hour)) == {new.entries[0].entry_id}


async def test_what_is_in_flight_goes_by_the_upstream_of_its_claim(
    db: Database, senders: tuple[Sender, Sender]
) -> None:
    async with db.transaction() as connection:
        claimed = await put(connection, senders[0])
        assert await claim_all(connection, senders[0].upstream_id)
        waiting = await put(connection, senders[0])
        await connection.execute("UPDATE email_mailboxes SET upstream_id = $1", senders[1].upstream_id)
        assert await matching(connection, Filter(upstream="capture")) == {claimed.entries[0].entry_id}
        assert await matching(connection, Filter(upstream="second")) == {waiting.entries[0].entry_id}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Filter(mailbox="nobody@example.com"), "there is no mailbox nobody@example.com"),
        (Filter(domain="nowhere.example"), "there is no domain nowhere.example"),
        (Filter(client="nobody"), "there is no client nobody"),
        (Filter(upstream="nothing"), "there is no upstream nothing"),
        (Filter(ids=(UUID(int=1),)), "no message and no queue entry has the id 00000000-0000-0000-0000-000000000001"),
    ],
)
async def test_unknown_names_are_refused(
    db: Database, senders: tuple[Sender, Sender], wanted: Filter, message: str
) -> None:
    async with db.transaction() as connection:
        with pytest.raises(NotFound, match=message):
            await selection.resolve(connection, wanted, states=LIVE)


async def test_pages_meet_every_entry_once_whatever_their_states(db: Database, senders: tuple[Sender, Sender]) -> None:
    async with db.transaction() as connection:
        messages = await put_many(connection, senders[0], 30)
        ended = [message.entries[0].entry_id for message in messages[:10]]
        held = [message.entries[0].entry_id for message in messages[10:15]]
        await connection.execute(
            "UPDATE email_queue SET status = 'failed', failed_at = relayd_now() WHERE id = ANY($1)", ended
        )
        await connection.execute(
            "UPDATE email_queue SET status = 'pending', pending_reason = 'held' WHERE id = ANY($1)", held
        )
        chosen = await selection.resolve(connection, Filter(), states=(*LIVE, Status.FAILED))
        seen: list[UUID] = []
        after = None
        while positions := await selection.page(connection, chosen, after=after, limit=7):
            seen += [position.entry_id for position in positions]
            after = positions[-1]
        assert sorted(seen) == sorted(message.entries[0].entry_id for message in messages)
        assert len(seen) == len(set(seen))
        assert seen[-10:] == sorted(ended, reverse=True), "ended ones come last, newest first"
        assert await selection.count(connection, chosen) == {
            Status.PENDING: 5,
            Status.QUEUED: 15,
            Status.FAILED: 10,
        }
