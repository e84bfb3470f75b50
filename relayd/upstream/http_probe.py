"""Try a provider's HTTP API: its address, its TLS, and one request that changes nothing."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from relayd.errors import RelaydError
from relayd.upstream import reach
from relayd.upstream.certificate import Certificate
from relayd.upstream.cures import Place, cure
from relayd.upstream.http import HttpClient, HttpFailure, Timeouts
from relayd.upstream.steps import Progress, StepFailed, Trial
from relayd.upstream.verdict import Unfit, clean, judge_exception

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Question:
    """A GET that changes nothing. `headers` are asked for when it is sent; they may raise RelaydError."""

    path: str
    headers: Callable[[], Awaitable[Mapping[str, str]]]


class HttpProbe:
    """`url` is the API's base. Without a question nobody logs in."""

    def __init__(self, url: str, *, ca_file: str | None, question: Question | None) -> None:
        self._url = url.rstrip("/")
        self._ca_file = ca_file
        self._question = question

    async def run(self, trial: Trial, progress: Progress) -> None:
        """Steps `dns`, `tcp`, `tls`, `request`; nothing is sent, whatever the trial says."""
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        place = Place(upstream=trial.upstream, host=host, port=parts.port or _PORTS[parts.scheme])
        found = await reach.resolve(progress, place)
        connected = await reach.connect(progress, place, found, seconds=Timeouts().connect)
        context: ssl.SSLContext | None = None
        try:
            if parts.scheme == "https":
                async with progress.step("tls") as report:
                    try:
                        context = await asyncio.to_thread(_context, self._ca_file)
                        transport, _ = await asyncio.get_running_loop().create_connection(
                            asyncio.Protocol, sock=connected, ssl=context, server_hostname=host
                        )
                    except (OSError, Unfit) as error:
                        raise reach.failed("tls", place, error) from None
                    tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
                    der = tls.getpeercert(binary_form=True)
                    transport.abort()
                    reach.describe_tls(report, tls, Certificate.parse(der) if der else None, doubt=None)
        finally:
            connected.close()
        if self._question is not None:
            await self._ask(self._question, context, place, progress)

    async def _ask(self, question: Question, context: ssl.SSLContext | None, place: Place, progress: Progress) -> None:
        client = HttpClient(max_connections=1, tls=context)
        async with progress.step("request") as report:
            try:
                reply = await client.request("GET", self._url + question.path, headers=await question.headers())
            except HttpFailure as failure:
                text = judge_exception(failure.stage, failure.error).cause.text
                raise StepFailed(text, cure("request", text, None, place)) from None
            except RelaydError as error:
                raise StepFailed(str(error), cure("request", str(error), 401, place)) from None
            finally:
                await client.close()
            text = f"GET {question.path}: {reply.status}"
            if not 200 <= reply.status <= 299:
                said = clean(reply.content.decode("utf-8", "replace"))
                raise StepFailed(text, cure("request", text, reply.status, place), (said,) if said else ())
            report.result = text
            report.details.append("nothing is sent: an API takes no test")


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Unfit(f"ca_file {ca_file} cannot be used: {error.strerror or error}") from error
