"""Whether a client may send as somebody: header From picks the mailbox, the envelope must be the client's own.

A pool that the message, its credential or its domain names takes the place of From's mailbox; From stays as it is.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from relayd.intake.instructions import Instructions
from relayd.intake.pools import Pools
from relayd.intake.submission import Identity
from relayd.mail.address import Address
from relayd.mail.auto_reply import is_read_receipt
from relayd.mail.headers import HeaderScan
from relayd.mail.reply import Reply
from relayd.rules.mail_class import MailClass, mail_class
from relayd.store import directory
from relayd.store.directory import SendingDomain, SendingMailbox
from relayd.store.pool import Database
from relayd.store.timed_cache import TimedCache

Provision = Callable[[Identity, Address], Awaitable[None]]

SHOWN_SENDERS = 5


@dataclass(frozen=True, slots=True)
class Way:
    """How a message leaves: from which mailbox, as which class. `domain`, that of header From, signs.

    `pool_id`: the pool whose members may take the mailbox's place as long as the message waits. `rewrites_from`: under
    their own addresses, so that it is signed when one sends it.
    """

    mailbox: SendingMailbox
    mail_class: MailClass
    domain: SendingDomain
    pool_id: UUID | None = None
    rewrites_from: bool = False


class Senders:
    """Answers from the database, each at most a second old.

    `provision` (development mode) makes what is missing; it is None where unknown senders are refused.
    """

    def __init__(self, database: Database, provision: Provision | None = None) -> None:
        self._database = database
        self._provision = provision
        self._domains: TimedCache[str, SendingDomain | None] = TimedCache(self._load_domain)
        self._mailboxes: TimedCache[Address, SendingMailbox | None] = TimedCache(self._load_mailbox)
        self._pools = Pools(database)

    async def check_reverse_path(self, identity: Identity, reverse_path: Address | None) -> Reply | None:
        """None if the identity may use this envelope sender, else the refusal. Raises StoreUnavailable.

        Whether it may use the null reverse-path depends on the message: `check_null_reverse_path`.
        """
        if reverse_path is None:
            return None
        return await self.check_named(identity, reverse_path, "reverse-path")

    async def check_named(self, identity: Identity, address: Address, what: str) -> Reply | None:
        """None if the identity may name itself so; `what` is for the refusal. Raises StoreUnavailable."""
        domain = await self._domains.get(address.ascii_domain)
        if domain is None and self._provision and identity.may_use(address):
            await self._provision(identity, address)
            self._domains.forget(address.ascii_domain)
            domain = await self._domains.get(address.ascii_domain)
        if domain is None or domain.client_id != identity.client.id or not identity.may_use(address):
            return await self._refusal(identity, address, what)
        if not domain.may_send:
            return Reply(550, "5.7.1", f"Domain {domain.domain} is suspended")
        return None

    def check_null_reverse_path(self, identity: Identity, scan: HeaderScan) -> Reply | None:
        """None if this identity may send this with `<>`, else the refusal. Read receipts need it (RFC 8098 3)."""
        if identity.client.may_send_bounces or is_read_receipt(scan):
            return None
        name = identity.client.name
        return Reply(
            550,
            "5.7.1",
            f"Client {name} may use the null reverse-path <> only for read receipts (multipart/report; "
            f"report-type=disposition-notification). For bounces: relayd client set {name} --may-send-bounces",
        )

    async def way_for(
        self, identity: Identity, author: Address, asked: Instructions, *, recipients: int
    ) -> Way | Reply:
        """How a message of this header From leaves, or the refusal. Raises StoreUnavailable."""
        pool_id = await self._pool_for(identity, author, asked)
        if isinstance(pool_id, Reply):
            return pool_id
        if pool_id is not None:
            return await self._way_by_pool(identity, author, pool_id, asked.mail_class, recipients)
        mailbox = await self.mailbox_for(identity, author)
        if isinstance(mailbox, Reply):
            return mailbox
        chosen = mail_class(asked=asked.mail_class, credential=identity.mail_class, mailbox=mailbox.mail_class)
        return Way(mailbox, chosen, mailbox.domain)

    async def mailbox_for(self, identity: Identity, author: Address) -> SendingMailbox | Reply:
        """The mailbox that sends for this header From, or the refusal. Raises StoreUnavailable."""
        mailbox = await self._mailboxes.get(author)
        if mailbox is None and self._provision and identity.may_use(author):
            await self._provision(identity, author)
            self._mailboxes.forget(author)
            mailbox = await self._mailboxes.get(author)
        if mailbox is None or mailbox.client_id != identity.client.id or not identity.may_use(author):
            return await self._refusal(identity, author, "From")
        if mailbox.refuses:
            return Reply(550, "5.7.1", f"{author.plain}: {mailbox.refuses}")
        return mailbox

    async def _pool_for(self, identity: Identity, author: Address, asked: Instructions) -> UUID | Reply | None:
        """The pool that the message names, else its credential, else, without a mailbox of its own, its domain."""
        if asked.pool is not None:
            return await self._pools.named(identity, asked.pool)
        if identity.pool_id is not None:
            return identity.pool_id
        mailbox = await self._mailboxes.get(author)
        if mailbox is not None:
            return mailbox.domain.default_pool_id if mailbox.stands_in else None
        domain = await self._domains.get(author.ascii_domain)
        return domain.default_pool_id if domain else None

    async def _way_by_pool(
        self, identity: Identity, author: Address, pool_id: UUID, asked: MailClass | None, recipients: int
    ) -> Way | Reply:
        # From is signed for and read by people as before: who may use it does not depend on who sends.
        domain = await self._domains.get(author.ascii_domain)
        if domain is None or domain.client_id != identity.client.id or not identity.may_use(author):
            return await self._refusal(identity, author, "From")
        own = await self._mailboxes.get(author)
        if own is not None and own.refuses and not own.stands_in:
            return Reply(550, "5.7.1", f"{author.plain}: {own.refuses}")
        if not domain.may_send:
            return Reply(550, "5.7.1", f"Domain {domain.domain} is suspended")
        chosen = await self._pools.choose(identity, pool_id, asked, units=recipients)
        if isinstance(chosen, Reply):
            return chosen
        return Way(chosen.mailbox, chosen.mail_class, domain, pool_id, chosen.rewrites_from)

    async def _refusal(self, identity: Identity, address: Address, what: str) -> Reply:
        if identity.senders is not None:
            allowed = list(identity.senders)
        else:
            async with self._database.connection() as connection:
                allowed = await directory.senders_of(connection, identity.client.id, SHOWN_SENDERS + 1)
        shown = ", ".join(allowed[:SHOWN_SENDERS]) + (", ..." if len(allowed) > SHOWN_SENDERS else "")
        return Reply(550, "5.7.1", f"{what} <{address.plain}> is not allowed; allowed: {shown or 'nothing yet'}")

    async def _load_domain(self, name: str) -> SendingDomain | None:
        async with self._database.connection() as connection:
            return await directory.find_domain(connection, name)

    async def _load_mailbox(self, author: Address) -> SendingMailbox | None:
        async with self._database.connection() as connection:
            return await directory.find_mailbox(connection, author)
