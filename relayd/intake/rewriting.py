"""Finish a message of a pool that may rewrite From, at the attempt: only then is known which mailbox sends it.

The sending mailbox's address takes the place of the one in From, the display name stays, replies go where they went,
and the mailbox's domain signs. What is stored stays as it was.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from relayd.errors import RelaydError
from relayd.intake.signer import Signer
from relayd.mail import author, headers
from relayd.mail.address import Address
from relayd.seal import SealError
from relayd.store import directory
from relayd.store.directory import SendingDomain
from relayd.store.pool import Database
from relayd.store.timed_cache import TimedCache

# RFC 5322 2.1.1: a line without its CRLF. The stored field may have been folded; this one is not.
MAX_LINE_OCTETS = 998


class Rewriter:
    """Writes From and signs. Mailboxes are known as they were a second ago."""

    def __init__(self, database: Database, signer: Signer, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._signer = signer
        self._now = now
        self._mailboxes: TimedCache[UUID, tuple[Address, SendingDomain] | None] = TimedCache(self._load)

    async def finish(self, content: bytes, mailbox_id: UUID) -> bytes:
        """The bytes that this mailbox sends. Raises RelaydError where it cannot be signed now."""
        found = await self._mailboxes.get(mailbox_id)
        if found is None:
            raise RelaydError("the mailbox that was to send it is gone")
        address, domain = found
        scan = headers.scan(content)
        written = scan.first(b"From")
        value = author.with_address(written.value, address) if written else str(address).encode()
        if len(b"From: " + value) > MAX_LINE_OCTETS:
            value = str(address).encode()
        prepared = headers.with_author(content, scan, value)
        try:
            return await self._signer.sign(domain, prepared.content, prepared.scan, self._now())
        except SealError as error:
            raise RelaydError(str(error)) from None

    async def _load(self, mailbox_id: UUID) -> tuple[Address, SendingDomain] | None:
        async with self._database.connection() as connection:
            return await directory.find_address(connection, mailbox_id)
