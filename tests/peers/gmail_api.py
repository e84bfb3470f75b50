"""An HTTPS server that behaves as Gmail's API does, as far as it is documented: drafts, sending, threads, search.

It sends to whom the header names, takes Bcc out, keeps drafts until they are sent, and shows sent mail to a search only
once its index has it. A test may have it refuse, replace Message-IDs, or do what it is asked and never answer.
"""

import asyncio
import base64
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.utils import getaddresses
from enum import Enum
from functools import cached_property
from itertools import count
from typing import Any

from aiohttp import web

from tests.peers.winding_up import hang_up


class Cut(Enum):
    """How a connection ends without a reply: what was asked for is not done, or is."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class Answer:
    """A reply in Google's form, or with a body of its own, in place of what was asked for."""

    status: int
    reason: str = "backendError"
    message: str = "Error"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def response(self) -> web.Response:
        if self.body is not None:
            return web.Response(status=self.status, body=self.body, headers=self.headers)
        error = {
            "code": self.status,
            "message": self.message,
            "errors": [{"message": self.message, "domain": "global", "reason": self.reason}],
        }
        return web.json_response({"error": error}, status=self.status, headers=self.headers)


@dataclass
class Stored:
    """A message in an account, as a draft or sent."""

    id: str
    thread_id: str
    content: bytes
    labels: list[str]
    is_indexed: bool = False

    @cached_property
    def parsed(self) -> Message:
        return message_from_bytes(self.content)


@dataclass
class Account:
    drafts: dict[str, Stored] = field(default_factory=dict)
    messages: dict[str, Stored] = field(default_factory=dict)


Interference = Callable[[str, int], Answer | Cut | None]


