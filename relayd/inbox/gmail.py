"""Read an inbox by the Gmail API: message ids since the last look, headers, and whole messages only of reports."""

import asyncio
import base64
import json
import re
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from relayd.inbox.reading import Fresh, InboxError, Position, Unreadable
from relayd.rules.outcome import Stage
from relayd.upstream.http import HttpClient, HttpFailure, HttpReply
from relayd.upstream.tokens import GrantDead, TokenSource, TokenUnavailable
from relayd.upstream.verdict import ProtocolViolation

API = "https://gmail.googleapis.com"

PAGE = 500
# The API may learn of a message a little late: what is younger is looked at again.
OVERLAP = timedelta(minutes=10)
# The oldest of those that came are remembered in one look; the next goes on behind them.
MOST_LISTED = 20_000
# They say nothing of the message that was asked for.
_NOT_OF_THE_MESSAGE = frozenset({401, 403, 429})
_GONE = 404
HEADER_OCTETS = 65_536
# Beside the content: the braces and the name of its field.
_FRAME_OCTETS = 4096
# The reply may have been cut off; so nothing but the letters of base64 is looked for.
_RAW = re.compile(rb'"raw"\s*:\s*"([A-Za-z0-9_-]*)')
_HEADERS = ("From", "To", "Subject", "Return-Path", "Content-Type", "Auto-Submitted", "Precedence", "In-Reply-To",
            "References", "Message-ID", "X-Failed-Recipients", "X-XARF", "X-ARF", "X-Autoreply")  # fmt: skip


