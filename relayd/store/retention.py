"""Forget what ended long ago, a little at a time.

Ids are stamped when a row is made, so an id tells where what is old ends: nothing younger is read.
"""

from datetime import timedelta

import asyncpg

from relayd.store.ids import first_id_at

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# Ids are stamped by the machine that made them, created_at by the database: how far apart their clocks may be.
_CLOCK_SLACK = timedelta(hours=1)

CLOCK = "SELECT relayd_now()"

# $1 what was made before; $3 no id of that time is greater. Without it the last look, which finds nothing, would read
# the whole table. Bodies and entries go along. Indexes: messages_pkey, email_queue_message.
PRUNE_MESSAGES = """
DELETE FROM messages WHERE id IN (
  SELECT m.id FROM messages m
   WHERE m.id < $3::uuid AND m.created_at < $1::timestamptz
     AND NOT EXISTS (SELECT FROM email_queue q
                      WHERE q.message_id = m.id AND (q.status IN ('pending', 'queued', 'sending')
                                                     OR q.updated_at >= $1::timestamptz))
   ORDER BY m.id LIMIT $2)
"""

# What is told of an entry goes when the entry has gone. Indexes: email_delivery_logs_pkey, email_queue_pkey.
PRUNE_LOGS = """
DELETE FROM email_delivery_logs WHERE id IN (
  SELECT l.id FROM email_delivery_logs l
   WHERE l.id < $3::uuid AND l.created_at < $1::timestamptz
     AND NOT EXISTS (SELECT FROM email_queue q WHERE q.id = l.entry_id)
   ORDER BY l.id LIMIT $2)
"""


async def prune(connection: Connection, age: timedelta, *, limit: int) -> int:
    """Remove up to `limit` messages that ended longer than `age` ago, and as many log rows; returns how many rows."""
    before = await connection.fetchval(CLOCK) - age
    # A test may have set the clock on since a row was made; its id is the earlier for it, so the bound still holds.
    first_kept = first_id_at(before + _CLOCK_SLACK)
    messages = await connection.execute(PRUNE_MESSAGES, before, limit, first_kept)
    logs = await connection.execute(PRUNE_LOGS, before, limit, first_kept)
    return int(messages.split()[-1]) + int(logs.split()[-1])
