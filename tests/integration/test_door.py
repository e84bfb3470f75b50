"""The door on a real database: which lane a message waits in, until when, and who of a pool sends it."""

import email
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from relayd.intake.door import Door, DoorTerms
from relayd.intake.prospects import Prospects
from relayd.intake.senders import Senders
from relayd.intake.signer import Signer
from relayd.intake.submission import Identity, Submission, entries_of
from relayd.intake.suppression import Suppressions
from relayd.mail.address import Address
from relayd.mail.envelope import Envelope
from relayd.mail.headers import scan
from relayd.mail.trace import date_text
from relayd.rules.mail_class import MailClass
from relayd.rules.relay_events import Rejected
from relayd.rules.warm_up import DEFAULT_SCHEDULE
from relayd.seal import Seal, new_key, parse_key
from relayd.store import directory
from relayd.store.outlook import Terms
from relayd.store.pool import Database
from tests.builders import Sender, make_sender


@dataclass
class Entrance:
    """A door and who stands before it: acme, which has app@example.com."""

    db: Database
    door: Door
    acme: Identity
    sender: Sender
    events: list[Any]

    def look_again(self) -> None:
        """A door that remembers nothing."""
        self.door = make_door(self.db, self.events)

    async def accept(
        self, *lines: str, identity: Identity | None = None, author: str = "app@example.com", body: str = "Hi"
    ) -> str:
        """The reply to a message with these header fields."""
        header = "".join(f"{line}\r\n" for line in (f"From: {author}", *lines))
        envelope = Envelope(Address.parse("bounces@example.com"), (Address.parse("you@example.net"),), smtputf8=False)
        submission = Submission(
            identity or self.acme, envelope, f"{header}\r\n{body}\r\n".encode(), "app", "192.0.2.1", "ESMTPA", None
        )
        reply = await self.door.accept(submission)
        await self.door.drain()
        return str(reply)

    async def last(self) -> Any:
        """The newest entry, with its lane's class."""
        async with self.db.connection() as connection:
            row = await connection.fetchrow(
                "SELECT q.*, l.class, m.email_address, b.content, l.mailbox_id = q.mailbox_id AS fits,"
                " s.mailbox_id AS message_mailbox_id, q.next_attempt_at - relayd_now() AS waits"
                " FROM email_queue q JOIN mailbox_lanes l ON l.id = q.lane_id"
                " JOIN email_mailboxes m ON m.id = q.mailbox_id JOIN messages s ON s.id = q.message_id"
                " JOIN message_bodies b ON b.message_id = s.id ORDER BY q.id DESC LIMIT 1"
            )
        assert row is not None and row["fits"] and row["message_mailbox_id"] == row["mailbox_id"]
        return row

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.db.connection() as connection:
            await connection.execute(statement, *arguments)

    async def make_pool(self, name: str, *addresses: str, client: str = "acme", limit: int | None = 10) -> UUID:
        """A pool of these mailboxes, made where they are not there yet."""
        async with self.db.transaction() as c:
            boxes = [
                await c.fetchval("SELECT id FROM email_mailboxes WHERE email_address = $1", address)
                or (await make_sender(c, address, client=client, daily_limit=limit)).mailbox_id
                for address in addresses
            ]
            client_id = await c.fetchval("SELECT id FROM clients WHERE name = $1", client)
            add = "INSERT INTO mailbox_pools (client_id, name) VALUES ($1, $2) RETURNING id"
            pool_id: UUID = await c.fetchval(add, client_id, name)
            member = "INSERT INTO mailbox_pool_members (client_id, pool_id, mailbox_id) VALUES ($1, $2, $3)"
            await c.executemany(member, [(client_id, pool_id, box) for box in boxes])
        return pool_id


def make_door(db: Database, events: list[Any]) -> Door:
    return Door(
        db,
        Senders(db),
        Signer(db, Seal(parse_key(new_key().encode()))),
        Prospects(db, Terms(DEFAULT_SCHEDULE, 0)),
        Suppressions(db),
        DoorTerms("relay.test", 5, furthest_schedule=timedelta(days=2)),
        emit=events.append,
        wake=lambda: None,
        now=lambda: datetime.now(UTC),
    )


@pytest.fixture
async def entrance(db: Database) -> Entrance:
    async with db.transaction() as connection:
        sender = await make_sender(connection, "app@example.com")
        client = await directory.find_client(connection, "acme")
    assert client is not None
    events: list[Any] = []
    door = make_door(db, events)
    return Entrance(db, door, Identity(client), sender, events)