@dataclass
class GmailApi:
    """Use as a context manager. `tokens` maps a bearer token to its account; `sent` is what left, with its recipients.

    `interfere` is asked before each request: the method's name in Google's spelling and how often it came.
    `is_indexing`: what is sent can be found by a search at once. `replaces_message_id`: as it is reported to do.
    `forbidden`: methods that the token's scopes do not cover.
    """

    context: ssl.SSLContext
    tokens: dict[str, str] = field(default_factory=lambda: {"token": "noreply@example.com"})
    interfere: Interference = lambda method, times: None
    is_indexing: bool = True
    replaces_message_id: bool = False
    forbidden: set[str] = field(default_factory=set)
    accounts: dict[str, Account] = field(default_factory=dict)
    sent: list[tuple[tuple[str, ...], bytes]] = field(default_factory=list)
    asked: "Counter[str]" = field(default_factory=Counter)
    subjects: list[str] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> "GmailApi":
        self._ids = count(0x18C0FFEE)
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(20), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def recipients(self) -> "Counter[str]":
        """How often each address was sent to."""
        return Counter(each for recipients, _ in list(self.sent) for each in recipients)

    @property
    def drafts(self) -> list[Stored]:
        return [each for account in self.accounts.values() for each in account.drafts.values()]

    def account(self, address: str = "noreply@example.com") -> Account:
        return self.accounts.setdefault(address, Account())

    def deliver_by_smtp(self, address: str, recipients: tuple[str, ...], content: bytes) -> None:
        """As smtp.gmail.com does with what it takes: on its way, and a copy in Sent."""
        message_id = self._new_id()
        self.account(address).messages[message_id] = Stored(
            message_id, message_id, content, ["SENT"], is_indexed=self.is_indexing
        )
        self.sent.append((recipients, content))

    def index(self) -> None:
        """A search finds what was sent up to now."""
        for account in self.accounts.values():
            for each in list(account.messages.values()):
                each.is_indexed = True

    def _new_id(self) -> str:
        return f"{next(self._ids):x}"

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        application = web.Application(client_max_size=64 * 1024 * 1024)
        users = "/gmail/v1/users/{user}"
        for method, path, name, handler in (
            ("POST", f"{users}/drafts", "drafts.create", self._create),
            ("POST", f"/upload{users}/drafts", "drafts.create", self._create),
            ("POST", f"{users}/drafts/send", "drafts.send", self._send),
            ("GET", users + "/drafts/{id}", "drafts.get", self._get_draft),
            ("DELETE", users + "/drafts/{id}", "drafts.delete", self._delete_draft),
            ("GET", f"{users}/messages", "messages.list", self._list),
            ("GET", users + "/messages/{id}", "messages.get", self._get_message),
            ("GET", users + "/threads/{id}", "threads.get", self._get_thread),
            ("GET", f"{users}/profile", "getProfile", self._profile),
        ):
            application.router.add_route(method, path, self._method(name, handler))
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self.context)
        await site.start()
        self.port = runner.addresses[0][1]
        started.set()
        await self._stop.wait()
        await hang_up(runner)

    def _method(self, name: str, handler: Any) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.asked[name] += 1
            interference = self.interfere(name, self.asked[name])
            if interference is Cut.BEFORE:
                return self._cut(request)
            if isinstance(interference, Answer):
                await request.read()
                return interference.response()
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            address = self.tokens.get(token) if scheme == "Bearer" else None
            if address is None:
                return Answer(401, "authError", "Invalid Credentials").response()
            if name in self.forbidden:
                return Answer(
                    403, "insufficientPermissions", "Request had insufficient authentication scopes."
                ).response()
            self.subjects.append(address)
            response: web.StreamResponse = await handler(request, self.account(address), address)
            return self._cut(request) if interference is Cut.AFTER else response

        return handle

    def _cut(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _create(self, request: web.Request, account: Account, address: str) -> web.Response:
        body = await request.read()
        if request.path.startswith("/upload"):
            if request.headers["Content-Type"] != "message/rfc822" or request.query.get("uploadType") != "media":
                return Answer(400, "badRequest", "Unsupported upload").response()
            content = body
        else:
            raw = json.loads(body)["message"]["raw"]
            content = base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))
        if not _recipients(message_from_bytes(content)):
            return Answer(400, "invalidArgument", "Recipient address required").response()
        message_id = self._new_id()
        draft_id = f"r-{self._new_id()}"
        account.drafts[draft_id] = Stored(message_id, message_id, content, ["DRAFT"])
        return web.json_response(
            {"id": draft_id, "message": {"id": message_id, "threadId": message_id, "labelIds": ["DRAFT"]}}
        )

    async def _send(self, request: web.Request, account: Account, address: str) -> web.Response:
        draft = account.drafts.pop((await request.json())["id"], None)
        if draft is None:
            return Answer(404, "notFound", "Requested entity was not found.").response()
        parsed = draft.parsed
        recipients = _recipients(parsed)
        content = _without_bcc(draft.content)
        message_id = self._new_id()
        if self.replaces_message_id:
            mail_id = f"<CA{message_id}@mail.gmail.com>".encode()
            content = content.replace(str(parsed["Message-ID"]).encode(), mail_id) if parsed["Message-ID"] else content
        account.messages[message_id] = Stored(
            message_id, draft.thread_id, content, ["SENT"], is_indexed=self.is_indexing
        )
        self.sent.append((recipients, content))
        return web.json_response({"id": message_id, "threadId": draft.thread_id, "labelIds": ["SENT"]})

    async def _get_draft(self, request: web.Request, account: Account, address: str) -> web.Response:
        draft = account.drafts.get(request.match_info["id"])
        if draft is None:
            return Answer(404, "notFound", "Requested entity was not found.").response()
        return web.json_response({"id": request.match_info["id"], "message": _shown(draft, request)})

    async def _delete_draft(self, request: web.Request, account: Account, address: str) -> web.Response:
        if account.drafts.pop(request.match_info["id"], None) is None:
            return Answer(404, "notFound", "Requested entity was not found.").response()
        return web.Response(status=204)

    async def _list(self, request: web.Request, account: Account, address: str) -> web.Response:
        key, _, wanted = request.query.get("q", "").partition(":")
        assert key == "rfc822msgid"
        labels = set(request.query.getall("labelIds", []))
        found = [
            {"id": each.id, "threadId": each.thread_id}
            for each in list(account.messages.values())  # the sink's thread adds to them
            if each.is_indexed
            and labels <= set(each.labels)
            and str(each.parsed["Message-ID"]).strip("<>") == wanted.strip("<>")
        ]
        return web.json_response({"messages": found, "resultSizeEstimate": len(found)} if found else {})

    async def _get_message(self, request: web.Request, account: Account, address: str) -> web.Response:
        found = account.messages.get(request.match_info["id"])
        if found is None:
            return Answer(404, "notFound", "Requested entity was not found.").response()
        return web.json_response(_shown(found, request))

    async def _get_thread(self, request: web.Request, account: Account, address: str) -> web.Response:
        wanted = request.match_info["id"]
        found = [each for each in [*account.messages.values(), *account.drafts.values()] if each.thread_id == wanted]
        if not found:
            return Answer(404, "notFound", "Requested entity was not found.").response()
        return web.json_response({"id": wanted, "messages": [_shown(each, request) for each in found]})

    async def _profile(self, request: web.Request, account: Account, address: str) -> web.Response:
        return web.json_response({"emailAddress": address, "messagesTotal": len(account.messages)})


def _recipients(parsed: Message) -> tuple[str, ...]:
    fields = [str(each) for name in ("To", "Cc", "Bcc") for each in parsed.get_all(name, [])]
    return tuple(dict.fromkeys(address.lower() for _, address in getaddresses(fields) if "@" in address))


def _without_bcc(content: bytes) -> bytes:
    header, separator, body = content.partition(b"\r\n\r\n")
    kept: list[bytes] = []
    is_bcc = False
    for line in header.split(b"\r\n"):
        is_bcc = line.lower().startswith(b"bcc:") or (is_bcc and line[:1] in b" \t")
        kept += [] if is_bcc else [line]
    return b"\r\n".join(kept) + separator + body


def _shown(stored: Stored, request: web.Request) -> dict[str, Any]:
    wanted = {each.lower() for each in request.query.getall("metadataHeaders", [])}
    headers = [{"name": name, "value": str(value)} for name, value in stored.parsed.items() if name.lower() in wanted]
    return {
        "id": stored.id,
        "threadId": stored.thread_id,
        "labelIds": stored.labels,
        "payload": {"headers": headers},
    }
