"""The addresses to which bounces come back: given to what is sent, recognised in what comes in."""

from dataclasses import dataclass
from uuid import UUID

from relayd.errors import StoreUnavailable
from relayd.mail import return_path
from relayd.mail.address import Address
from relayd.seal import Seal
from relayd.store import bounce_domains
from relayd.store.bounce_domains import BounceDomain
from relayd.store.pool import Database
from relayd.store.timed_cache import TimedCache

PURPOSE = "return paths"
# Where feedback loops, and people, write to.
ROLES = frozenset({"fbl", "postmaster", "abuse"})


@dataclass(frozen=True, slots=True)
class ReportAddress:
    """An address of a bounce domain that takes reports. `subject`: the entry or message that it was made for."""

    domain: BounceDomain
    forward_path: Address
    subject: UUID | None

    @property
    def meaning(self) -> tuple[str, UUID | str]:
        """What it comes to, however it is spelled."""
        return self.domain.bounce_domain, self.subject or self.forward_path.local_part.strip('"').lower()


class ReturnPaths:
    """Bounce domains are known as they were a second ago."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._keys = seal.derived(PURPOSE)
        self._domains: TimedCache[None, dict[str, BounceDomain]] = TimedCache(self._load)
        self._of_mailboxes: TimedCache[UUID, str | None] = TimedCache(self._load_for)

    async def choose(self, mailbox_id: UUID, subject: UUID) -> Address | None:
        """The reverse-path for an entry or a message of this mailbox; None: as it was submitted. Raises nothing."""
        try:
            bounce_domain = await self._of_mailboxes.get(mailbox_id)
        except StoreUnavailable:
            return None
        return return_path.made_for(subject, bounce_domain, self._keys[0]) if bounce_domain else None

    async def are_there_any(self) -> bool:
        """Whether any domain takes reports. Raises StoreUnavailable."""
        return bool(await self._domains.get(None))

    async def first_domain(self) -> str | None:
        """The first bounce domain by name, None without any. Raises StoreUnavailable."""
        return min(await self._domains.get(None), default=None)

    async def find(self, forward_path: Address) -> ReportAddress | None:
        """The address, None if its domain is no bounce domain or takes nothing there. Raises StoreUnavailable."""
        domain = (await self._domains.get(None)).get(forward_path.ascii_domain)
        if domain is None:
            return None
        local_part = forward_path.local_part.strip('"').lower()
        subject = return_path.subject_of(local_part, self._keys)
        if subject is None and local_part not in ROLES:
            return None
        return ReportAddress(domain, forward_path, subject)

    async def is_bounce_domain(self, domain: str) -> bool:
        """Whether a domain is there for reports alone. Raises StoreUnavailable."""
        return domain in await self._domains.get(None)

    def subject_of(self, address: str) -> UUID | None:
        """What an address anywhere in a report was made for."""
        return return_path.subject_of(address.rpartition("@")[0], self._keys)

    async def _load(self, _: None) -> dict[str, BounceDomain]:
        async with self._database.connection() as connection:
            return {each.bounce_domain: each for each in await bounce_domains.living(connection)}

    async def _load_for(self, mailbox_id: UUID) -> str | None:
        async with self._database.connection() as connection:
            return await bounce_domains.of_mailbox(connection, mailbox_id)
