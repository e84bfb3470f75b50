"""google-auth's requests, carried by relayd's own HTTP client: capped in size and in time, a slow drip included.

google-auth works in a thread; its requests go through the event loop that the thread was started from.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from google.auth import exceptions, transport

from relayd.rules.outcome import Stage
from relayd.upstream.http import HttpClient, HttpFailure, HttpReply, Timeouts
from relayd.upstream.verdict import judge_exception

TIMEOUTS = Timeouts(connect=10.0, total=20.0)


class Reply(transport.Response):
    """A reply as google-auth reads it."""

    def __init__(self, reply: HttpReply) -> None:
        self._reply = reply

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """None are kept: google-auth reads none at a token endpoint."""
        return {}

    @property
    def data(self) -> bytes:
        """The body."""
        return self._reply.content


class GrantHttp(transport.Request):
    """One fetch's requests, its retries included; all of them end by `until`, a time of the loop's clock.

    Call it from a thread, never from the loop's own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tls: ssl.SSLContext | None, until: float) -> None:
        self._loop = loop
        self._tls = tls
        self._until = until

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Reply:
        """Raises TransportError, whose text says what happened and quotes nothing of the request."""
        work = self._ask(url, method, body, headers)
        try:
            return Reply(asyncio.run_coroutine_threadsafe(work, self._loop).result())
        except RuntimeError:
            work.close()
            raise exceptions.TransportError("relayd is stopping") from None

    async def _ask(self, url: str, method: str, body: bytes | None, headers: Mapping[str, str] | None) -> HttpReply:
        client = HttpClient(max_connections=1, tls=self._tls, timeouts=TIMEOUTS)
        try:
            async with asyncio.timeout_at(self._until):
                return await client.request(method, url, headers=headers, data=body)
        except HttpFailure as failure:
            raise exceptions.TransportError(_told(failure.error)) from None
        except TimeoutError:
            raise exceptions.TransportError("no answer in time") from None
        finally:
            await client.close()


def _told(error: Exception) -> str:
    return judge_exception(Stage.CONNECT, error).cause.text
