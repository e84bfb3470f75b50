"""The Gmail API as a way into an inbox, against a local server that answers as it does."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from relayd.inbox.gmail import GmailInbox
from relayd.inbox.reading import InboxError, Position
from relayd.upstream.http import HttpClient
from relayd.upstream.tokens import TokenUnavailable

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@dataclass
class Gmail:
    """An account's messages: (id, time, header fields, raw). Two a page, newest first."""

    url: str = ""
    messages: list[tuple[str, datetime, dict[str, str], bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    status: int = 200

    async def list(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        assert request.headers["Authorization"] == "Bearer good token"
        after = int(request.query["q"].removeprefix("after:"))
        found = sorted((each for each in self.messages if each[1].timestamp() > after), key=lambda m: m[1])[::-1]
        begin = int(request.query.get("pageToken", "0"))
        page: dict[str, Any] = {"messages": [{"id": each[0]} for each in found[begin : begin + 2]]}
        if begin + 2 < len(found):
            page["nextPageToken"] = str(begin + 2)
        return web.json_response(page, status=self.status)

    async def get(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.match_info['id']} {request.query['format']}")
        each = next(message for message in self.messages if message[0] == request.match_info["id"])
        if request.query["format"] == "raw":
            return web.json_response({"id": each[0], "raw": base64.urlsafe_b64encode(each[3]).decode().rstrip("=")})
        headers = [{"name": name, "value": value} for name, value in each[2].items()]
        moment = str(int(each[1].timestamp() * 1000))
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
        when = NOW - timedelta(minutes=5 - number)
        gmail.messages.append((f"m{number}", when, {"Subject": f"s{number}"}, b"From: x\r\n\r\nwhole"))
    opened = inbox(gmail, NOW - timedelta(minutes=4))
    found, end = await opened.fresh(10)
    assert [each.key for each in found] == ["m0", "m1", "m2", "m3", "m4"]  # m0 within the overlap
    assert found[3].header == b"Subject: s3" and end == Position(read_to=NOW)
    assert await opened.whole(found[3], 100) == b"From: x\r\n\r\nwhole"
    assert [each for each in gmail.asked if each.endswith("raw")] == ["m3 raw"]
    few, end = await opened.fresh(2)
    assert [each.key for each in few] == ["m0", "m1"]
    assert end.read_to is not None and end.read_to < NOW
    await opened.close()


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
