"""Open a mailbox's inbox as its record says."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal, cast

from relayd.inbox.gmail import GmailInbox
from relayd.inbox.imap import ImapInbox, ImapSettings
from relayd.inbox.reading import Inbox, InboxError, Position
from relayd.seal import Seal, SealError
from relayd.store.inboxes import InboxRecord
from relayd.upstream.http import HttpClient
from relayd.upstream.tokens import TokenSource

# The tokens that a mailbox's Gmail is read with; None where its upstream has no grant.
Tokens = Callable[[InboxRecord], Awaitable[TokenSource | None]]


async def no_tokens(record: InboxRecord) -> TokenSource | None:
    """Where nobody gives any."""
    return None


class Inboxes:
    """By IMAP with its own password, by the Gmail API with its upstream's grant."""

    def __init__(self, seal: Seal, tokens: Tokens = no_tokens) -> None:
        self._seal = seal
        self._tokens = tokens

    async def open(self, record: InboxRecord) -> Inbox:
        """Connected and logged in. Raises InboxError."""
        position = Position(record.uid_validity, record.last_uid, record.read_to)
        if record.kind == "gmail_api":
            tokens = await self._tokens(record)
            if tokens is None:
                raise InboxError("there is no grant to read this account with: relayd upstream login NAME")
            http = HttpClient(max_connections=2)
            return GmailInbox(http, tokens, position, now=datetime.now(UTC), account=record.email_address)
        return await ImapInbox.open(self._settings(record), position)

    def _settings(self, record: InboxRecord) -> ImapSettings:
        assert record.imap_host and record.imap_port and record.imap_username and record.imap_password_sealed
        try:
            password = self._seal.open(record.imap_password_sealed, row=record.seal_row).decode()
        except SealError as error:
            raise InboxError(str(error)) from None
        return ImapSettings(
            host=record.imap_host,
            port=record.imap_port,
            tls=cast(Literal["implicit", "starttls"], record.imap_tls),
            username=record.imap_username,
            password=password,
            folder=record.imap_folder or "INBOX",
            ca_file=record.imap_ca_file,
        )
