"""Ask Gmail what became of an attempt in doubt: by its draft, or by the Message-ID of what was handed in by SMTP."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from relayd.rules.doubt import Seen, Sight
from relayd.upstream.gmail import Gmail, GmailSettings, draft_path
from relayd.upstream.gmail_content import MARK
from relayd.upstream.gmail_reference import Reference
from relayd.upstream.gmail_verdict import json_object
from relayd.upstream.http import HttpFailure, HttpReply
from relayd.upstream.tokens import GrantDead, TokenUnavailable
from relayd.upstream.verdict import MAX_PROVIDER_ID_CHARACTERS, clean, judge_exception

# What a search can be given without being read as something else.
_MESSAGE_ID = re.compile(r"<([!#-'*+./0-9=?A-Z^_`a-z|~-]+@[!#-'*+./0-9=?A-Z^_`a-z|~\[\]:-]+)>")
_METADATA = {"format": "metadata", "metadataHeaders": MARK}


class _Unseen(Exception):
    """No look took place."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen.text)
        self.seen = seen


class GmailLook:
    """Looks for attempts of one upstream. `close` when done."""

    def __init__(self, settings: GmailSettings) -> None:
        self._gmail = Gmail(settings)

    async def by_reference(self, reference_text: str | None, message_id: str, mailbox: str) -> Seen:
        """Of an attempt by the API. A draft that is still there is removed: then it cannot be sent any more."""
        if reference_text is None:
            return Seen(Sight.NOT_SENT, "Gmail was not told to send it")
        reference = Reference.parse(reference_text)
        if reference is None:
            return Seen(Sight.UNKNOWABLE, "the reference that was kept cannot be read")
        if reference.is_refused:
            return Seen(Sight.NOT_SENT, "Gmail had refused to send it")
        try:
            return await self._by_draft(reference, message_id, self._gmail.subject(mailbox))
        except _Unseen as unseen:
            return unseen.seen

    async def by_message_id(self, message_id: str, mailbox: str) -> Seen:
        """Of an attempt by SMTP, among what was sent."""
        match = _MESSAGE_ID.fullmatch(message_id)
        if match is None:
            return Seen(Sight.UNKNOWABLE, "its Message-ID is none that Gmail can be asked about")
        try:
            found = await self._search(match.group(1), self._gmail.subject(mailbox))
        except _Unseen as unseen:
            return unseen.seen
        if not found:
            return Seen(Sight.ABSENT, "Gmail finds no sent message with its Message-ID")
        return _sent("Gmail has a sent message with its Message-ID", found[0])

    async def close(self) -> None:
        """Close every connection."""
        await self._gmail.close()

    async def _by_draft(self, reference: Reference, message_id: str, subject: str | None) -> Seen:
        removed = await self._ask("DELETE", draft_path(reference.draft_id), subject)
        if removed.status == 204 or (removed.status == 200 and removed.content.strip() in (b"", b"{}")):
            return Seen(Sight.NOT_SENT, "its draft was still there, and has been removed")
        if removed.status != 404:
            return _unexpected("drafts.delete", removed)
        # Gmail removes a draft that it sends. So may a person, and so has a look whose answer was lost: only the
        # message itself proves that it went.
        if reference.thread_id:
            thread = await self._ask("GET", f"threads/{reference.thread_id}", subject, _METADATA)
            said = _read("threads.get", thread) if thread.status != 404 else {}
            for message in _objects(said, "messages"):
                if _is_ours(message, reference.mark):
                    return _sent("its draft is gone, and the sent message is there", message)
        return await self._elsewhere(reference, message_id, subject)

    async def _elsewhere(self, reference: Reference, message_id: str, subject: str | None) -> Seen:
        """Among all that was sent, should it have come into another thread."""
        absent = Seen(Sight.ABSENT, "its draft is gone, and no sent message is there")
        match = _MESSAGE_ID.fullmatch(message_id)
        if match is None:
            return absent
        for each in await self._search(match.group(1), subject):
            path = f"messages/{quote(str(each.get('id')), safe='')}"
            reply = await self._ask("GET", path, subject, _METADATA)
            message = _read("messages.get", reply) if reply.status != 404 else {}
            if _is_ours(message, reference.mark):
                return _sent("its draft is gone, and the sent message is there", message)
        return absent

    async def _search(self, message_id: str, subject: str | None) -> list[dict[str, Any]]:
        """The sent messages of that id. Raises _Unseen: what could not be looked for is not absent."""
        query = {"q": f"rfc822msgid:{message_id}", "labelIds": "SENT", "maxResults": 5}
        reply = await self._ask("GET", "messages", subject, query)
        return _objects(_read("messages.list", reply), "messages")

    async def _ask(self, method: str, path: str, subject: str | None, query: dict[str, Any] | None = None) -> HttpReply:
        try:
            return await self._gmail.ask(method, path, subject, query=query)
        except HttpFailure as failure:
            text = judge_exception(failure.stage, failure.error).cause.text
            raise _Unseen(Seen(Sight.UNREACHABLE, f"Gmail's API cannot be asked: {text}")) from None
        except (GrantDead, TokenUnavailable, OSError) as error:
            raise _Unseen(Seen(Sight.UNREACHABLE, clean(f"Gmail's API cannot be asked: {error}"))) from None


def _read(what: str, reply: HttpReply) -> dict[str, Any]:
    """What a success says. Raises _Unseen."""
    said = json_object(reply.content) if reply.status == 200 else None
    if said is None:
        raise _Unseen(_unexpected(what, reply))
    return said


def _unexpected(what: str, reply: HttpReply) -> Seen:
    """403 is for good where it is not a rate; all else may pass."""
    error = (json_object(reply.content) or {}).get("error")
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    if reply.status == 200:
        message = "and no answer that can be read"
    text = clean(f"{what}: HTTP {reply.status} {message}")
    is_final = reply.status == 400 or (reply.status == 403 and "limit" not in message.lower())
    return Seen(Sight.UNKNOWABLE if is_final else Sight.UNREACHABLE, text)


def _is_ours(message: Mapping[str, Any], mark: str) -> bool:
    labels = message.get("labelIds")
    return isinstance(labels, list) and "SENT" in labels and mark in _marks(message)


def _sent(text: str, message: Mapping[str, Any]) -> Seen:
    message_id = str(message.get("id") or "")[:MAX_PROVIDER_ID_CHARACTERS] or None
    return Seen(Sight.SENT, text, message_id)


def _marks(message: Mapping[str, Any]) -> list[str]:
    payload = message.get("payload")
    fields = _objects(payload, "headers") if isinstance(payload, dict) else []
    return [str(each.get("value")) for each in fields if str(each.get("name", "")).lower() == MARK.lower()]


def _objects(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Raises _Unseen where they cannot be read: that is not the same as none."""
    listed = value.get(name, [])
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise _Unseen(Seen(Sight.UNREACHABLE, f"Gmail's API gives {name} that cannot be read"))
    return listed
