"""Messages in an inbox that cannot be had: which are to blame, when they are passed, and what is read behind them."""

import asyncio

import pytest

from relayd.inbox.imap import ImapInbox, ImapSettings
from relayd.inbox.reading import Inbox, InboxError, Position
from relayd.store.inboxes import InboxRecord
from relayd.upkeep.pull_reports import TRIES, Open, PullTerms, pull_reports
from tests.integration.test_pull_reports import BOUNCE, LETTER, House, house

__all__ = ["house"]


async def outage(house: House, looks: int) -> None:
    """So many at which nothing of the inbox can be read."""
    known, house.server.password = house.server.password, "another"
    for _ in range(looks):
        await house.pull()
    house.server.password = known


def _numbers(key: str | None) -> str:
    """The folder's and the message's, without the folder's name."""
    return str(key).rpartition("/")[0]


async def test_looks_that_failed_for_another_reason_are_none_at_the_message(house: House) -> None:
    await house.pull()
    await outage(house, TRIES + 1)
    for content in (BOUNCE, LETTER):
        house.server.add(content)
    house.server.refusing = {1}
    for looks in range(1, TRIES):
        await house.pull()
        record = await house.record()
        # How long the next one waits goes by these: of the rest the inbox can be read.
        assert (_numbers(record.stuck_key), record.stuck_looks, record.failures) == ("7/1", looks, looks)
        await outage(house, 1)
    assert await house.kept() == []
    await house.pull()
    (passed,) = await house.kept()
    record = await house.record()
    assert str(passed.error).startswith("message 7/1/")
    assert (record.last_uid, record.failures, record.stuck_key, record.stuck_looks) == (2, 0, None, 0)


async def test_what_can_be_read_behind_one_that_was_passed_is_read_at_once(house: House) -> None:
    await house.pull()
    for content in (LETTER, LETTER, BOUNCE):
        house.server.add(content)
    house.server.refusing = {1}
    for _ in range(TRIES):
        await house.pull()
    assert [each.status for each in await house.kept()] == ["ignored", "new"]


@pytest.mark.parametrize("what", ["refusing", "withholding"])
async def test_where_nothing_can_be_read_nothing_is_passed(house: House, what: str) -> None:
    await house.pull()
    for _ in range(3):
        house.server.add(BOUNCE)
    setattr(house.server, what, {1, 2, 3})
    for _ in range(TRIES + 2):
        await house.pull()
    record = await house.record()
    assert (await house.kept(), record.last_uid, record.failures) == ([], 0, TRIES + 2)
    # As soon as one of them can be, the others are to blame.
    setattr(house.server, what, {1, 2})
    for _ in range(2 * TRIES):
        await house.pull()
    assert [each.status for each in await house.kept()] == ["ignored", "ignored", "new"]


async def test_a_report_whose_text_cannot_be_had_is_passed_with_its_header(house: House) -> None:
    await house.pull()
    for content in (BOUNCE, LETTER):
        house.server.add(content)
    house.server.withholding = {1}
    for _ in range(TRIES):
        await house.pull()
    (passed,) = await house.kept()
    assert passed.status == "ignored" and passed.size_octets > 100 and (await house.record()).last_uid == 2


class Opener:
    """Opens the inbox as relayd does, with another patience."""

    def __init__(self, house: House, header_seconds: float = 30.0) -> None:
        self.settings = ImapSettings(
            "localhost",
            house.server.port,
            "implicit",
            house.server.username,
            house.server.password,
            ca_file=house.ca_file,
            header_seconds=header_seconds,
        )

    async def __call__(self, record: InboxRecord) -> Inbox:
        position = Position(record.uid_validity, record.last_uid, record.read_to)
        return await ImapInbox.open(self.settings, position)


async def test_a_header_that_never_ends_is_told_from_a_look_that_does_not(house: House) -> None:
    await house.pull()
    for content in (LETTER, LETTER):
        house.server.add(content)
    house.server.stalling = {1}
    await pull_once(house, Opener(house, header_seconds=1.0), PullTerms(at_once=1))
    record = await house.record()
    assert "cannot be read: the IMAP server has not given its header" in str(record.last_error)
    # The other was asked for over a connection of its own.
    assert (_numbers(record.stuck_key), record.stuck_looks, house.server.fetched("[HEADER]")) == ("7/1", 1, [1, 2])


async def pull_once(house: House, opened: Open, terms: PullTerms) -> None:
    async with house.db.connection() as connection:
        await connection.execute("UPDATE mailbox_inboxes SET next_pull_at = '-infinity'")
    await pull_reports(house.db, opened, terms, emit=house.events.append)


async def test_behind_a_text_that_never_ends_the_look_goes_on_over_another_connection(house: House) -> None:
    await house.pull()
    for _ in range(2):
        house.server.add(BOUNCE)
    opened = Opener(house)
    inbox = await opened(await house.record())
    found, _ = await inbox.fresh(2)
    house.server.stalling = {1}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await inbox.whole(found[0], 1000)
    assert await inbox.whole(found[1], 10_000) == BOUNCE.replace(b"\n", b"\r\n")
    assert [line.split()[0] for line in house.server.asked].count("LOGIN") == 3
    await inbox.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_look_under_way_when_the_settings_change_changes_nothing(house: House, fails: bool) -> None:
    await house.pull()
    house.server.add(BOUNCE)
    house.server.refusing = {1} if fails else set()
    is_changed = False

    async def opened(record: InboxRecord) -> Inbox:
        nonlocal is_changed
        if is_changed:
            raise InboxError("only the first look matters")
        is_changed = True
        inbox = await house.inboxes().open(record)
        async with house.db.connection() as connection:
            await connection.execute("UPDATE mailbox_inboxes SET imap_folder = 'Other'")
        await house.configure()
        return inbox

    await pull_once(house, opened, PullTerms(at_once=1))
    record = await house.record()
    assert (await house.kept(), record.last_uid, record.uid_validity, record.stuck_key) == ([], None, None, None)
    # It was due at once, and this failure is its own.
    assert (record.failures, record.last_error) == (1, "only the first look matters")
    assert len(house.events) == 1