@pytest.mark.parametrize(
    ("line", "credential", "mailbox", "lane"),
    [
        ("X-None: 1", None, "transactional", "mail"),
        ("X-None: 1", None, "bulk", "bulk"),
        ("X-None: 1", MailClass.BULK, "transactional", "bulk"),
        ("X-Relayd-Class: bulk", MailClass.TRANSACTIONAL, "transactional", "bulk"),
        ("X-Relayd-Class: transactional", None, "bulk", "mail"),
        ("X-Relayd-Class: transactional", MailClass.BULK, "transactional", "bulk"),
    ],
)
async def test_a_message_waits_in_the_lane_of_its_class(
    entrance: Entrance, line: str, credential: MailClass | None, mailbox: str, lane: str
) -> None:
    await entrance.execute("UPDATE email_mailboxes SET mail_class = $1", mailbox)
    await entrance.accept(line, identity=replace(entrance.acme, mail_class=credential))
    entry = await entrance.last()
    assert entry["class"] == lane
    assert b"x-relayd" not in entry["content"].lower() and b"From: app@example.com" in entry["content"]


async def test_a_credential_says_its_class_and_pool(entrance: Entrance) -> None:
    pool_id = await entrance.make_pool("news", "news@example.com")
    await entrance.execute(
        "INSERT INTO smtp_credentials (client_id, login, salt, iterations, stored_key, server_key, mail_class, pool_id)"
        " VALUES ($1, 'app', '\\x00', 4096, $2, $2, 'bulk', $3)",
        entrance.acme.client.id,
        bytes(32),
        pool_id,
    )
    async with entrance.db.connection() as connection:
        login = await directory.find_login(connection, "app")
    assert login and (login.mail_class, login.pool_id) == (MailClass.BULK, pool_id)


async def test_a_scheduled_message_is_stored_and_waits(entrance: Entrance) -> None:
    at = (datetime.now(UTC) + timedelta(hours=30)).replace(microsecond=0)
    assert (await entrance.accept(f"X-Relayd-Not-Before: {date_text(at)}")).startswith("250 2.0.0 queued as")
    entry = await entrance.last()
    assert (entry["status"], entry["pending_reason"], entry["next_attempt_at"]) == ("pending", "scheduled", at)
    past = date_text(datetime.now(UTC) - timedelta(days=400))
    await entrance.accept(f"X-Relayd-Not-Before: {past}")
    entry = await entrance.last()
    assert (entry["status"], entry["pending_reason"]) == ("queued", None)
    assert entry["waits"] <= timedelta()


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("X-Relayd-Class: urgent", "550 5.6.0 Message refused: X-Relayd-Class must be transactional or bulk"),
        ("X-Relayd-Not-Before: soon", "550 5.6.0 Message refused: X-Relayd-Not-Before is not a date such as"),
        (
            "X-Relayd-Not-Before: 31 Dec 9990 10:00 +0000",
            "550 5.6.0 Message refused: X-Relayd-Not-Before may be at most 2 days ahead",
        ),
        ("X-Relayd-Pool: nosuch", "550 5.7.1 X-Relayd-Pool: client acme has no pool nosuch"),
        ("X-Relayd-Pool: theirs", "550 5.7.1 X-Relayd-Pool: client acme has no pool theirs"),
        ("X-Relayd-Pool: empty", "550 5.7.1 Pool empty has no mailbox that may send this; add one: relayd pool member"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_the_reason(entrance: Entrance, line: str, reply: str) -> None:
    await entrance.make_pool("theirs", "boss@rival.example", client="rival")
    await entrance.make_pool("empty")
    assert (await entrance.accept(line)).startswith(reply)
    async with entrance.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM messages") == 0
    assert [type(event) for event in entrance.events] == [Rejected]


async def test_a_pool_shares_its_mail_out_among_members_with_room(entrance: Entrance) -> None:
    pool_id = await entrance.make_pool("news", "a@example.com", "b@example.com", limit=3)
    by_pool = replace(entrance.acme, pool_id=pool_id)
    for _ in range(4):
        assert (await entrance.accept(identity=by_pool)).startswith("250 ")
    async with entrance.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT m.email_address, count(*) FROM email_queue q JOIN email_mailboxes m ON m.id = q.mailbox_id"
            " WHERE q.pool_id = $1 GROUP BY 1 ORDER BY 1",
            pool_id,
        )
    assert [tuple(row) for row in rows] == [("a@example.com", 2), ("b@example.com", 2)]
    entry = await entrance.last()
    assert b"From: app@example.com\r\n" in entry["content"], "From is as the app wrote it"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE email_mailboxes SET spam_rate = 0.05 WHERE email_address = 'a@example.com'",
        "UPDATE email_mailboxes SET status = 'paused' WHERE email_address = 'a@example.com'",
        "UPDATE email_mailboxes SET status = 'suspended' WHERE email_address = 'a@example.com'",
        "UPDATE email_mailboxes SET deleted_at = relayd_now() WHERE email_address = 'a@example.com'",
        "UPDATE budgets SET units_used = unit_limit, turns_at = relayd_now() + interval '1 day'"
        " WHERE owner_id = (SELECT id FROM email_mailboxes WHERE email_address = 'a@example.com')",
        "UPDATE mailbox_lanes SET blocked_until = 'infinity'"
        " WHERE mailbox_id = (SELECT id FROM email_mailboxes WHERE email_address = 'a@example.com')",
    ],
)
async def test_who_cannot_send_now_or_harms_is_passed_over(entrance: Entrance, change: str) -> None:
    pool_id = await entrance.make_pool("news", "a@example.com", "b@example.com", limit=10)
    # Without the change it would be a's turn.
    await entrance.execute(
        "UPDATE budgets SET units_used = 5, turns_at = relayd_now() + interval '1 day'"
        " WHERE owner_id = (SELECT id FROM email_mailboxes WHERE email_address = 'b@example.com')"
    )
    await entrance.execute(change)
    await entrance.accept(identity=replace(entrance.acme, pool_id=pool_id))
    assert (await entrance.last())["email_address"] == "b@example.com"


