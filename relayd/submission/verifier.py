"""Who a session speaks for: a credential by its secret, or a trusted network by its address."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

from relayd.intake.submission import Identity
from relayd.store import directory
from relayd.store.directory import Login, SendingClient
from relayd.store.pool import Database
from relayd.store.timed_cache import TimedCache
from relayd.submission.auth import ScramVerifier, make_verifier, matches

Network = IPv4Network | IPv6Network


class DirectoryVerifier:
    """Answers from the database, each at most a second old. `networks` pairs a network with its client's name."""

    def __init__(self, database: Database, networks: Sequence[tuple[Network, str]]) -> None:
        self._database = database
        # The narrowest network that holds an address decides.
        self._networks = sorted(networks, key=lambda pair: pair[0].prefixlen, reverse=True)
        # An app connects again and again.
        self._client_names = lru_cache(maxsize=10_000)(self._client_of)
        self._logins: TimedCache[str, Login | None] = TimedCache(self._load_login)
        self._clients: TimedCache[str, SendingClient | None] = TimedCache(self._load_client)
        self._decoy = make_verifier("decoy", salt=bytes(16))

    async def authenticate(self, login: str, secret: str) -> Identity | None:
        """None for an unknown login as for a wrong secret, in the same time. Raises StoreUnavailable.

        The right secret gets an identity even while its client is suspended or it is disabled: the session says so.
        """
        found = await self._logins.get(login)
        if found is None:
            matches(self._decoy, secret)
            return None
        verifier = ScramVerifier(found.salt, found.iterations, found.stored_key, found.server_key)
        if not matches(verifier, secret):
            return None
        return _identity(found)

    async def knows(self, login: str) -> bool:
        """Whether a credential has that login. Raises StoreUnavailable."""
        return await self._logins.get(login) is not None

    async def confirm(self, identity: Identity) -> Identity | None:
        """The identity as it is now, or None once its secret opens nothing any more. Raises StoreUnavailable."""
        found = await self._logins.get(identity.login) if identity.login else None
        if found is None or (found.credential_id, found.salt) != (identity.credential_id, identity.salt):
            return None
        return _identity(found)

    async def network_identity(self, peer_address: str) -> Identity | None:
        """The client whose trusted network this address is in, if it is in one. Raises StoreUnavailable."""
        name = self._client_names(peer_address)
        client = await self._clients.get(name) if name else None
        return Identity(client) if client else None

    def _client_of(self, peer_address: str) -> str | None:
        address = ip_address(peer_address.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if mapped is not None:
            address = mapped
        for network, name in self._networks:
            if address.version == network.version and address in network:
                return name
        return None

    async def _load_login(self, login: str) -> Login | None:
        async with self._database.connection() as connection:
            return await directory.find_login(connection, login)

    async def _load_client(self, name: str) -> SendingClient | None:
        async with self._database.connection() as connection:
            return await directory.find_client(connection, name)


def _identity(found: Login) -> Identity:
    return Identity(
        found.client,
        found.credential_id,
        found.login,
        found.senders,
        found.salt,
        found.refuse_after_seconds,
        mail_class=found.mail_class,
        pool_id=found.pool_id,
        is_active=found.is_active,
        refuses_long_lines=found.refuses_long_lines,
    )
