"""Finish a message at the attempt, when the mailbox and the upstream that send it are known.

A pool that may rewrite From: the sending mailbox's address takes the place of the one in From, the display name stays,
replies go to the old address. An upstream that does not keep a message as the queue stores it: relayd's stored
signatures give way to those that the upstream accepts. Either way the domain in From signs, and the queue keeps the
message as it is.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from relayd.errors import RelaydError
from relayd.intake.signer import Signer
from relayd.mail import author, headers, transfer_encoding
from relayd.mail.address import Address
from relayd.mail.headers import Prepared
from relayd.rules.known_hosts import Dkim, Signing
from relayd.seal import SealError
from relayd.store import directory
from relayd.store.directory import SendingDomain
from relayd.store.pool import Database
from relayd.store.timed_cache import TimedCache


class Rewriter:
    """Writes From and signs. Mailboxes and domains are known as they were a second ago."""

    def __init__(self, database: Database, signer: Signer, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._signer = signer
        self._now = now
        self._mailboxes: TimedCache[UUID, Address | None] = TimedCache(self._load_mailbox)
        self._domains: TimedCache[str, SendingDomain | None] = TimedCache(self._load_domain)

    async def finish(
        self, content: bytes, *, client_id: UUID, mailbox_id: UUID, rewrites_from: bool, signing: Signing
    ) -> bytes:
        """The bytes that this client's mailbox sends to such an upstream. Raises RelaydError where it cannot be signed.

        With `rewrites_from` the content is stored without relayd's signatures.
        """
        try:
            prepared = headers.without_signatures(content, headers.scan(content), own_only=signing.dkim is Dkim.ALL)
            if rewrites_from:
                prepared = await self._rewritten(prepared, mailbox_id)
            if signing.dkim is Dkim.NONE:
                return prepared.content
            name = author.sole_author(prepared.scan).ascii_domain
            domain = await self._domains.get(name)
            if domain is None or domain.client_id != client_id:
                raise RelaydError(f"the message's client has no domain {name}")
            return await self._signer.sign_for(signing, domain, *prepared, self._now())
        except (SealError, ValueError) as error:
            raise RelaydError(str(error)) from None

    async def _rewritten(self, prepared: Prepared, mailbox_id: UUID) -> Prepared:
        content, scan = prepared
        address = await self._mailboxes.get(mailbox_id)
        if address is None:
            raise RelaydError("the mailbox that was to send it is gone")
        written = scan.first(b"From")
        value = author.with_address(written.value, address) if written else str(address).encode()
        # The stored field may have been folded; this one is not.
        if len(b"From: " + value) > transfer_encoding.MAX_LINE_OCTETS:
            value = str(address).encode()
        return transfer_encoding.fold(headers.with_author(content, scan, value))

    async def _load_mailbox(self, mailbox_id: UUID) -> Address | None:
        async with self._database.connection() as connection:
            return await directory.find_address(connection, mailbox_id)

    async def _load_domain(self, name: str) -> SendingDomain | None:
        async with self._database.connection() as connection:
            return await directory.find_domain(connection, name)