async def test_bulk_mail_of_a_pool_sees_the_room_that_is_left_to_bulk(entrance: Entrance) -> None:
    await entrance.make_pool("news", "a@example.com", "b@example.com", limit=10)
    await entrance.execute(
        "UPDATE budgets SET bulk_limit = 5, units_used = 5, turns_at = relayd_now() + interval '1 day'"
        " WHERE owner_id = (SELECT id FROM email_mailboxes WHERE email_address = 'a@example.com')"
    )
    await entrance.execute(
        "UPDATE budgets SET units_used = 8, turns_at = relayd_now() + interval '1 day'"
        " WHERE owner_id = (SELECT id FROM email_mailboxes WHERE email_address = 'b@example.com')"
    )
    await entrance.accept("X-Relayd-Pool: NEWS", "X-Relayd-Class: bulk")
    entry = await entrance.last()
    assert (entry["email_address"], entry["class"]) == ("b@example.com", "bulk")
    await entrance.accept("X-Relayd-Pool: news")
    entry = await entrance.last()
    assert (entry["email_address"], entry["class"]) == ("a@example.com", "mail")


async def test_a_domain_catches_what_is_no_mailbox_of_its_own(entrance: Entrance) -> None:
    pool_id = await entrance.make_pool("rest", "b@example.com")
    await entrance.execute(
        "UPDATE email_domains SET default_pool_id = $1, default_mailbox_id = $2", pool_id, entrance.sender.mailbox_id
    )
    await entrance.accept(author="anybody@example.com")
    entry = await entrance.last()
    assert (entry["email_address"], entry["pool_id"]) == ("b@example.com", pool_id)
    await entrance.accept(author="app@example.com")
    entry = await entrance.last()
    assert (entry["email_address"], entry["pool_id"]) == ("app@example.com", None)


