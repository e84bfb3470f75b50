"""Read an inbox by the Gmail API: message ids since the last look, headers, and whole messages only of reports."""

import base64
import binascii
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from relayd.inbox.reading import Fresh, InboxError, Position
from relayd.upstream.http import HttpClient, HttpFailure
from relayd.upstream.tokens import GrantDead, TokenSource, TokenUnavailable

API = "https://gmail.googleapis.com"

PAGE = 100
# Ids are asked for by second, and the API may learn of a message a little late.
OVERLAP = timedelta(minutes=10)
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
    ) -> None:
        """`account`: whose inbox, where the grant is for more than one."""
        self._http = http
        self._tokens = tokens
        self._account = account
        self._position = position
        self._now = now
        self._url = f"{api_url or API}/gmail/v1/users/me/messages"

    async def fresh(self, most: int) -> tuple[list[Fresh], Position]:
        """As Inbox has it. A message may come twice within the overlap: its key is the same."""
        before = self._position.read_to
        if before is None:
            return [], Position(read_to=self._now)
        since = int((before - OVERLAP).timestamp())
        ids = await self._ids(since, most)
        found = []
        for each in ids:
            query = urlencode([("format", "metadata"), *(("metadataHeaders", name) for name in _HEADERS)])
            message = await self._get(f"{self._url}/{quote(each, safe='')}?{query}")
            found.append((_moment(message), each, _header(message)))
        found.sort()
        # With more to come the next look goes on from the last of these.
        end = self._now if len(found) < most else found[-1][0]
        return [Fresh(key, header, Position(read_to=max(moment, before))) for moment, key, header in found], Position(
            read_to=end
        )

    async def whole(self, message: Fresh, most_octets: int) -> bytes:
        """As Inbox has it."""
        found = await self._get(f"{self._url}/{quote(message.key, safe='')}?format=raw")
        try:
            return base64.urlsafe_b64decode(str(found.get("raw", "")) + "==")[:most_octets]
        except (binascii.Error, ValueError):
            raise InboxError("the Gmail API gave a message that is not in base64") from None

    async def close(self) -> None:
        """As Inbox has it."""
        await self._http.close()

    async def _ids(self, since: int, most: int) -> list[str]:
        """The oldest `most`: the API lists the newest first, so all pages are asked for."""
        ids: list[str] = []
        page = ""
        while True:
            query = {"q": f"after:{since}", "includeSpamTrash": "true", "maxResults": PAGE}
            reply = await self._get(f"{self._url}?{urlencode(query | ({'pageToken': page} if page else {}))}")
            ids += [str(each.get("id", "")) for each in reply.get("messages", ()) if isinstance(each, dict)]
            page = str(reply.get("nextPageToken", ""))
            if not page or len(ids) >= 10_000:
                return list(reversed(ids))[:most]

    async def _get(self, url: str) -> dict[str, Any]:
        try:
            token = await self._tokens.token(self._account)
            reply = await self._http.request("GET", url, headers={"Authorization": f"Bearer {token}"})
        except (GrantDead, TokenUnavailable) as error:
            raise InboxError(f"no access to the Gmail API: {error}") from None
        except HttpFailure as failure:
            raise InboxError(f"the Gmail API cannot be reached: {failure.error}") from None
        if reply.status == 401:
            await self._tokens.refused(token, self._account)
        if reply.status != 200:
            raise InboxError(f"the Gmail API answers {reply.status}; its scope must be gmail.readonly")
        try:
            found = json.loads(reply.content)
        except ValueError:
            raise InboxError("the Gmail API's answer is not JSON") from None
        return found if isinstance(found, dict) else {}


def _moment(message: dict[str, Any]) -> datetime:
    text = str(message.get("internalDate", ""))
    return datetime.fromtimestamp(int(text) / 1000 if text.isdigit() and len(text) < 15 else 0, UTC)


def _header(message: dict[str, Any]) -> bytes:
    payload = message.get("payload")
    fields = payload.get("headers", ()) if isinstance(payload, dict) else ()
    lines = [f"{each.get('name')}: {each.get('value')}" for each in fields if isinstance(each, dict)]
    return "\n".join(" ".join(line.split("\n")) for line in lines).encode("utf-8", "replace")
