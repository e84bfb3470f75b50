"""Inboxes that are read over real TLS: what is kept of them, how far they are read, what a failure does."""

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from relayd.daemon.inboxes import Inboxes
from relayd.inbox.reading import Fresh, Position
from relayd.rules.report_events import InboxFailed, ReportEvent
from relayd.seal import Seal, new_key, parse_key
from relayd.store import inbound_reports, inboxes
from relayd.store.inbound_reports import ReportRecord
from relayd.store.inboxes import InboxRecord
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upkeep.pull_reports import TRIES, PullTerms, pull_reports
from relayd.upstream.tokens import TokenSource
from tests.builders import Sender, make_sender, put
from tests.peers.imap_server import ImapServer, imap_server

CORPUS = Path(__file__).parents[1] / "reports" / "corpus"
BOUNCE = (CORPUS / "postfix-unknown.eml").read_bytes()
LETTER = b"From: jane@example.net\nTo: noreply@example.com\nSubject: Private\n\nNobody else's business.\n"


@dataclass
class House:
    """A mailbox and the server on which its inbox lies."""

    db: Database
    sender: Sender
    server: ImapServer
    seal: Seal
    ca_file: str
    events: list[ReportEvent] = field(default_factory=list)

    async def configure(
        self, password: str = "sesame words", host: str = "localhost", ca_file: str = "", folder: str = "INBOX"
    ) -> None:
        async with self.db.connection() as connection:
            await inboxes.save(
                connection,
                client_id=self.sender.client_id,
                mailbox_id=self.sender.mailbox_id,
                email_address=self.sender.address,
                kind="imap",
                imap_host=host,
                imap_port=self.server.port,
                imap_tls="implicit",
                imap_ca_file=ca_file or self.ca_file,
                imap_username="noreply@example.com",
                imap_password_sealed=self.seal.seal(password.encode(), row=inboxes.seal_row(self.sender.mailbox_id)),
                imap_folder=folder,
            )

    def inboxes(self) -> Inboxes:
        def no_tokens(record: UpstreamRecord) -> TokenSource:
            raise AssertionError("IMAP needs none")

        return Inboxes(self.db, self.seal, no_tokens)

    async def pull(self, terms: PullTerms | None = None) -> None:
        async with self.db.connection() as connection:
            await connection.execute("UPDATE mailbox_inboxes SET next_pull_at = '-infinity'")
        await pull_reports(self.db, self.inboxes().open, terms or PullTerms(at_once=1), emit=self.events.append)

    async def kept(self) -> list[ReportRecord]:
        async with self.db.connection() as connection:
            return list(reversed(await inbound_reports.found(connection)))

    async def record(self) -> InboxRecord:
        async with self.db.connection() as connection:
            found = await inboxes.find(connection, self.sender.mailbox_id)
        assert found is not None
        return found


@pytest.fixture
async def house(db: Database, tmp_path: Path) -> AsyncIterator[House]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with db.connection() as connection:
        sender = await make_sender(connection)
    async with imap_server(context) as server:
        made = House(db, sender, server, Seal(parse_key(new_key().encode())), str(tmp_path / "ca.pem"))
        await made.configure()
        yield made


async def test_what_lies_there_before_the_first_look_is_left_alone(house: House) -> None:
    house.server.add(BOUNCE)
    await house.pull()
    assert await house.kept() == [] and house.server.fetched("BODY") == []
    house.server.add(BOUNCE)
    await house.pull()
    (report,) = await house.kept()
    assert (report.source, report.mailbox) == ("imap", "noreply@example.com")
    assert (await house.record()).last_uid == 2


async def test_of_ordinary_mail_nothing_but_the_header_is_read_and_nothing_kept(house: House) -> None:
    await house.pull()
    house.server.add(LETTER)
    house.server.add(LETTER.replace(b"Subject", b"In-Reply-To: <somebody@example.org>\nSubject"))
    await house.pull()
    assert await house.kept() == []
    assert house.server.fetched("[HEADER]") == [1, 2] and house.server.fetched("BODY.PEEK[]") == []