async def test_a_pool_makes_nobody_somebody_else(entrance: Entrance) -> None:
    pool_id = await entrance.make_pool("news", "a@example.com", "b@example.com")
    await entrance.make_pool("theirs", "boss@rival.example", client="rival")
    by_pool = replace(entrance.acme, pool_id=pool_id)
    assert (await entrance.accept(identity=by_pool, author="boss@rival.example")).startswith("550 5.7.1 From <boss@")
    bound = replace(by_pool, senders=("app@example.com", "b@example.com"))
    assert (await entrance.accept(identity=bound, author="a@example.com")).startswith("550 5.7.1 From <a@example.com>")
    for _ in range(2):
        assert (await entrance.accept(identity=bound)).startswith("250 ")
        assert (await entrance.last())["email_address"] == "b@example.com", "the credential may not use a@"
    lonely = replace(by_pool, senders=("app@example.com",))
    assert (await entrance.accept(identity=lonely)).startswith("550 5.7.1 Pool news has no mailbox")
    # A member that somehow is another client's sends nothing.
    boss = "SELECT id FROM email_mailboxes WHERE email_address = 'boss@rival.example'"
    await entrance.execute(
        f"UPDATE mailbox_pool_members SET mailbox_id = ({boss}) WHERE pool_id = $1 AND mailbox_id <>"
        " (SELECT id FROM email_mailboxes WHERE email_address = 'b@example.com')",
        pool_id,
    )
    entrance.look_again()
    for _ in range(2):
        await entrance.accept(identity=by_pool)
        assert (await entrance.last())["email_address"] == "b@example.com"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE email_mailboxes SET status = 'suspended' WHERE email_address = 'app@example.com'", "is suspended"),
        ("UPDATE email_domains SET status = 'suspended' WHERE domain = 'example.com'", "is suspended"),
        ("UPDATE mailbox_pools SET deleted_at = relayd_now()", "has been removed"),
    ],
)
async def test_a_pool_does_not_send_for_who_is_suspended(entrance: Entrance, change: str, why: str) -> None:
    pool_id = await entrance.make_pool("news", "b@example.org")
    await entrance.execute(change)
    reply = await entrance.accept(identity=replace(entrance.acme, pool_id=pool_id))
    assert reply.startswith("550 5.7.1") and why in reply


@pytest.mark.parametrize(
    ("reverse_path", "forward_paths", "subject", "needs", "clause"),
    [
        ("b@example.com", ["jörg@b.test"], "Hi", True, None),
        ("b@example.com", ["jo@bücher.example"], "Hi", False, b"for <jo@xn--bcher-kva.example>"),
        ("b@example.com", ["jörg@bücher.example"], "Hi", True, None),
        ("bö@example.com", ["jo@b.test"], "Hi", True, b"for <jo@b.test>"),
        ("b@example.com", ["jo@bücher.example"], "Grüße", True, b"for <jo@xn--bcher-kva.example>"),
        ("b@example.com", ["jo@b.test", "jo@bücher.example"], "Hi", False, None),
        ("b@example.com", ["jo@b.test"], "Hi", False, b"for <jo@b.test>"),
    ],
)
async def test_what_relayd_writes_does_not_make_a_message_need_smtputf8(
    entrance: Entrance, reverse_path: str, forward_paths: list[str], subject: str, needs: bool, clause: bytes | None
) -> None:
    paths = tuple(Address.parse(each) for each in forward_paths)
    envelope = Envelope(Address.parse(reverse_path), paths, smtputf8=True, body_8bitmime=True)
    content = f"From: app@example.com\r\nSubject: {subject}\r\n\r\nGrüße\r\n".encode()
    submission = Submission(entrance.acme, envelope, content, "app", "192.0.2.1", "UTF8SMTPA", None)
    assert (await entrance.door.accept(submission)).code == 250
    await entrance.door.drain()
    async with entrance.db.connection() as connection:
        row = await connection.fetchrow("SELECT m.smtputf8, b.content FROM messages m, message_bodies b")
    assert row is not None and row["smtputf8"] == needs
    received = row["content"][row["content"].index(b"Received:") : row["content"].index(b"From:")]
    assert received.isascii()
    assert clause in received if clause else b"for <" not in received


def test_a_recipient_named_by_both_forms_of_its_domain_is_one() -> None:
    named = ("jo@bücher.example", "jo@xn--bcher-kva.example", "JO@bücher.example", "jo@b.test")
    envelope = Envelope(None, tuple(Address.parse(each) for each in named), smtputf8=True)
    assert [str(entry.recipient) for entry in entries_of(envelope)] == [named[0], named[2], named[3]]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("Subject: a", "Subject: b"), "message has 2 Subject fields"),
        (("To: a@example.net", "X-A: 1", "to: b@example.net"), "message has 2 To fields"),
        (("X-A: 1", "Subject: a\x0bb"), "header line 3 holds the control character 0x0B"),
        (("Subject: a\x0c",), "header line 2 holds the control character 0x0C"),
        (("References:", *(f" {'x' * 900}" for _ in range(73))), "References has 65,"),
    ],
)
async def test_a_header_that_receivers_refuse_is_refused(
    entrance: Entrance, lines: tuple[str, ...], reason: str
) -> None:
    assert (await entrance.accept(*lines)).startswith(f"550 5.6.0 Message refused: {reason}")
    (event,) = entrance.events
    assert isinstance(event, Rejected) and event.reason == "malformed"


