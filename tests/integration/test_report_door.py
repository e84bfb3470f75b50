"""Who may hand in a report, to whom, and that nothing is relayed by it."""

from uuid import UUID

import pytest

from relayd.intake.reports import ReportDoor
from relayd.intake.return_paths import PURPOSE, ReturnPaths
from relayd.mail.return_path import made_for
from relayd.seal import Seal, new_key, parse_key
from relayd.store import inbound_reports
from relayd.store.ids import new_id
from relayd.store.inbound_reports import ReportRecord
from relayd.store.pool import Database
from relayd.submission.limits import SessionLimits
from tests.builders import Sender, make_sender
from tests.peers.raw_smtp import RawClient, serving

SEAL = Seal(parse_key(new_key().encode()))
KEY = SEAL.derived(PURPOSE)[0]
BOUNCES = "bounces.example.com"
BODY = "Subject: Undelivered\r\n\r\nSorry.\r\n."


@pytest.fixture
async def sender(db: Database) -> Sender:
    async with db.connection() as connection:
        made = await make_sender(connection)
        await connection.execute("UPDATE email_domains SET bounce_domain = $1", BOUNCES)
    return made


async def stored(db: Database) -> list[ReportRecord]:
    async with db.connection() as connection:
        return list(await inbound_reports.found(connection))


def door(db: Database, *, max_octets: int = 100_000, max_waiting: int = 100) -> ReportDoor:
    return ReportDoor(db, ReturnPaths(db, SEAL), max_octets=max_octets, max_waiting=max_waiting)


async def hand_in(client: RawClient, *recipients: str, sender: str = "") -> list[int]:
    lines = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{each}>" for each in recipients)]
    return await client.codes("EHLO mx.example.net", *lines)


async def test_a_stranger_may_hand_in_a_report_to_a_return_path(db: Database, sender: Sender) -> None:
    queue_id = new_id()
    async with serving(trusted=False, reports=door(db)) as server:
        client = await server.connect()
        assert await hand_in(client, str(made_for(queue_id, BOUNCES, KEY)).upper()) == [250, 250, 250]
        assert await client.codes("DATA", BODY) == [354, 250]
        assert server.door.submissions == []
    (report,) = await stored(db)
    assert (report.status, report.source, report.peer, report.reverse_path) == ("new", "smtp", "127.0.0.1", "")
    async with db.connection() as connection:
        assert await connection.fetchval("SELECT subject_id FROM inbound_reports") == queue_id
        assert await inbound_reports.content_of(connection, report.id) == b"Subject: Undelivered\r\n\r\nSorry.\r\n"


@pytest.mark.parametrize("address", ["fbl", "POSTMASTER", "abuse"])
async def test_the_roles_of_a_bounce_domain_take_reports(db: Database, sender: Sender, address: str) -> None:
    async with serving(trusted=False, reports=door(db)) as server:
        client = await server.connect()
        assert await hand_in(client, f"{address}@{BOUNCES}", sender="fbl@example.net") == [250, 250, 250]
        assert await client.codes("DATA", BODY) == [354, 250]
    assert len(await stored(db)) == 1


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        (f"someone@{BOUNCES}", "550 5.1.1"),
        (f"b+aaaa@{BOUNCES}", "550 5.1.1"),
        (str(made_for(UUID(int=1), BOUNCES, b"another key")), "550 5.1.1"),
        ("you@example.net", "550 5.7.1"),  # relaying is what a stranger may not
        ("noreply@example.com", "550 5.7.1"),
    ],
)
async def test_a_stranger_may_write_to_nobody_else(db: Database, sender: Sender, recipient: str, code: str) -> None:
    async with serving(trusted=False, reports=door(db)) as server:
        client = await server.connect()
        await hand_in(client, sender="fbl@example.net")
        assert (await client.ask(f"RCPT TO:<{recipient}>")).startswith(code)
        assert (await client.ask("DATA")).startswith("554 5.5.1")
        assert server.door.submissions == []


