"""One HTTPS request to a provider's API: capped in size and time, and it knows how far it came.

Replies are small; a peer that never ends is cut off. Nothing of a request's headers is ever in an error's text, nor in
the body of a reply that is no success: a peer may quote what it was sent.
"""

import asyncio
import io
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from relayd.mail.envelope import Reached
from relayd.rules.outcome import Stage
from relayd.upstream.redaction import MASK, spellings
from relayd.upstream.verdict import ProtocolViolation

MAX_REPLY_OCTETS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds: until connected with TLS, and for the whole request."""

    connect: float = 30.0
    total: float = 120.0


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A reply that was read whole. `retry_after_seconds` is what Retry-After asks for, None if nothing.

    The names in `headers` are the same in any case.
    """

    status: int
    content: bytes
    retry_after_seconds: float | None
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpFailure(Exception):
    """No reply. `stage` is DOT once all that was asked may have been sent; `error` is what happened."""

    def __init__(self, stage: Stage, error: Exception) -> None:
        super().__init__(stage)
        self.stage = stage
        self.error = error


class HttpClient:
    """Connections to one provider, kept and reused. `close` when done."""

    def __init__(
        self, *, max_connections: int, tls: ssl.SSLContext | None = None, timeouts: Timeouts | None = None
    ) -> None:
        """`tls` None: the system's certificates."""
        self._max_connections = max_connections
        self._tls = tls
        self._timeouts = timeouts or Timeouts()
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        data: bytes | None = None,
        beginning_octets: int | None = None,
        reached: Reached | None = None,
    ) -> HttpReply:
        """Send and read the reply, whatever its status. Redirects are not followed. Raises HttpFailure.

        `beginning_octets`: so much of a reply is enough, be it as long as it may; without, a long one is a failure.
        `reached` learns how much of `data` may have gone: none (CONNECT), a part (DATA), all of it (DOT).
        """
        reached = reached or Reached()
        body = _Body(data, reached) if data is not None else None
        try:
            async with self._opened().request(
                method, url, headers=headers, json=json, data=body, allow_redirects=False
            ) as response:
                content = await _read(response.content, beginning_octets)
                if response.status >= 300:
                    content = _without_login(content, headers or {})
                return HttpReply(response.status, content, _retry_after(response), response.headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise HttpFailure(Stage.CONNECT, _cause(error)) from None
        except (aiohttp.ClientError, OSError, TimeoutError, ProtocolViolation) as error:
            raise HttpFailure(Stage(reached.stage), _cause(error)) from None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            # An aborted transport closes its socket in the next turns of the loop.
            await asyncio.sleep(0)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, ssl=self._tls or True),
                timeout=aiohttp.ClientTimeout(total=self._timeouts.total, sock_connect=self._timeouts.connect),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


class _Body(io.BytesIO):
    """What is sent. In pieces: a large one as a whole would hold up the loop."""

    def __init__(self, data: bytes, reached: Reached) -> None:
        super().__init__(data)
        self._left = len(data)
        self._reached = reached
        reached.stage = Stage.CONNECT

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._left -= len(data)
        self._reached.stage = Stage.DATA if self._left > 0 else Stage.DOT
        return data


async def _read(stream: aiohttp.StreamReader, beginning_octets: int | None) -> bytes:
    content = bytearray()
    async for chunk in stream.iter_any():
        content += chunk
        if beginning_octets is not None:
            if len(content) >= beginning_octets:
                return bytes(content[:beginning_octets])
        elif len(content) > MAX_REPLY_OCTETS:
            raise ProtocolViolation(f"the reply has more than {MAX_REPLY_OCTETS} octets")
    return bytes(content)


def _without_login(content: bytes, headers: Mapping[str, str]) -> bytes:
    for spelt in spellings([headers.get("Authorization", "").removeprefix("Bearer ")]):
        content = content.replace(spelt.encode(), MASK.encode())
    return content


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds, or a date that is measured against the server's own clock (RFC 9110 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        wanted, now = parsedate_to_datetime(text), parsedate_to_datetime(response.headers.get("Date", ""))
        return max(0.0, (wanted - now).total_seconds())
    except (ValueError, TypeError, ArithmeticError):
        return None


def _cause(error: Exception) -> Exception:
    """The system's error inside of aiohttp's, which says more to the one translator."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    if isinstance(error, aiohttp.InvalidURL):
        return ProtocolViolation("the address of the API is not a URL")
    if isinstance(error, aiohttp.ClientError) and not isinstance(error, OSError):
        return ConnectionError("connection lost")
    return error
