"""The Gmail API as a way into an inbox, against a local server that answers as it does."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from relayd.inbox.gmail import OVERLAP, GmailInbox
from relayd.inbox.reading import InboxError, Position, Unreadable
from relayd.store import inbound_reports, inboxes
from relayd.store.inbound_reports import ReportRecord
from relayd.store.inboxes import InboxRecord
from relayd.store.pool import Database
from relayd.upkeep.pull_reports import TRIES, PullTerms, pull_reports
from relayd.upstream.http import HttpClient
from relayd.upstream.tokens import TokenUnavailable
from tests.builders import make_sender

REPORT = {"From": "MAILER-DAEMON@example.net", "Subject": "failure notice"}
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@dataclass
class Gmail:
    """An account's messages: (id, time, header fields, raw). Newest first. `answers`: a status for some of them."""

    url: str = ""
    messages: list[tuple[str, datetime, dict[str, str], bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    status: int = 200
    page_messages: int = 2
    answers: dict[str, int] = field(default_factory=dict)
    stalling: str | None = None  # of this one nothing comes until the end
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def list(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        assert request.headers["Authorization"] == "Bearer good token"
        after = int(request.query["q"].removeprefix("after:"))
        found = sorted((each for each in self.messages if each[1].timestamp() > after), key=lambda m: m[1])[::-1]
        begin = int(request.query.get("pageToken", "0"))
        page: dict[str, Any] = {"messages": [{"id": each[0]} for each in found[begin : begin + self.page_messages]]}
        if begin + self.page_messages < len(found):
            page["nextPageToken"] = str(begin + self.page_messages)
        return web.json_response(page, status=self.status)

    async def get(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.match_info['id']} {request.query['format']}")
        each = next(message for message in self.messages if message[0] == request.match_info["id"])
        if each[0] == self.stalling:
            await self.is_over.wait()
        if each[0] in self.answers:
            return web.json_response({"error": {}}, status=self.answers[each[0]])
        if request.query["format"] == "raw":
            return web.json_response({"id": each[0], "raw": base64.urlsafe_b64encode(each[3]).decode().rstrip("=")})
        headers = [{"name": name, "value": value} for name, value in each[2].items()]
        moment = str(int(each[1].timestamp() * 1000))
        if request.query["format"] == "minimal":
            return web.json_response({"id": each[0], "internalDate": moment})
        return web.json_response({"id": each[0], "internalDate": moment, "payload": {"headers": headers}})


class Tokens:
    """A grant."""

    def __init__(self, token: str | None = "good token") -> None:
        self.value = token
        self.refusals: list[str] = []

    async def token(self, subject: str | None = None) -> str:
        if self.value is None:
            raise TokenUnavailable("no token just now")
        return self.value

    async def refused(self, token: str, subject: str | None = None) -> None:
        self.refusals.append(token)


@pytest.fixture
async def gmail() -> AsyncIterator[Gmail]:
    account = Gmail()
    app = web.Application()
    app.router.add_get("/gmail/v1/users/me/messages", account.list)
    app.router.add_get("/gmail/v1/users/me/messages/{id}", account.get)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    account.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield account
    account.is_over.set()
    await runner.cleanup()


def inbox(gmail: Gmail, read_to: datetime | None, tokens: Tokens | None = None) -> GmailInbox:
    client = HttpClient(max_connections=1)
    return GmailInbox(client, tokens or Tokens(), Position(read_to=read_to), now=NOW, api_url=gmail.url)


async def test_the_first_look_only_notes_the_time(gmail: Gmail) -> None:
    opened = inbox(gmail, None)
    assert await opened.fresh(10) == ([], Position(read_to=NOW)) and gmail.asked == []
    await opened.close()


async def test_new_messages_come_oldest_first_over_all_pages(gmail: Gmail) -> None:
    for number in range(5):
        when = NOW - timedelta(minutes=25 - number)
        gmail.messages.append((f"m{number}", when, {"Subject": f"s{number}"}, b"From: x\r\n\r\nwhole"))
    opened = inbox(gmail, NOW - timedelta(minutes=24))
    found, end = await opened.fresh(10)
    assert [each.key for each in found] == ["m1", "m2", "m3", "m4"]
    assert found[2].header == b"Subject: s3" and found[2].position == Position(read_to=NOW - timedelta(minutes=22))
    # What the API learns of late is found by the next look.
    assert end == Position(read_to=NOW - OVERLAP)
    assert await opened.whole(found[2], 100) == b"From: x\r\n\r\nwhole"
    assert [each for each in gmail.asked if each.endswith("raw")] == ["m3 raw"]
    await opened.close()


async def test_a_look_goes_on_where_the_last_call_ended(gmail: Gmail) -> None:
    gmail.messages = [(f"m{number}", NOW - timedelta(hours=1), {}, b"x") for number in range(5)]
    opened = inbox(gmail, NOW - timedelta(hours=2))
    calls = [await opened.fresh(2) for _ in range(3)]
    assert sorted(each.key for found, _ in calls for each in found) == ["m0", "m1", "m2", "m3", "m4"]
    assert [end for _, end in calls] == [None, None, Position(read_to=NOW - OVERLAP)]
    await opened.close()


@pytest.mark.parametrize("octets", [3_000_000, 300_000, 299_999, 1])
async def test_of_a_large_message_the_beginning_is_had(gmail: Gmail, octets: int) -> None:
    content = (b"From: MAILER-DAEMON@example.net\r\n\r\n" + b"\xfb\xff>?" * 750_000)[:octets]
    gmail.messages = [("large", NOW - timedelta(hours=1), {}, content)]
    opened = inbox(gmail, NOW - timedelta(hours=2))
    ((message,), _) = await opened.fresh(2)
    assert await opened.whole(message, 300_000) == content[:300_000]
    await opened.close()


async def test_one_that_cannot_be_had_is_told_from_the_others(gmail: Gmail) -> None:
    gmail.messages = [(f"m{number}", NOW - timedelta(minutes=60 - number), {}, b"x") for number in range(4)]
    gmail.answers = {"m0": 404, "m2": 500}
    opened = inbox(gmail, NOW - timedelta(hours=2))
    found, end = await opened.fresh(10)
    # The first was removed in the meantime; the third is in the way.
    assert [each.key for each in found] == ["m1"] and end is None
    with pytest.raises(Unreadable, match="answers 500 and gives no header of message m2") as raised:
        await opened.fresh(10)
    assert (raised.value.message.key, raised.value.message.position) == ("m2", found[0].position)
    assert [each.key for each in (await opened.fresh(10))[0]] == ["m3"]
    gmail.answers = {"m0": 429}
    again = inbox(gmail, NOW - timedelta(hours=2))
    with pytest.raises(InboxError, match="answers 429") as limited:
        await again.fresh(10)
    assert not isinstance(limited.value, Unreadable)
    gmail.answers = {"m1": 500}
    with pytest.raises(Unreadable, match="answers 500 and gives no content of m1"):
        await again.whole(found[0], 100)
    for each in (opened, again):
        await each.close()


async def test_a_header_that_does_not_come_is_told_from_an_inbox_that_does_not(gmail: Gmail) -> None:
    gmail.messages = [(f"m{number}", NOW - timedelta(minutes=60 - number), {}, b"x") for number in range(2)]
    gmail.stalling = "m0"
    before = Position(read_to=NOW - timedelta(hours=2))
    client = HttpClient(max_connections=1)
    opened = GmailInbox(client, Tokens(), before, now=NOW, api_url=gmail.url, header_seconds=1.0)
    with pytest.raises(Unreadable, match="has given no header within 1 s") as raised:
        await opened.fresh(10)
    assert raised.value.message.key == "m0"
    assert [each.key for each in (await opened.fresh(10))[0]] == ["m1"]
    await opened.close()


@dataclass
class Mailbox:
    """One whose inbox is read by the Gmail API."""

    db: Database
    gmail: Gmail
    failures: list[object] = field(default_factory=list)

    async def pull(self) -> None:
        async def opened(record: InboxRecord) -> GmailInbox:
            client, position, now = HttpClient(max_connections=1), Position(read_to=record.read_to), datetime.now(UTC)
            return GmailInbox(client, Tokens(), position, now=now, api_url=self.gmail.url)

        async with self.db.connection() as connection:
            await connection.execute("UPDATE mailbox_inboxes SET next_pull_at = '-infinity'")
        await pull_reports(self.db, opened, PullTerms(at_once=1), emit=self.failures.append)

    async def kept(self) -> list[ReportRecord]:
        async with self.db.connection() as connection:
            return list(reversed(await inbound_reports.found(connection)))


@pytest.fixture
async def mailbox(db: Database, gmail: Gmail) -> Mailbox:
    async with db.connection() as connection:
        sender = await make_sender(connection)
        await inboxes.save(
            connection,
            client_id=sender.client_id,
            mailbox_id=sender.mailbox_id,
            email_address=sender.address,
            kind="gmail_api",
        )
        await connection.execute("UPDATE mailbox_inboxes SET read_to = now() - interval '1 hour'")
    return Mailbox(db, gmail)


async def test_behind_two_in_a_row_that_cannot_be_had_reading_goes_on(mailbox: Mailbox, gmail: Gmail) -> None:
    now = datetime.now(UTC)
    gmail.messages = [(f"m{number}", now - timedelta(seconds=9 - number), REPORT, b"x") for number in range(4)]
    gmail.answers = {"m1": 500, "m2": 500}
    for _ in range(2 * TRIES):
        await mailbox.pull()
    # Where reading stands is before them, for ten minutes; they are done with all the same.
    assert [each.status for each in await mailbox.kept()] == ["new", "ignored", "ignored", "new"]
    count = len(mailbox.failures)
    await mailbox.pull()
    assert len(mailbox.failures) == count and len(await mailbox.kept()) == 4


async def test_a_header_too_long_for_an_answer_is_read_from_the_message_itself(mailbox: Mailbox, gmail: Gmail) -> None:
    moment = datetime.now(UTC) - timedelta(minutes=30)
    header = b"From: MAILER-DAEMON@example.net\r\nSubject: failure notice\r\nX-Failed-Recipients: a@example.org\r\n"
    gmail.messages = [
        ("report", moment, REPORT | {"To": "x" * 1_200_000}, header + b"\r\nSorry"),
        ("private", moment, {"To": "x" * 1_200_000}, b"From: jane@example.net\r\n\r\n" + header),
    ]
    await mailbox.pull()
    (kept,) = await mailbox.kept()
    assert (kept.status, kept.size_octets, mailbox.failures) == ("new", len(header) + 7, [])


async def test_five_hundred_of_one_second_and_a_large_one_are_all_read_once(mailbox: Mailbox, gmail: Gmail) -> None:
    """Reading stood still where more came in ten minutes than were asked for, and at a large one for ever."""
    moment = datetime.now(UTC) - timedelta(seconds=2)
    ordinary = {"From": "jane@example.net", "Subject": "Private"}
    gmail.page_messages = 100
    gmail.messages = [(f"m{number}", moment, ordinary, b"") for number in range(498)]
    gmail.messages.insert(100, ("large", moment, REPORT, b"From: x\r\n\r\n" + b"x" * 3_000_000))
    gmail.messages.append(("last", moment, REPORT, b"From: x\r\n\r\nSorry"))
    await mailbox.pull()
    kept = await mailbox.kept()
    assert mailbox.failures == [] and sorted(each.size_octets for each in kept) == [16, 1_048_576]
    looked_at = [each.split()[0] for each in gmail.asked if each.endswith("metadata")]
    assert sorted(looked_at) == sorted(each[0] for each in gmail.messages)


async def test_failures_say_what_is_wrong(gmail: Gmail) -> None:
    gmail.status = 403
    opened = inbox(gmail, NOW)
    with pytest.raises(InboxError, match=r"answers 403; its scope must be gmail\.readonly"):
        await opened.fresh(10)
    gmail.status = 401
    tokens = Tokens()
    refused = inbox(gmail, NOW, tokens)
    with pytest.raises(InboxError):
        await refused.fresh(10)
    assert tokens.refusals == ["good token"]
    without = inbox(gmail, NOW, Tokens(None))
    with pytest.raises(InboxError, match="no token just now"):
        await without.fresh(10)
    for each in (opened, refused, without):
        await each.close()