async def test_a_transaction_is_a_report_or_a_submission(db: Database, sender: Sender) -> None:
    report = str(made_for(new_id(), BOUNCES, KEY))
    async with serving(reports=door(db)) as server:
        client = await server.connect()
        assert await hand_in(client, report, "you@example.net", sender="a@example.com") == [250, 250, 250, 452]
        assert await client.codes("DATA", BODY, "RSET") == [354, 250, 250]
        assert await hand_in(client, "you@example.net", report, sender="a@example.com") == [250, 250, 250, 452]
        assert await client.codes("DATA", BODY) == [354, 250]
        (submission,) = server.door.submissions
        assert [str(each) for each in submission.envelope.forward_paths] == ["you@example.net"]
    assert len(await stored(db)) == 1


async def test_without_a_bounce_domain_strangers_are_refused_at_once(db: Database) -> None:
    async with serving(trusted=False, reports=door(db)) as server:
        client = await server.connect()
        assert await hand_in(client) == [250, 550]


async def test_of_a_long_report_the_beginning_is_kept(db: Database, sender: Sender) -> None:
    async with serving(trusted=False, reports=door(db, max_octets=100)) as server:
        client = await server.connect()
        await hand_in(client, f"fbl@{BOUNCES}")
        assert await client.codes("DATA", "Subject: x\r\n\r\n" + "twenty octets a line\r\n" * 200 + ".") == [354, 250]
    (report,) = await stored(db)
    async with db.connection() as connection:
        content = await inbound_reports.content_of(connection, report.id)
    assert content == b"Subject: x\r\n\r\n" + b"twenty octets a line\r\n" * 3


@pytest.mark.parametrize("name", ["Postmaster", "postmaster", "POSTMASTER"])
async def test_a_strangers_mail_to_postmaster_alone_is_taken_as_a_report(
    db: Database, sender: Sender, name: str
) -> None:
    async with serving(trusted=False, reports=door(db)) as server:
        client = await server.connect()
        assert await hand_in(client, name, sender="someone@example.net") == [250, 250, 250]
        assert await client.codes("DATA", BODY) == [354, 250]
        assert server.door.submissions == []
    async with db.connection() as connection:
        assert await connection.fetchval("SELECT forward_path FROM inbound_reports") == f"{name}@{BOUNCES}"


async def test_a_report_larger_than_any_message_is_refused(db: Database, sender: Sender) -> None:
    limits = SessionLimits(size_octets=2_000)
    async with serving(trusted=False, reports=door(db, max_octets=100), limits=limits) as server:
        client = await server.connect()
        await hand_in(client, f"fbl@{BOUNCES}")
        assert await client.ask("DATA") != ""
        assert (await client.ask("Subject: x\r\n\r\n" + "twenty octets a line\r\n" * 100 + ".")) == (
            "552 5.3.4 Message exceeds 2000 octets"
        )


async def test_one_report_too_many_is_put_off(db: Database, sender: Sender) -> None:
    async with serving(trusted=False, reports=door(db, max_waiting=1)) as server:
        client = await server.connect()
        for code in ("250", "452"):
            await hand_in(client, f"fbl@{BOUNCES}")
            assert await client.ask("DATA") != ""
            assert (await client.ask(BODY)).startswith(code)


async def test_an_address_is_one_in_every_spelling(db: Database, sender: Sender) -> None:
    spellings = [f"{name}@{BOUNCES}" for name in ("postmaster", "POSTMASTER", "PostMaster", '"postmaster"')]
    async with serving(trusted=False, reports=door(db)) as server:
        client = await server.connect()
        assert await hand_in(client, *spellings) == [250] * 6
        assert await client.codes("DATA", BODY) == [354, 250]
    assert len(await stored(db)) == 1


async def test_what_cannot_be_stored_is_not_answered_250(db: Database, sender: Sender) -> None:
    async with serving(trusted=False, reports=door(db)) as server:
        client = await server.connect()
        await hand_in(client, f"fbl@{BOUNCES}")
        assert await client.ask("DATA") != ""
        await db.close()
        assert await client.codes(BODY) == [451]


async def test_without_the_database_a_report_is_put_off(sender: Sender, db: Database) -> None:
    await db.close()
    async with serving(trusted=False, reports=door(db)) as server:
        client = await server.connect()
        assert await hand_in(client) == [250, 451]
