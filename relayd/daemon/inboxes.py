"""Open a mailbox's inbox as its record says."""

import asyncio
import ssl
from datetime import UTC, datetime
from typing import Literal, cast

from relayd.daemon.gmail import Tokens
from relayd.errors import RelaydError
from relayd.inbox.gmail import GmailInbox
from relayd.inbox.imap import ImapInbox, ImapSettings
from relayd.inbox.reading import Inbox, InboxError, Position
from relayd.seal import Seal, SealError
from relayd.store import inboxes, upstreams
from relayd.store.inboxes import InboxRecord
from relayd.store.pool import Database
from relayd.upstream.http import HttpClient


class Inboxes:
    """By IMAP with its own password, by the Gmail API with its upstream's grant."""

    def __init__(self, database: Database, seal: Seal, tokens: Tokens) -> None:
        self._database = database
        self._seal = seal
        self._tokens = tokens

    async def open(self, record: InboxRecord) -> Inbox:
        """Connected and logged in. Raises InboxError, StoreUnavailable."""
        position = Position(record.uid_validity, record.last_uid, record.read_to)
        if record.kind == "gmail_api":
            return await self._open_gmail(record, position)
        return await ImapInbox.open(self._settings(record), position)

    async def _open_gmail(self, record: InboxRecord, position: Position) -> GmailInbox:
        async with self._database.connection() as connection:
            upstream_id = await inboxes.upstream_of(connection, record.mailbox_id)
            found = [each for each in await upstreams.living(connection) if each.id == upstream_id]
        if not found or found[0].provider_type != "google_workspace":
            raise InboxError(
                "Gmail is read with the grant of the mailbox's upstream, which is none of google_workspace"
            )
        upstream = found[0]
        is_one_account = upstream.google_service_account_sealed is None
        if is_one_account and (upstream.oauth_account or "").lower() != record.email_address.lower():
            raise InboxError(
                f"upstream {upstream.name} has no grant for this account: relayd upstream login {upstream.name}, as it"
            )
        try:
            tokens = self._tokens(upstream)
        except (SealError, RelaydError) as error:
            raise InboxError(str(error)) from None
        http = HttpClient(max_connections=2, tls=await asyncio.to_thread(_tls, upstream.smtp_ca_file))
        return GmailInbox(
            http,
            tokens,
            position,
            now=datetime.now(UTC),
            account=record.email_address,
            api_url=upstream.api_url if upstream.mode == "gmail_api" else None,
        )

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


def _tls(ca_file: str | None) -> ssl.SSLContext | None:
    try:
        return None if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise InboxError(f"ca_file {ca_file} cannot be used: {error.strerror or error}") from None
