"""What a report does beyond its entry: the recipient is written to no more, and the client is told."""

from typing import Any
from uuid import UUID

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


async def suppress(
    connection: Connection, client_id: UUID, address: str, reason: str, detail: str, entry_id: UUID
) -> None:
    """Put an address (as Address.key) on the client's suppression list, in the caller's transaction.

    `reason` is hard_bounce or complaint. Without a list there is nothing to do.
    """


async def tell_client(
    connection: Connection,
    client_id: UUID,
    kind: str,
    *,
    queue_id: UUID,
    entry_id: UUID,
    recipient: str,
    payload: dict[str, Any],
) -> None:
    """Add an event (bounced, complained, replied) to those that the client reads, in the caller's transaction.

    Without such events there is nothing to do.
    """