async def test_of_an_answer_to_what_was_sent_the_header_is_kept(house: House) -> None:
    async with house.db.connection() as connection:
        message = await put(connection, house.sender)
    await house.pull()
    answered = f"In-Reply-To: {message.message_id_header}\nSubject".encode()
    house.server.add(LETTER.replace(b"Subject", answered))
    await house.pull()
    (report,) = await house.kept()
    async with house.db.connection() as connection:
        content = await inbound_reports.content_of(connection, report.id)
    assert content is not None and b"In-Reply-To" in content and b"business" not in content
    assert house.server.fetched("BODY.PEEK[]") == []


async def test_nothing_is_read_twice_and_nothing_in_the_inbox_changes(house: House) -> None:
    await house.pull()
    for _ in range(5):
        house.server.add(BOUNCE)
    # Two a look, and a look over after each full one.
    for _ in range(4):
        await house.pull(PullTerms(at_once=2, most_messages=2))
    assert len(await house.kept()) == 5
    assert house.server.fetched("BODY.PEEK[]") == [1, 2, 3, 4, 5]
    assert {line.split()[0] for line in house.server.asked} == {"CAPABILITY", "LOGIN", "EXAMINE", "UID", "LOGOUT"}


async def test_new_numbers_make_the_last_days_be_looked_at_again(house: House) -> None:
    await house.pull()
    house.server.uid_validity = 8
    house.server.add(BOUNCE)
    await house.pull()
    assert len(await house.kept()) == 1
    assert any(line.startswith("UID SEARCH SINCE") for line in house.server.asked)
    await house.pull()
    assert len(await house.kept()) == 1 and (await house.record()).uid_validity == 8


async def test_a_message_that_was_stored_before_a_crash_is_kept_once(house: House) -> None:
    await house.pull()
    house.server.add(BOUNCE)
    await house.pull()
    async with house.db.connection() as connection:
        await connection.execute("UPDATE mailbox_inboxes SET last_uid = 0")
    await house.pull()
    assert len(await house.kept()) == 1


async def test_another_folder_may_number_its_messages_alike(house: House) -> None:
    await house.pull()
    house.server.add(BOUNCE)
    await house.pull()
    await house.configure(folder="Bounces")
    house.server.messages.clear()
    await house.pull()
    house.server.messages[1] = BOUNCE
    async with house.db.connection() as connection:
        await connection.execute("UPDATE mailbox_inboxes SET last_uid = 0")
    await house.pull()
    assert len(await house.kept()) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"password": "wrong words"}, "refuses the login"),
        ({"host": "127.0.0.1"}, "certificate is not to be trusted"),
        ({"ca_file": "/nowhere/ca.pem"}, "cannot be used"),
    ],
)
async def test_a_failure_is_named_and_backs_off(house: House, change: dict[str, str], told: str) -> None:
    await house.configure(**change)
    await house.pull()
    await house.pull()
    record = await house.record()
    assert record.failures == 2 and told in str(record.last_error) and "wrong words" not in str(record.last_error)
    assert [event.failures for event in house.events if isinstance(event, InboxFailed)] == [1, 2]
    async with house.db.connection() as connection:
        assert await connection.fetchval("SELECT next_pull_at > relayd_now() + interval '80 s' FROM mailbox_inboxes")
    await house.configure()
    await house.pull()
    assert ((await house.record()).failures, (await house.record()).last_error) == (0, None)


@pytest.mark.parametrize("refusal", [b"NO", b"BAD"])
@pytest.mark.parametrize("capabilities", ["IMAP4rev1", "IMAP4rev1 AUTH=PLAIN"])
@pytest.mark.parametrize("canary", ['ca"na\\ry of the mine', "it's-s3cret!"])
async def test_a_server_that_repeats_the_login_brings_no_secret_into_log_and_listing(
    house: House, capabilities: str, refusal: bytes, canary: str, caplog: pytest.LogCaptureFixture
) -> None:
    house.server.echoes, house.server.capabilities, house.server.login_refusal = True, capabilities, refusal
    await house.configure(password=canary)
    await house.pull()
    shown = f"{await house.record()} {house.events} {caplog.text}"
    assert "refuses the login of noreply@example.com" in shown and "***" in shown
    secret = b64encode(f"\0noreply@example.com\0{canary}".encode()).decode()
    parts = ('ca"na', "na\\\\ry", "of the mine", "it's", "s-s3cret", secret, secret[:20])
    assert not [each for each in parts if each in shown]