async def test_a_client_may_have_its_recipient_fields_joined(entrance: Entrance) -> None:
    lines = ("To: a@example.net", "Cc: c@example.net", "To: b@example.net")
    await entrance.execute("UPDATE clients SET repeated_recipients = 'join'")
    async with entrance.db.connection() as connection:
        client = await directory.find_client(connection, "acme")
    assert client is not None
    assert (await entrance.accept(*lines, identity=Identity(client))).startswith("250")
    content = (await entrance.last())["content"]
    assert b"\r\nTo: a@example.net,\r\n b@example.net\r\nCc: c@example.net\r\n" in content


@pytest.mark.parametrize("value", ["", "   ", "<>", "< >", "(none)", "(none) <>", "<a@b>", "<a@b> (c)", "a@b", "1"])
async def test_the_id_that_is_kept_is_the_one_that_the_message_carries(
    entrance: Entrance, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await entrance.accept(f"Message-ID: {value}")).startswith("250")
    entry = await entrance.last()
    async with entrance.db.connection() as connection:
        kept = await connection.fetchval("SELECT message_id_header FROM messages WHERE id = $1", entry["message_id"])
    found = scan(entry["content"]).all(b"Message-ID")
    assert len(found) == 1 and kept.encode() in found[0].value and kept.strip(" <>()")
    assert ("is kept as written" in caplog.text) == (value in ("a@b", "1"))


async def test_long_lines_are_made_shorter_before_the_message_is_stored(entrance: Entrance) -> None:
    references = "References:" + " <0123456789@example.com>" * 100
    assert (await entrance.accept(references, body="word " * 300)).startswith("250")
    content = (await entrance.last())["content"]
    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    assert b"\r\nContent-Transfer-Encoding: quoted-printable\r\n" in content
    message = email.message_from_bytes(content)
    assert message.get_payload(decode=True) == b"word " * 300 + b"\r\n"
    assert len(message["References"].split()) == 100


@pytest.mark.parametrize(
    ("lines", "body", "reason"),
    [
        (("X-A: " + "x" * 1200,), "Hi", "header line 2 (X-A) has 1,201 octets without white space"),
        (("Content-Type: multipart/signed; boundary=b",), f"--b\r\n\r\n{'x' * 999}", "the part at line 6"),
    ],
)
async def test_long_lines_that_cannot_be_made_shorter_are_refused(
    entrance: Entrance, lines: tuple[str, ...], body: str, reason: str
) -> None:
    assert (await entrance.accept(*lines, body=body)).startswith(f"550 5.6.0 Message refused: {reason}")


async def test_a_credential_may_have_long_lines_refused(entrance: Entrance) -> None:
    await entrance.execute(
        "INSERT INTO smtp_credentials (client_id, login, salt, iterations, stored_key, server_key, long_lines)"
        " VALUES ($1, 'app', '\\x00', 4096, $2, $2, 'refuse')",
        entrance.acme.client.id,
        bytes(32),
    )
    async with entrance.db.connection() as connection:
        login = await directory.find_login(connection, "app")
    assert login and login.refuses_long_lines
    strict = replace(entrance.acme, refuses_long_lines=True)
    reply = await entrance.accept(body="x" * 999, identity=strict)
    assert reply.startswith("550 5.6.0 Message refused: line 3 has 999 octets; 998 are allowed")
    assert (await entrance.accept(body="x" * 998, identity=strict)).startswith("250")
    assert (await entrance.accept(body="x" * 999)).startswith("250")


@pytest.mark.parametrize("by_pool", [False, True])
async def test_a_mailbox_may_have_eight_bit_bodies_converted(entrance: Entrance, by_pool: bool) -> None:
    lines = ("Content-Type: text/plain; charset=utf-8",)
    if by_pool:
        await entrance.make_pool("news", "app@example.com")
        lines += ("X-Relayd-Pool: news",)
    assert (await entrance.accept(*lines, body="grüße")).startswith("250")
    assert "grüße".encode() in (await entrance.last())["content"]
    await entrance.execute("UPDATE email_mailboxes SET eight_bit = 'convert'")
    entrance.look_again()
    assert (await entrance.accept(*lines, body="grüße")).startswith("250")
    entry = await entrance.last()
    assert entry["content"].isascii()
    assert email.message_from_bytes(entry["content"]).get_payload(decode=True) == "grüße\r\n".encode()
    async with entrance.db.connection() as connection:
        flags = await connection.fetch("SELECT body_8bitmime FROM messages ORDER BY id")
    assert [row["body_8bitmime"] for row in flags] == [True, False]


