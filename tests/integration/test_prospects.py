"""What the 250 says of when a message leaves, and the 452 of a login that does not wait so long."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from relayd.intake import prospects
from relayd.intake.submission import Identity, Submission
from relayd.mail.address import Address
from relayd.mail.envelope import Envelope
from relayd.mail.reply import Reply
from relayd.mail.trace import date_text
from relayd.rules.relay_events import Accepted, Rejected, RelayEvent
from relayd.store import directory, outlook
from relayd.store.pool import Database
from relayd.submission.auth import make_verifier
from relayd.submission.verifier import DirectoryVerifier
from tests.builders import Sender, make_sender, put_many
from tests.integration.test_door import make_door
from tests.integration.test_outlook import at_noon, use


class Entrance:
    """A door on a real database, and who comes to it."""

    def __init__(self, db: Database, sender: Sender, identity: Identity) -> None:
        self.db = db
        self.sender = sender
        self.identity = identity
        self.events: list[RelayEvent] = []
        self.door = make_door(db, self.events)

    async def send(self, recipients: int = 1, *, refuse_after_seconds: int | None = None, header: str = "") -> Reply:
        paths = tuple(Address.parse(f"user{number}@example.net") for number in range(recipients))
        reply = await self.door.accept(
            Submission(
                identity=replace(self.identity, refuse_after_seconds=refuse_after_seconds),
                envelope=Envelope(Address.parse("bounces@example.com"), paths, False, False),
                content=f"From: noreply@example.com\r\n{header}Subject: Hello\r\n\r\nBody\r\n".encode(),
                helo="app.example.com",
                peer="192.0.2.1",
                protocol="ESMTP",
                tls=None,
            )
        )
        await self.door.drain()
        return reply

    async def queued(self) -> int:
        async with self.db.connection() as connection:
            count: int = await connection.fetchval("SELECT count(*) FROM email_queue")
        return count


@pytest.fixture
async def entrance(db: Database) -> Entrance:
    async with db.connection() as connection:
        await at_noon(connection)
        sender = await make_sender(connection, daily_limit=5)
        client = await directory.find_client(connection, "acme")
    assert client is not None
    return Entrance(db, sender, Identity(client, UUID(int=1), "app"))


def after_the_id(reply: Reply) -> str:
    match = re.fullmatch(r"queued as [0-9a-f-]{36}(.*)", reply.text)
    assert match and reply.code == 250, reply
    return match[1]


async def test_the_250_says_when_it_leaves_once_todays_limit_is_taken(entrance: Entrance) -> None:
    # The database is asked once; what came in since is counted here.
    assert [after_the_id(await entrance.send()) for _ in range(11)] == [
        *[""] * 5,
        *[", leaves about 2027-03-03 00:00 UTC"] * 5,
        ", leaves about 2027-03-04 00:00 UTC",
    ]


async def test_of_many_recipients_the_last_is_meant(entrance: Entrance) -> None:
    assert after_the_id(await entrance.send(3)) == ""
    assert after_the_id(await entrance.send(13)) == ", leaves about 2027-03-05 00:00 UTC"


async def test_no_limit_asks_nothing(entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("the hot path asked")

    monkeypatch.setattr(outlook, "find", never)
    async with entrance.db.connection() as connection:
        await connection.execute("UPDATE email_mailboxes SET daily_send_limit = NULL")
    assert after_the_id(await entrance.send()) == ""


async def test_a_limited_lane_is_asked_for_once(entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    find = outlook.find

    async def counted(*arguments: object) -> object:
        asked.append(None)
        return await find(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(outlook, "find", counted)
    monkeypatch.setattr(prospects, "CACHE_SECONDS", 3600.0)
    entrance = Entrance(entrance.db, entrance.sender, entrance.identity)
    for _ in range(20):
        await entrance.send()
    assert len(asked) == 1


async def test_more_than_is_counted_leaves_not_before(entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prospects, "REACH", replace(prospects.REACH, entries=12))
    async with entrance.db.connection() as connection:
        await put_many(connection, entrance.sender, 40)
    assert after_the_id(await entrance.send()) == ", leaves not before 2027-03-04 00:00 UTC"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("UPDATE email_mailboxes SET status = 'paused'", ""),
        ("UPDATE email_mailboxes SET daily_send_limit = 0", ", waits for a limit to be raised"),
        ("UPDATE mailbox_lanes SET blocked_until = relayd_now() + interval '50 minutes'", ", leaves about 2027-03-02"),
    ],
)
async def test_what_else_holds_it(entrance: Entrance, change: str, text: str) -> None:
    async with entrance.db.connection() as connection:
        await connection.execute(change)
    said = after_the_id(await entrance.send())
    assert said.startswith(text) and bool(said) == bool(text)


async def test_a_login_is_refused_what_would_leave_too_late(entrance: Entrance) -> None:
    async with entrance.db.connection() as connection:
        await use(connection, "mailbox_day", entrance.sender.mailbox_id, 4)
    hours = 3600
    assert after_the_id(await entrance.send(refuse_after_seconds=2 * hours)) == ""
    refused = await entrance.send(refuse_after_seconds=2 * hours)
    assert str(refused) == (
        "452 4.7.1 Would leave about 2027-03-03 00:00 UTC, this login waits 2 h at most: "
        "mailbox noreply@example.com may send 5 a day; try again later"
    )
    assert await entrance.queued() == 1
    (event,) = [event for event in entrance.events if isinstance(event, Rejected)]
    assert (event.reason, event.reply, event.login) == ("leaves_too_late", "452 4.7.1", "app")
    # What was refused takes nobody's place, and who waits longer is let in.
    for _ in range(5):
        assert (
            after_the_id(await entrance.send(refuse_after_seconds=13 * hours)) == ", leaves about 2027-03-03 00:00 UTC"
        )
    assert (await entrance.send(refuse_after_seconds=13 * hours)).code == 452
    assert len([event for event in entrance.events if isinstance(event, Accepted)]) == await entrance.queued() == 6


async def test_what_never_leaves_is_refused_where_a_login_has_a_deadline(entrance: Entrance) -> None:
    async with entrance.db.connection() as connection:
        await connection.execute("UPDATE clients SET daily_send_limit = 0")
    refused = await entrance.send(refuse_after_seconds=86_400 * 365)
    assert refused.code == 452 and "Would never leave" in refused.text and "client acme may send 0" in refused.text


async def test_a_failed_estimate_refuses_nothing(entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "LINES", "SELECT nothing FROM nowhere WHERE $1 = $2 OR $3 = $4")
    assert after_the_id(await entrance.send(refuse_after_seconds=1)) == ""


async def test_the_deadline_comes_with_the_login(db: Database) -> None:
    async with db.connection() as connection:
        sender = await make_sender(connection)
        made = make_verifier("secret", salt=b"salt" * 4)
        await connection.execute(
            "INSERT INTO smtp_credentials (client_id, login, salt, iterations, stored_key, server_key,"
            " refuse_after_seconds) VALUES ($1, 'app', $2, $3, $4, $5, 7200)",
            sender.client_id,
            made.salt,
            made.iterations,
            made.stored_key,
            made.server_key,
        )
    identity = await DirectoryVerifier(db, []).authenticate("app", "secret")
    assert identity is not None and identity.refuse_after_seconds == 7200
    assert timedelta(seconds=identity.refuse_after_seconds) == timedelta(hours=2)


async def test_a_bulk_message_is_told_by_its_own_lane_and_a_scheduled_one_not_at_all(entrance: Entrance) -> None:
    async with entrance.db.connection() as c:
        await c.execute("UPDATE clients SET bulk_reserve_percent = 100")
    bulk = await entrance.send(header="X-Relayd-Class: bulk\r\n")
    assert "waits for a limit" in bulk.text
    assert bulk.text != (await entrance.send()).text
    tomorrow = date_text(datetime.now(UTC) + timedelta(days=1))
    scheduled = await entrance.send(header=f"X-Relayd-Not-Before: {tomorrow}\r\nX-Relayd-Class: bulk\r\n")
    assert scheduled.code == 250 and "leaves" not in scheduled.text and "waits" not in scheduled.text