class GmailInbox:
    """The account's mail, spam included."""

    def __init__(
        self,
        http: HttpClient,
        tokens: TokenSource,
        position: Position,
        *,
        now: datetime,
        account: str | None = None,
        api_url: str | None = None,
        header_seconds: float = 30.0,
    ) -> None:
        """`account`: whose inbox, where the grant is for more than one. `header_seconds`: for one message's."""
        self._http = http
        self._tokens = tokens
        self._account = account
        self._position = position
        self._now = now
        self._header_seconds = header_seconds
        self._url = f"{api_url or API}/gmail/v1/users/me/messages"
        self._listed: deque[str] | None = None  # newest first
        self._is_all_listed = True

    async def fresh(self, most: int) -> tuple[list[Fresh], Position | None]:
        """As Inbox has it. A message may come again at the next looks: its key is the same."""
        before = self._position.read_to
        if before is None:
            return [], Position(read_to=self._now)
        if self._listed is None:
            self._listed = await self._list(before)
        settled = max(before, self._now - OVERLAP)
        found: list[tuple[datetime, str, bytes]] = []
        while self._listed and len(found) < most:
            key = self._listed.pop()
            try:
                message = await self._header(key)
            except InboxError as error:
                if found:
                    # These first, so that they are done with whatever becomes of that one.
                    self._listed.append(key)
                    break
                if isinstance(error, _NoMessage):
                    raise Unreadable(Fresh(key, b"", self._position), str(error)) from None
                raise
            if message is not None:
                moment, header = message
                found.append((moment, key, header))
        found.sort()
        # What is late may come before those that are younger than the overlap.
        fresh = [
            Fresh(key, header, Position(read_to=max(before, min(moment, settled)))) for moment, key, header in found
        ]
        if fresh:
            self._position = fresh[-1].position
        return fresh, None if self._listed or not self._is_all_listed else Position(read_to=settled)

    async def whole(self, message: Fresh, most_octets: int) -> bytes:
        """As Inbox has it."""
        try:
            return await self._beginning(message.key, most_octets)
        except _NoMessage as error:
            raise Unreadable(message, str(error)) from None

    async def close(self) -> None:
        """As Inbox has it."""
        await self._http.close()

    async def _list(self, before: datetime) -> deque[str]:
        """The oldest of what came since. The API lists the newest first, so all pages are asked for."""
        ids: deque[str] = deque(maxlen=MOST_LISTED)
        count = 0
        page = ""
        while True:
            # A second earlier: whether that very second is meant is not said.
            query = {"q": f"after:{int(before.timestamp()) - 1}", "includeSpamTrash": "true", "maxResults": PAGE}
            reply = await self._get(f"{self._url}?{urlencode(query | ({'pageToken': page} if page else {}))}")
            told = _json(reply)
            if told is None:
                raise InboxError("the Gmail API's answer is not JSON")
            found = [str(each.get("id", "")) for each in told.get("messages") or () if isinstance(each, dict)]
            ids += found
            count += len(found)
            page = str(told.get("nextPageToken", ""))
            if not page:
                self._is_all_listed = count == len(ids)
                return ids

    async def _header(self, key: str) -> tuple[datetime, bytes] | None:
        """When it came, and its header; None: it was removed in the meantime.

        Raises _NoMessage, and InboxError where it is not this one's fault.
        """
        try:
            async with asyncio.timeout(self._header_seconds):
                try:
                    message = await self._metadata(key, "metadata", *_HEADERS)
                    header = _header(message) if message is not None else b""
                except _TooLong:
                    # It never gets shorter. Of the message as it came the beginning can be had.
                    message = await self._metadata(key, "minimal")
                    header = _up_to_the_empty_line(await self._beginning(key, HEADER_OCTETS))
        except TimeoutError:
            raise _NoMessage(f"the Gmail API has given no header within {self._header_seconds:.0f} s") from None
        return (_moment(message), header) if message is not None else None

    async def _beginning(self, key: str, most_octets: int) -> bytes:
        """Of the message as it came. Raises _NoMessage, and InboxError where it is not this one's fault."""
        query = urlencode({"format": "raw", "fields": "raw"})
        most = most_octets // 3 * 4 + _FRAME_OCTETS
        reply = await self._get(f"{self._url}/{quote(key, safe='')}?{query}", beginning_octets=most)
        found = _RAW.search(reply.content) if reply.status == 200 else None
        if found is None:
            raise _NoMessage(f"the Gmail API answers {reply.status} and gives no content of {key}")
        letters = found.group(1)
        # One letter more than a multiple of four holds no whole octet: it was cut off.
        letters = letters[: len(letters) - (len(letters) % 4 == 1)]
        return base64.urlsafe_b64decode(letters + b"==")[:most_octets]

    async def _metadata(self, key: str, form: str, *headers: str) -> dict[str, Any] | None:
        query = urlencode([("format", form), *(("metadataHeaders", name) for name in headers)])
        reply = await self._get(f"{self._url}/{quote(key, safe='')}?{query}", is_of_one=True)
        if reply.status == _GONE:
            return None
        message = _json(reply) if reply.status == 200 else None
        if message is None:
            raise _NoMessage(f"the Gmail API answers {reply.status} and gives no header of message {key}")
        return message

    async def _get(self, url: str, *, is_of_one: bool = False, beginning_octets: int | None = None) -> HttpReply:
        """`is_of_one`, and where a beginning is asked for: the status may be another than 200."""
        is_of_one = is_of_one or beginning_octets is not None
        try:
            token = await self._tokens.token(self._account)
            headers = {"Authorization": f"Bearer {token}"}
            reply = await self._http.request("GET", url, headers=headers, beginning_octets=beginning_octets)
        except (GrantDead, TokenUnavailable) as error:
            raise InboxError(f"no access to the Gmail API: {error}") from None
        except HttpFailure as failure:
            kind: type[InboxError] = InboxError
            if is_of_one and failure.stage is not Stage.CONNECT:
                kind = _TooLong if isinstance(failure.error, ProtocolViolation) else _NoMessage
            raise kind(f"the Gmail API cannot be reached: {failure.error}") from None
        if reply.status == 401:
            await self._tokens.refused(token, self._account)
        if reply.status != 200 and (not is_of_one or reply.status in _NOT_OF_THE_MESSAGE):
            raise InboxError(f"the Gmail API answers {reply.status}; its scope must be gmail.readonly")
        return reply


class _NoMessage(InboxError):
    """It may be this message's fault."""


class _TooLong(_NoMessage):
    """There is more than is read of an answer."""


def _json(reply: HttpReply) -> dict[str, Any] | None:
    try:
        found = json.loads(reply.content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _up_to_the_empty_line(content: bytes) -> bytes:
    return re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0]


def _moment(message: dict[str, Any]) -> datetime:
    text = str(message.get("internalDate", ""))
    return datetime.fromtimestamp(int(text) / 1000 if text.isdigit() and len(text) < 15 else 0, UTC)


def _header(message: dict[str, Any]) -> bytes:
    payload = message.get("payload")
    fields = (payload.get("headers") or ()) if isinstance(payload, dict) else ()
    lines = [f"{each.get('name')}: {each.get('value')}" for each in fields if isinstance(each, dict)]
    return "\n".join(" ".join(line.split("\n")) for line in lines).encode("utf-8", "replace")