FOREIGN_FIELDS = [
    ("Sender: ceo@victim.example",),
    ("Sender: Boss <ceo@other.example>",),
    ("Resent-From: a@victim.example", "Resent-Date: Tue, 1 Dec 2026 10:00:00 +0000"),
    ("Resent-From: app@example.com", "resent-sender: a@victim.example"),
    ("Resent-From: app@example.com, a@victim.example",),
    ("Sender: no address",),
    ("Sender: a@victim.example (app@example.com)",),
]


@pytest.mark.parametrize("lines", FOREIGN_FIELDS)
async def test_sender_fields_of_others_refuse_the_message(entrance: Entrance, lines: tuple[str, ...]) -> None:
    async with entrance.db.transaction() as connection:
        await make_sender(connection, "boss@other.example", client="rival")
    reply = await entrance.accept(*lines)
    assert reply.startswith("550 5.7.1 ") and any(line.partition(":")[0] in reply for line in lines), reply
    (event,) = entrance.events
    assert isinstance(event, Rejected) and event.reason == "sender_not_allowed"


@pytest.mark.parametrize("lines", FOREIGN_FIELDS)
async def test_a_client_may_have_such_fields_removed(entrance: Entrance, lines: tuple[str, ...]) -> None:
    await entrance.execute("UPDATE clients SET foreign_senders = 'remove'")
    async with entrance.db.connection() as connection:
        client = await directory.find_client(connection, "acme")
    assert client is not None
    assert (await entrance.accept("To: a@victim.example", *lines, identity=Identity(client))).startswith("250")
    content = (await entrance.last())["content"].lower()
    assert b"\r\nsender:" not in content and b"\r\nresent-" not in content and b"\r\nto: a@victim.example" in content


@pytest.mark.parametrize(
    "lines",
    [
        ("Sender: app@example.com",),
        ("Sender: list-bounces@EXAMPLE.com", "Resent-From: x@example.com"),
        ("Sender:",),
        ("Resent-To: you@victim.example", "Resent-From: app@example.com"),
        ("Reply-To: a@victim.example", "X-Sender: a@victim.example"),
    ],
)
async def test_own_sender_fields_stay(entrance: Entrance, lines: tuple[str, ...]) -> None:
    assert (await entrance.accept(*lines)).startswith("250")
    content = (await entrance.last())["content"].decode()
    assert all(f"\r\n{line}\r\n" in content for line in lines)


async def test_a_login_bound_to_senders_may_name_no_other(entrance: Entrance) -> None:
    bound = replace(entrance.acme, senders=("app@example.com",))
    assert (await entrance.accept("Sender: ceo@example.com", identity=bound)).startswith("550 5.7.1 Sender <ceo@")
    assert (await entrance.accept("Sender: app@example.com", identity=bound)).startswith("250")


@pytest.mark.parametrize(
    ("value", "stays"),
    [
        ("relay.test; dkim=pass header.d=victim.example", False),
        ("RELAY.Test;\r\n spf=pass", False),
        ("(a (nested) comment) relay.test (x) 1; none", False),
        ('"relay.test"; none', False),
        ('"re\\lay.test"; none', False),
        ("relay.test. ; none", False),
        ("relay.test", False),
        ("mx.relay.test; dkim=pass", True),
        ("other.example; x=relay.test", True),
        ("(relay.test) other.example; none", True),
        ("relay.test.example; none", True),
    ],
)
async def test_results_that_claim_to_be_ours_go_and_others_stay(entrance: Entrance, value: str, stays: bool) -> None:
    assert (await entrance.accept(f"authentication-Results: {value}")).startswith("250")
    content = (await entrance.last())["content"]
    assert (b"authentication-results: " in content.lower()) == stays
    signatures = [each.value for each in scan(content).all(b"DKIM-Signature")]
    assert not stays or all(b"victim" not in each for each in signatures)
