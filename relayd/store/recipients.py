"""The other recipients of a message, for upstreams that send to all of a header at once."""

from uuid import UUID

import asyncpg

from relayd.mail.address import Address

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# Those that may still go with one that is in flight: from the same line, and waiting for nobody but the clock.
# Index: email_queue_message.
WAITING = """
SELECT DISTINCT w.recipient_address
  FROM email_queue w
 WHERE w.message_id = $1
   AND (w.status IN ('queued', 'sending') OR w.pending_reason IN ('scheduled', 'uncertain'))
   AND w.lane_id IN (SELECT s.lane_id FROM email_queue s
                      WHERE s.message_id = $1 AND s.status = 'sending' AND s.attempt_started_at IS NOT NULL)
"""


async def waiting(connection: Connection, queue_id: UUID) -> list[Address]:
    """The recipients of a message that is being attempted which may still be sent to, these included."""
    return [Address.stored(row["recipient_address"]) for row in await connection.fetch(WAITING, queue_id)]
