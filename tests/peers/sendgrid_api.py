"""SendGrid's Web API as it is described: HTTPS, a key, `POST /v3/mail/send`, its rules on what it takes."""

import base64
import binascii
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.peers.winding_up import hang_up

KEY = "SG.canary-key"
RESERVED = {
    *("x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"),
    *("to", "from", "subject", "reply-to", "cc", "bcc"),
}
ORDER = ("text/plain", "text/x-amp-html", "text/html")


@dataclass(frozen=True)
class Say:
    """What to answer instead of the truth."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """Take the whole request, then close without a word. `is_taken`: the message was accepted all the same."""

    is_taken: bool = True


class SendGridApi:
    """`script` answers requests in their order, then it is itself. `taken` are the mails that it would send."""

    def __init__(self, context: ssl.SSLContext, *script: Say | Cut, bad: tuple[str, ...] = ()) -> None:
        self.script = list(script)
        self.taken: list[dict[str, Any]] = []
        self.requests = 0
        self._bad = set(bad)
        self._context = context
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_post("/v3/mail/send", self._send)
        self._runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=0.1)
        self.url = ""

    async def __aenter__(self) -> "SendGridApi":
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context)
        await site.start()
        self.url = f"https://localhost:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await hang_up(self._runner)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        content = await request.read()
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Say):
            body = step.body if isinstance(step.body, str) else json.dumps(step.body)
            return web.Response(status=step.status, text=body, headers=step.headers)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return _errors(401, ("The provided authorization grant is invalid, expired, or revoked", None))
        mail = json.loads(content)
        wrong = [*_wrong(mail), *self._bad_addresses(mail)]
        if wrong:
            return _errors(400, *wrong)
        if isinstance(step, Cut):
            if step.is_taken:
                self.taken.append(mail)
            assert request.transport
            request.transport.abort()
        else:
            self.taken.append(mail)
        return web.Response(status=202, headers={"X-Message-Id": f"id-{len(self.taken)}"})

    def _bad_addresses(self, mail: dict[str, Any]) -> list[tuple[str, str]]:
        return [
            ("Does not contain a valid address.", f"personalizations.{number}.{kind}.{place}.email")
            for number, each in enumerate(mail["personalizations"])
            for kind in ("to", "cc", "bcc")
            for place, party in enumerate(each.get(kind, ()))
            if party["email"] in self._bad
        ]


def _wrong(mail: dict[str, Any]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    if set(mail) - {
        *("personalizations", "from", "subject", "reply_to", "reply_to_list"),
        *("content", "attachments", "headers", "custom_args"),
    }:
        found.append(("Bad request", None))
    everybody = [
        party["email"]
        for each in mail["personalizations"]
        for kind in ("to", "cc", "bcc")
        for party in each.get(kind, ())
    ]
    if not mail["personalizations"] or not all(each.get("to") for each in mail["personalizations"]):
        found.append(("The to array is required for all personalization objects", "personalizations"))
    if len({email.lower() for email in everybody}) < len(everybody) or len(everybody) > 1000:
        found.append(("Each email address in the personalization block should be unique", "personalizations"))
    if not mail.get("subject"):
        found.append(("The subject is required", "subject"))
    types = [each["type"] for each in mail["content"]]
    if types != sorted(types, key=ORDER.index) or not types or not all(each["value"] for each in mail["content"]):
        found.append(("The content value must be a string at least one character in length.", "content"))
    if RESERVED & {name.lower() for name in mail.get("headers", {})}:
        found.append(("The header has a reserved name", "headers"))
    if not all(isinstance(value, str) and value.isascii() for value in mail.get("headers", {}).values()):
        found.append(("The header value must be a string", "headers"))
    for each in mail.get("attachments", ()):
        try:
            base64.b64decode(each["content"], validate=True)
        except binascii.Error:
            found.append(("The attachment content must be base64 encoded.", "attachments"))
        if not each["filename"] or (each["disposition"] == "inline" and not each.get("content_id")):
            found.append(("The attachment needs a filename", "attachments"))
    return found


def _errors(status: int, *wrong: tuple[str, str | None]) -> web.Response:
    body = {"errors": [{"message": message, "field": where, "help": None} for message, where in wrong]}
    return web.json_response(body, status=status)
