"""Read an inbox by IMAP (RFC 3501), in a thread: EXAMINE and BODY.PEEK, so that nothing in it ever changes.

What lay there before the first look is left alone. Where the server has given new numbers (UIDVALIDITY), what came
since the last look is looked at again.
"""

import asyncio
import hashlib
import imaplib
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from relayd.inbox.bounded_imap import BoundedImap, BoundedImapTls
from relayd.inbox.reading import Fresh, InboxError, Position, Unreadable
from relayd.mail.encoded_words import printable
from relayd.upstream.redaction import redacted, spellings

HEADER_OCTETS = 65_536

T = TypeVar("T")
_Client = BoundedImap | BoundedImapTls

_UID = re.compile(rb"\bUID (\d{1,10})\b")
_SHOWN_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class ImapSettings:
    """Where and as whom. The certificate is always verified, by the system's authorities or those of `ca_file`."""

    host: str
    port: int
    tls: Literal["implicit", "starttls"]
    username: str
    password: str = field(repr=False)
    folder: str = "INBOX"
    ca_file: str | None = None
    timeout_seconds: float = 30.0
    # For one message's header, however the server spreads its octets.
    header_seconds: float = 30.0

    @property
    def place(self) -> str:
        """A short name for the folder: the numbers in it may be another's, too."""
        named = f"{self.username}\n{self.host}\n{self.port}\n{self.folder}"
        return hashlib.sha256(named.encode()).hexdigest()[:12]


class ImapInbox:
    """An opened folder. `position` is where the last look ended. A connection that is lost is opened anew."""

    def __init__(
        self, settings: ImapSettings, client: _Client, uid_validity: int, uid_next: int, position: Position
    ) -> None:
        self._settings = settings
        self._client: _Client | None = client
        self._uid_validity = uid_validity
        self._uid_next = uid_next
        self._position = position
        self._uids: deque[int] | None = None  # those of this look, the oldest first
        self._last_uid = 0

    @classmethod
    async def open(cls, settings: ImapSettings, position: Position) -> "ImapInbox":
        """Connect, log in, look. Raises InboxError."""
        return await _in_thread(settings, lambda: cls(settings, *_opened(settings), position))

    async def fresh(self, most: int) -> tuple[list[Fresh], Position | None]:
        """As Inbox has it."""
        before = self._position
        now = datetime.now(UTC)
        if before.last_uid is None:
            return [], Position(self._uid_validity, self._uid_next - 1, now)
        client = await self._connected()
        if self._uids is None:
            self._uids = deque(await self._ask(client, lambda: self._new_uids(client, before, now)))
            self._last_uid = max(self._uid_next - 1, *(self._uids or [0]))
        found: list[Fresh] = []
        while self._uids and len(found) < most:
            uid = self._uids.popleft()
            position = Position(self._uid_validity, uid, before.read_to if self._uids else now)
            key = f"{self._uid_validity}/{uid}/{self._settings.place}"
            try:
                header = await self._header(client, uid)
            except InboxError as error:
                if found:
                    # These first, so that they are done with whatever becomes of that one.
                    self._uids.appendleft(uid)
                    break
                raise Unreadable(Fresh(key, b"", position), str(error)) from None
            found.append(Fresh(key, (header or b"")[:HEADER_OCTETS], position))
        return found, None if self._uids else Position(self._uid_validity, self._last_uid, now)

    async def whole(self, message: Fresh, most_octets: int) -> bytes:
        """As Inbox has it."""
        uid = message.position.last_uid
        assert uid is not None
        client = await self._connected()
        try:
            content = await self._ask(client, lambda: _fetch(client, uid, "BODY.PEEK[]", most_octets))
        except InboxError as error:
            raise Unreadable(message, str(error)) from None
        return (content or b"")[:most_octets]

    async def close(self) -> None:
        """As Inbox has it."""
        client = self._client
        if client is not None:
            with suppress(InboxError):
                await self._ask(client, lambda: client.logout())

    async def _header(self, client: _Client, uid: int) -> bytes | None:
        seconds = self._settings.header_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(client, lambda: _fetch(client, uid, "BODY.PEEK[HEADER]", HEADER_OCTETS))
        except TimeoutError:
            raise InboxError(f"the IMAP server has not given its header within {seconds:.0f} s") from None

    async def _connected(self) -> _Client:
        """The connection, another one where it was lost. Raises InboxError."""
        if self._client is None:
            client, uid_validity, _ = await _in_thread(self._settings, lambda: _opened(self._settings))
            if uid_validity != self._uid_validity:
                _close(client)
                raise InboxError("the IMAP server has given new numbers (UIDVALIDITY); the next look goes by them")
            self._client = client
        return self._client

    async def _ask(self, client: _Client, work: Callable[[], T]) -> T:
        """Whoever waits no more leaves no thread on a connection that another would use."""

        def closing_what_is_lost() -> T:
            try:
                return work()
            except (imaplib.IMAP4.abort, OSError):
                _close(client)
                raise

        try:
            return await _in_thread(self._settings, closing_what_is_lost)
        except (asyncio.CancelledError, _Lost):
            self._client = None
            # Not by the TLS layer, which would take its state from under who reads there, and now finds the end.
            with suppress(OSError):
                socket.socket.shutdown(client.socket(), socket.SHUT_RDWR)
            raise

    def _new_uids(self, client: _Client, before: Position, now: datetime) -> list[int]:
        assert before.last_uid is not None
        if before.uid_validity == self._uid_validity:
            return [uid for uid in _search(client, f"UID {before.last_uid + 1}:*") if uid > before.last_uid]
        day = (before.read_to or now) - timedelta(days=1)
        return _search(client, f"SINCE {day.day}-{_MONTHS[day.month - 1]}-{day.year}")


