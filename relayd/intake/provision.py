"""Development mode: make unknown domains and mailboxes on first use, unlimited, under one client."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

from relayd.errors import Refusal
from relayd.intake.keys import make_keys
from relayd.intake.submission import Identity
from relayd.mail.address import Address
from relayd.seal import Seal
from relayd.store import domains, mailboxes
from relayd.store.directory import find_domain, find_mailbox
from relayd.store.pool import Database


class Provisioner:
    """Makes what a sender needs, with the keys to sign for it. Two at once make it once."""

    def __init__(self, database: Database, seal: Seal, *, upstream_id: UUID) -> None:
        self._database = database
        self._seal = seal
        self._upstream_id = upstream_id
        self._one_at_a_time = asyncio.Lock()

    async def provide(self, identity: Identity, sender: Address) -> None:
        """See to it that the client may send as `sender`, unless the domain is another's. Raises StoreUnavailable."""
        async with self._one_at_a_time:
            domain_id = await self._domain(identity, sender)
            if domain_id is None:
                return
            async with self._database.transaction() as connection:
                if await find_mailbox(connection, sender) is None:
                    await mailboxes.add(
                        connection,
                        client_id=identity.client.id,
                        domain_id=domain_id,
                        upstream_id=self._upstream_id,
                        email_address=sender.plain,
                        daily_send_limit=None,
                    )

    async def _domain(self, identity: Identity, sender: Address) -> UUID | None:
        async with self._database.connection() as connection:
            known = await find_domain(connection, sender.ascii_domain)
        if known is not None:
            return known.id if known.client_id == identity.client.id else None
        keys = await asyncio.to_thread(make_keys, self._seal, datetime.now(UTC))
        try:
            async with self._database.transaction() as connection:
                made = await domains.add(
                    connection, client_id=identity.client.id, domain=sender.ascii_domain, keys=keys
                )
                return made.id
        except Refusal:
            # Another worker was faster.
            async with self._database.connection() as connection:
                known = await find_domain(connection, sender.ascii_domain)
            if known is None:
                raise
            return known.id if known.client_id == identity.client.id else None
