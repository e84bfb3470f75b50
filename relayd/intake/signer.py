"""Sign for a domain with its active keys, all or those that an upstream accepts.

Keys are opened once and kept; which are active is asked anew.
"""

from datetime import datetime
from uuid import UUID

from relayd.errors import RelaydError
from relayd.mail import dkim
from relayd.mail.dkim_key import SigningKey, load_private
from relayd.mail.dkim_record import Algorithm
from relayd.mail.headers import HeaderScan
from relayd.rules.known_hosts import Dkim, Signing
from relayd.seal import Seal
from relayd.store import directory
from relayd.store.directory import SealedKey, SendingDomain
from relayd.store.pool import Database
from relayd.store.timed_cache import TimedCache


class Signer:
    """DKIM signatures by domain. Raises SealError if a key cannot be opened, StoreUnavailable."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._seal = seal
        self._active: TimedCache[UUID, list[SealedKey]] = TimedCache(self._load)
        self._opened: dict[UUID, SigningKey] = {}

    async def sign(self, domain: SendingDomain, content: bytes, scan: HeaderScan, now: datetime) -> bytes:
        """`content`, of which `scan` is the scan, with a DKIM-Signature on top for every active key of the domain."""
        keys = [self._open(domain.domain, key) for key in await self._active.get(domain.id)]
        if not keys:
            return content
        return dkim.sign(content, scan, keys, signed_at=int(now.timestamp())) + content

    async def sign_for(
        self, signing: Signing, domain: SendingDomain, content: bytes, scan: HeaderScan, now: datetime
    ) -> bytes:
        """As sign, for one upstream. Raises RelaydError, too, where the domain has no key that the upstream accepts."""
        if signing.dkim is Dkim.NONE:
            return content
        active = await self._active.get(domain.id)
        keys = [self._open(domain.domain, key) for key in active if signing.dkim.accepts(Algorithm(key.algorithm))]
        if not keys:
            kind = "RSA DKIM key" if signing.dkim is Dkim.RSA else "DKIM key"
            raise RelaydError(f"{domain.domain} has no active {kind}: relayd domain show {domain.domain}")
        # A server that takes one field gets one, also while a key is being replaced by another.
        keys = keys[:1] if signing.dkim is Dkim.RSA else keys
        signatures = dkim.sign(content, scan, keys, signed_at=int(now.timestamp()), left_out=signing.rewritten)
        return signatures + content

    def _open(self, domain: str, key: SealedKey) -> SigningKey:
        opened = self._opened.get(key.id)
        if opened is None:
            algorithm = Algorithm(key.algorithm)
            private = self._seal.open(key.private_key_sealed, row=key.seal_row)
            opened = SigningKey(domain, key.selector, algorithm, load_private(algorithm, private))
            self._opened[key.id] = opened
        return opened

    async def _load(self, domain_id: UUID) -> list[SealedKey]:
        async with self._database.connection() as connection:
            return await directory.find_keys(connection, domain_id)
