"""Provider `sendgrid`, mode `api`: hand messages to its Web API v3, in pieces.

One request carries all recipients of a transmission, and one answer speaks for them all.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.rules.outcome import Cause, Failed, Outcome, Postponed, Scope, Sent, Stage
from relayd.upstream.http import HttpClient, HttpFailure, HttpReply, Timeouts
from relayd.upstream.http_verdict import errors_of, judge_http
from relayd.upstream.sendgrid_message import compose
from relayd.upstream.verdict import GENERIC, MAX_PROVIDER_ID_CHARACTERS, Rule, Unfit, clean, judge_exception, refuse

DEFAULT_URL = "https://api.sendgrid.com"

_ACCEPTED = 202


@dataclass(frozen=True, slots=True)
class SendGridSettings:
    """`ca_file` None: the system's certificates."""

    key: str = field(repr=False)
    url: str = DEFAULT_URL
    ca_file: str | None = None
    max_connections: int = 4
    rules: Sequence[Rule] = field(default=GENERIC, repr=False)
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(connect=30, total=600))


class SendGrid:
    def __init__(self, settings: SendGridSettings, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._wall_clock = wall_clock
        self._opening = asyncio.Lock()
        self._client: HttpClient | None = None

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        """One outcome for each recipient, in their order. Raises CancelledError alone."""
        foreign = "SendGrid takes no addresses whose local part is not ASCII"
        able = tuple(address for address in transmission.recipients if not address.needs_smtputf8)
        if transmission.reverse_path is not None and transmission.reverse_path.needs_smtputf8:
            able = ()
        outcomes: dict[Address, Outcome] = {}
        if able:
            outcomes = await self._deliver(replace(transmission, recipients=able))
        return tuple(
            outcomes.get(address) or refuse(Scope.RECIPIENT, "5.6.7", foreign) for address in transmission.recipients
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.close()

    async def _deliver(self, transmission: Transmission) -> dict[Address, Outcome]:
        transmission.reached.stage = Stage.CONNECT
        composed = await asyncio.to_thread(compose, transmission)
        if isinstance(composed, Failed):
            return dict.fromkeys(transmission.recipients, composed)
        try:
            reply = await (await self._opened()).request(
                "POST",
                f"{self._settings.url}/v3/mail/send",
                headers={"Authorization": f"Bearer {self._settings.key}", "Content-Type": "application/json"},
                data=composed.body,
                reached=transmission.reached,
            )
        except HttpFailure as failure:
            return dict.fromkeys(transmission.recipients, judge_exception(failure.stage, failure.error))
        except Unfit as error:
            return dict.fromkeys(transmission.recipients, judge_exception(Stage.CONNECT, error))
        if reply.status == _ACCEPTED:
            name = clean(reply.headers.get("X-Message-Id", ""))[:MAX_PROVIDER_ID_CHARACTERS] or None
            cause = Cause(Stage.DOT, f"HTTP {reply.status} accepted")
            return dict.fromkeys(transmission.recipients, Sent(cause, name))
        return self._refused(reply, transmission, composed.places)

    def _refused(
        self, reply: HttpReply, transmission: Transmission, places: dict[str, Address]
    ) -> dict[Address, Outcome]:
        outcome = judge_http(self._with_hold(reply), self._settings.rules)
        bad = _bad_recipients(reply, places) if isinstance(outcome, Failed) else set()
        if not bad or len(bad) == len(set(places.values())):
            scope = Scope.RECIPIENT if bad else Scope.MESSAGE
            told = replace(outcome, scope=scope) if isinstance(outcome, Failed) else outcome
            return dict.fromkeys(transmission.recipients, self._safe(told))
        # The others are as good as before: they go again at once without these, so there is progress.
        cause = self._safe(Failed(Scope.RECIPIENT, outcome.cause)).cause
        again = Postponed(Scope.MESSAGE, replace(cause, text=f"not sent, another recipient is bad: {cause.text}"), 0)
        keys = {address.key for address in bad}
        return {
            address: Failed(Scope.RECIPIENT, cause) if address.key in keys else again
            for address in transmission.recipients
        }

    def _safe(self, outcome: Outcome) -> Outcome:
        """Without the key, should the peer echo it."""
        text = outcome.cause.text.replace(self._settings.key, "***")
        return replace(outcome, cause=replace(outcome.cause, text=text))

    def _with_hold(self, reply: HttpReply) -> HttpReply:
        """X-RateLimit-Reset is the Unix time from which on it may be asked again."""
        reset = reply.headers.get("X-RateLimit-Reset", "")
        if reply.retry_after_seconds is not None or not (reset.isascii() and reset.isdigit() and len(reset) < 12):
            return reply
        return replace(reply, retry_after_seconds=max(0.0, int(reset) - self._wall_clock()))

    async def _opened(self) -> HttpClient:
        async with self._opening:
            if self._client is None:
                tls = await asyncio.to_thread(_tls, self._settings.ca_file)
                self._client = HttpClient(
                    max_connections=self._settings.max_connections, tls=tls, timeouts=self._settings.timeouts
                )
            return self._client


def _bad_recipients(reply: HttpReply, places: dict[str, Address]) -> set[Address]:
    """Those whom every error of the answer speaks of; none if one speaks of something else."""
    try:
        errors = errors_of(json.loads(reply.content))
    except (ValueError, RecursionError):
        return set()
    fields = [error["field"] for error in errors if isinstance(error.get("field"), str)]
    found = [places.get(field.removesuffix(".email")) for field in fields]
    if len(fields) < sum("message" in error for error in errors) or None in found:
        return set()
    return {address for address in found if address is not None}


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise Unfit(f"ca_file {ca_file} cannot be used: {error.strerror or error}") from error
