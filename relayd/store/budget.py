"""Give budget back. Reserving happens in the claim; here is only what was reserved and definitely not used."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from relayd.store import lanes

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# One row a unit: its mailbox and the window it was reserved in. A window that has passed keeps what it counted.
# Index: email_mailboxes_pkey.
RETURN_UNITS = """
WITH unit AS (
  SELECT mailbox_id, window_ends_at, count(*) AS count
    FROM unnest($1::uuid[], $2::timestamptz[]) AS t (mailbox_id, window_ends_at) GROUP BY 1, 2),
mailbox AS MATERIALIZED (
  SELECT m.id, unit.count FROM email_mailboxes m
    JOIN unit ON unit.mailbox_id = m.id AND unit.window_ends_at = m.window_ends_at
   ORDER BY m.id FOR NO KEY UPDATE OF m)
UPDATE email_mailboxes m SET current_daily_sends = m.current_daily_sends - mailbox.count
  FROM mailbox WHERE m.id = mailbox.id
"""


async def return_units(connection: Connection, units: Sequence[tuple[UUID, datetime]]) -> None:
    """Return units (mailbox id, window end) to their windows and let the mailboxes' lanes run again."""
    if not units:
        return
    await connection.execute(RETURN_UNITS, [mailbox for mailbox, _ in units], [end for _, end in units])
    await lanes.unblock(connection, sorted({mailbox for mailbox, _ in units}))