async def test_what_a_server_says_is_shown_short_and_printable(house: House) -> None:
    await house.pull()
    house.server.uid_validity = 8
    house.server.refusing = {1}
    house.server.refusal = b"\x1b[31m" + b"x" * 5000
    house.server.add(LETTER)
    await house.pull()
    told = str((await house.record()).last_error)
    assert told.startswith("message 8/1/") and "cannot be read: the IMAP server refuses:" in told and told.isprintable()
    assert len(told) < 500


async def test_a_message_that_cannot_be_had_is_passed_in_the_end(house: House) -> None:
    await house.pull()
    for content in (BOUNCE, BOUNCE, LETTER, BOUNCE):
        house.server.add(content)
    house.server.refusing = {2, 3}
    for number in range(1, TRIES):
        await house.pull()
        # What came before it is done with at once.
        assert len(await house.kept()) == 1 and (await house.record()).failures == number
    house.server.refusing = {3}
    await house.pull()
    assert len(await house.kept()) == 2 and (await house.record()).last_uid == 2  # the failures were another one's
    for _ in range(TRIES):
        await house.pull()
    assert (await house.record()).failures == 0
    *_, passed, last = await house.kept()
    assert (passed.status, passed.size_octets) == ("ignored", 1)  # not even its header could be had
    assert re.match("message 7/3/[0-9a-f]+ cannot be read: the IMAP server refuses: internal error", str(passed.error))
    assert last.status == "new" and (await house.record()).last_uid == 4


class Breaking:
    """An inbox with one message that breaks what reads it, and one that does not."""

    def __init__(self, record: InboxRecord) -> None:
        keys = [] if record.last_uid == 2 else [1, 2]
        self._fresh = [Fresh(f"7/{uid}", b"From: MAILER-DAEMON@example.net\n", Position(7, uid)) for uid in keys]

    async def fresh(self, most: int) -> tuple[list[Fresh], Position | None]:
        return self._fresh, Position(7, 2)

    async def whole(self, message: Fresh, most_octets: int) -> bytes:
        if message.key == "7/1":
            raise KeyError("words of a stranger")
        return BOUNCE

    async def close(self) -> None:
        pass


async def test_a_message_that_breaks_the_reader_is_kept_unread_and_passed(house: House) -> None:
    async def opened(record: InboxRecord) -> Breaking:
        return Breaking(record)

    await pull_reports(house.db, opened, PullTerms(at_once=1), emit=house.events.append)
    broken, whole = await house.kept()
    assert (broken.status, broken.error) == ("ignored", "it broke the reader: KeyError; relayd's log has more")
    assert (whole.status, house.events, (await house.record()).last_uid) == ("new", [], 2)


async def test_what_no_message_is_to_blame_for_fails_the_look_and_no_other_one(house: House) -> None:
    async def opened(record: InboxRecord) -> Breaking:
        raise KeyError("words of a stranger")

    await pull_reports(house.db, opened, PullTerms(at_once=1), emit=house.events.append)
    assert (await house.record()).last_error == "it broke the reader: KeyError; relayd's log has more"


async def test_a_server_that_says_nothing_is_given_up(house: House) -> None:
    house.server.is_silent = True
    await asyncio.wait_for(house.pull(PullTerms(at_once=1, look_seconds=0.2)), 30)
    assert "no end within" in str((await house.record()).last_error)
    house.server.is_silent = False


async def test_two_that_pull_at_once_take_an_inbox_in_turn(house: House) -> None:
    await house.pull()
    house.server.add(BOUNCE)
    async with house.db.connection() as connection:
        await connection.execute("UPDATE mailbox_inboxes SET next_pull_at = '-infinity'")
    await pull_reports(house.db, house.inboxes().open, PullTerms(at_once=4), emit=house.events.append)
    assert house.server.fetched("BODY.PEEK[]") == [1]
