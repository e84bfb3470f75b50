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
            reply = await self._search(match.group(1), self._gmail.subject(mailbox))
        except _Unseen as unseen:
            return unseen.seen
        if reply.status != 200:
            return _unexpected("messages.list", reply)
        found = _objects(json_object(reply.content), "messages")
        if not found:
            return Seen(Sight.ABSENT, "Gmail finds no sent message with its Message-ID")
        return _sent("Gmail has a sent message with its Message-ID", found[0])

    async def close(self) -> None:
        """Close every connection."""
        await self._gmail.close()

    async def _by_draft(self, reference: Reference, message_id: str, subject: str | None) -> Seen:
        removed = await self._ask("DELETE", draft_path(reference.draft_id), subject)
        if removed.status in (200, 204):
            return Seen(Sight.NOT_SENT, "its draft was still there, and has been removed")
        if removed.status != 404:
            return _unexpected("drafts.delete", removed)
        # Gmail removes a draft that it sends. So may a person, and so has a look whose answer was lost: only the
        # message itself proves that it went.
        if reference.thread_id:
            thread = await self._ask("GET", f"threads/{reference.thread_id}", subject, _METADATA)
            if thread.status not in (200, 404):
                return _unexpected("threads.get", thread)
            for message in _objects(json_object(thread.content), "messages"):
                if _is_ours(message, reference.mark):
                    return _sent("its draft is gone, and the sent message is there", message)
        return await self._elsewhere(reference, message_id, subject)

    async def _elsewhere(self, reference: Reference, message_id: str, subject: str | None) -> Seen:
        """Among all that was sent, should it have come into another thread."""
        absent = Seen(Sight.ABSENT, "its draft is gone, and no sent message is there")
        match = _MESSAGE_ID.fullmatch(message_id)
        if match is None:
            return absent
        found = await self._search(match.group(1), subject)
        if found.status != 200:
            # What could not be looked for is not absent.
            return _unexpected("messages.list", found)
        for each in _objects(json_object(found.content), "messages"):
            path = f"messages/{quote(str(each.get('id')), safe='')}"
            reply = await self._ask("GET", path, subject, _METADATA)
            if reply.status not in (200, 404):
                return _unexpected("messages.get", reply)
            message = json_object(reply.content)
            if _is_ours(message, reference.mark):
                return _sent("its draft is gone, and the sent message is there", message)
        return absent

    async def _search(self, message_id: str, subject: str | None) -> HttpReply:
        query = {"q": f"rfc822msgid:{message_id}", "labelIds": "SENT", "maxResults": 5}
        return await self._ask("GET", "messages", subject, query)

    async def _ask(self, method: str, path: str, subject: str | None, query: dict[str, Any] | None = None) -> HttpReply:
        try:
            return await self._gmail.ask(method, path, subject, query=query)
        except HttpFailure as failure:
            text = judge_exception(failure.stage, failure.error).cause.text
            raise _Unseen(Seen(Sight.UNREACHABLE, f"Gmail's API cannot be asked: {text}")) from None
        except (GrantDead, TokenUnavailable, OSError) as error:
            raise _Unseen(Seen(Sight.UNREACHABLE, clean(f"Gmail's API cannot be asked: {error}"))) from None


def _unexpected(what: str, reply: HttpReply) -> Seen:
    """403 is for good where it is not a rate; all else may pass."""
    error = json_object(reply.content).get("error")
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    text = clean(f"{what}: HTTP {reply.status} {message}")
    is_final = reply.status == 400 or (reply.status == 403 and "limit" not in message.lower())
    return Seen(Sight.UNKNOWABLE if is_final else Sight.UNREACHABLE, text)


def _is_ours(message: Mapping[str, Any], mark: str) -> bool:
    return "SENT" in (message.get("labelIds") or ()) and mark in _marks(message)


def _sent(text: str, message: Mapping[str, Any]) -> Seen:
    message_id = str(message.get("id") or "")[:MAX_PROVIDER_ID_CHARACTERS] or None
    return Seen(Sight.SENT, text, message_id)


def _marks(message: Mapping[str, Any]) -> list[str]:
    payload = message.get("payload")
    fields = _objects(payload, "headers") if isinstance(payload, dict) else []
    return [str(each.get("value")) for each in fields if str(each.get("name", "")).lower() == MARK.lower()]


def _objects(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    listed = value.get(name)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
