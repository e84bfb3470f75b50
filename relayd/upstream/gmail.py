"""Gmail's API as one account sees it: requests with its token, a fresh one tried once where the first is not taken."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from relayd.upstream.http import HttpClient, HttpReply, Timeouts
from relayd.upstream.tokens import TokenSource
from relayd.upstream.verdict import GENERIC, Rule

API_URL = "https://gmail.googleapis.com"


@dataclass(frozen=True, slots=True)
class GmailSettings:
    """`per_mailbox`: the tokens are made for each mailbox (a service account); else they are one account's.

    `ca_file`: the certificates that the server's is verified against; None: the system's.
    """

    tokens: TokenSource = field(repr=False)
    per_mailbox: bool
    api_url: str = API_URL
    ca_file: str | None = None
    max_connections: int = 4
    sends_a_second: float = 2.0  # of one mailbox
    timeouts: Timeouts = field(default_factory=Timeouts)
    rules: Sequence[Rule] = field(default=GENERIC, repr=False)  # what its replies mean


class Gmail:
    """Connections and tokens, shared by all accounts. `close` when done."""

    def __init__(self, settings: GmailSettings) -> None:
        self._settings = settings
        self._http: HttpClient | None = None
        self._opening = asyncio.Lock()

    async def ask(
        self,
        method: str,
        path: str,
        subject: str | None,
        *,
        query: dict[str, Any] | None = None,
        json: Any = None,
        data: bytes | None = None,
    ) -> HttpReply:
        """`path` begins behind the account: `drafts/send`; with `data`, a message, it is an upload.

        Raises HttpFailure, GrantDead, TokenUnavailable, and OSError where the CA file cannot be used.
        """
        http = await self._opened()
        base = f"{self._settings.api_url.rstrip('/')}{'/upload' if data is not None else ''}/gmail/v1/users/me/{path}"
        query = {**(query or {}), "uploadType": "media"} if data is not None else query
        url = f"{base}?{urlencode(query, doseq=True)}" if query else base
        for is_last in (False, True):
            token = await self._settings.tokens.token(subject)
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            if data is not None:
                headers["Content-Type"] = "message/rfc822"
            reply = await http.request(method, url, headers=headers, json=json, data=data)
            if reply.status != 401 or is_last:
                break
            await self._settings.tokens.refused(token, subject)
        return reply

    def subject(self, mailbox: str | None) -> str | None:
        """For whom to ask for a token: the mailbox, or None for the one account there is."""
        return mailbox if self._settings.per_mailbox else None

    async def close(self) -> None:
        """Close every connection."""
        await self._settings.tokens.close()
        if self._http is not None:
            await self._http.close()

    async def _opened(self) -> HttpClient:
        async with self._opening:
            if self._http is None:
                file = self._settings.ca_file
                tls = await asyncio.to_thread(ssl.create_default_context, cafile=file) if file else None
                self._http = HttpClient(
                    max_connections=self._settings.max_connections, tls=tls, timeouts=self._settings.timeouts
                )
            return self._http


def draft_path(draft_id: str) -> str:
    """Of one draft; its id came from a peer."""
    return f"drafts/{quote(draft_id, safe='')}"