class _Lost(InboxError):
    """The connection serves no more."""


def _search(client: _Client, criterion: str) -> list[int]:
    data = _checked(client.uid("SEARCH", criterion))
    words = b" ".join(each for each in data if isinstance(each, bytes)).split()
    return sorted({int(word) for word in words if word.isdigit()})


def _fetch(client: _Client, uid: int, item: str, most_octets: int) -> bytes | None:
    with client.fetching(most_octets):
        data = _checked(client.uid("FETCH", str(uid), f"(UID {item}<0.{most_octets}>)"))
    for index, each in enumerate(data):
        if isinstance(each, tuple):
            # The UID may stand before the content or behind it.
            after = data[index + 1] if index + 1 < len(data) and isinstance(data[index + 1], bytes) else b""
            told = _UID.search(each[0]) or _UID.search(after)
            if told is None or int(told.group(1)) == uid:
                content: bytes = each[1]
                return content
    return None  # removed in the meantime


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _opened(settings: ImapSettings) -> tuple[_Client, int, int]:
    context = _context(settings)
    client: _Client
    if settings.tls == "implicit":
        client = BoundedImapTls(settings.host, settings.port, ssl_context=context, timeout=settings.timeout_seconds)
    else:
        client = BoundedImap(settings.host, settings.port, timeout=settings.timeout_seconds)
    try:
        if settings.tls == "starttls":
            client.starttls(context)
        _log_in(client, settings)
        _checked(client.select(_quoted(settings.folder), readonly=True))
        uid_validity, uid_next = _number(client, "UIDVALIDITY"), _number(client, "UIDNEXT")
        if uid_validity is None or uid_next is None:
            raise InboxError("the IMAP server tells no UIDVALIDITY and UIDNEXT; relayd cannot read it")
    except BaseException:
        _close(client)
        raise
    return client, uid_validity, uid_next


def _close(client: _Client) -> None:
    with suppress(Exception):
        client.shutdown()


def _context(settings: ImapSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise InboxError(f"the CA file {settings.ca_file} cannot be used: {error.strerror}") from None


def _log_in(client: _Client, settings: ImapSettings) -> None:
    try:
        if "AUTH=PLAIN" in client.capabilities:
            secret = f"\0{settings.username}\0{settings.password}".encode()
            client.authenticate("PLAIN", lambda _: secret)
        else:
            # imaplib quotes the password, and not the name.
            client.login(_quoted(settings.username), settings.password)
    except (imaplib.IMAP4.error, UnicodeEncodeError) as error:
        if isinstance(error, imaplib.IMAP4.abort):
            raise
        raise InboxError(
            f"the IMAP server refuses the login of {settings.username}; "
            "give its password again: relayd mailbox set ADDRESS --reports-password-file FILE; "
            f"it says: {_told(error)}"
        ) from None


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _number(client: _Client, name: str) -> int | None:
    _, data = client.response(name)
    word = data[-1] if data else None
    return int(word) if isinstance(word, bytes) and word.isdigit() else None


def _checked(answer: tuple[str, list[Any]]) -> list[Any]:
    kind, data = answer
    if kind != "OK":
        text = data[0].decode("ascii", "replace") if data and isinstance(data[0], bytes) else kind
        raise InboxError(f"the IMAP server refuses: {text}")
    return data


def _told(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode("ascii", "replace") if isinstance(told, bytes) else str(told)


def _text_of(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else _told(error)
    return f"the IMAP server cannot be used: {text or type(error).__name__}"


async def _in_thread(settings: ImapSettings, work: Callable[[], T]) -> T:
    """Whatever goes wrong in imaplib becomes an InboxError, without what the server repeats of the login."""
    try:
        return await asyncio.to_thread(work)
    except InboxError as error:
        raise InboxError(_shown(settings, str(error))) from None
    except ssl.SSLCertVerificationError as error:
        raise InboxError(
            f"the IMAP server's certificate is not to be trusted: {error.verify_message}; "
            "mend the host name, or name its CA: --reports-ca-file"
        ) from None
    except (imaplib.IMAP4.error, OSError, ValueError) as error:
        is_lost = isinstance(error, (imaplib.IMAP4.abort, OSError))
        raise (_Lost if is_lost else InboxError)(_shown(settings, _text_of(error))) from None


def _shown(settings: ImapSettings, text: str) -> str:
    """A server's words for log and listing. Cut off behind the masking: half of a password is one, too."""
    text = redacted(text, spellings(_secrets(settings)))
    return printable(text.encode("utf-8", "replace"), _SHOWN_CHARACTERS)


def _secrets(settings: ImapSettings) -> list[str]:
    """All that was said to log in, as it is spelled, as IMAP quotes it, and as imaplib shows a line of octets."""
    plain = f"\0{settings.username}\0{settings.password}"
    said = [settings.password, _quoted(settings.password)[1:-1], plain]
    shown = [repr(each.encode())[2:-1] for each in said]
    # A line with both kinds of quotes is shown with the single ones escaped.
    return [*said, *shown, *(repr(b"'\"" + each.encode())[5:-1] for each in said)]
