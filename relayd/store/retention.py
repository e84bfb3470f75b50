"""Forget what ended long ago, a little at a time."""

from datetime import timedelta

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# Ids follow time, so the primary key finds the oldest. Bodies and entries go along. Indexes: messages_pkey,
# email_queue_message.
PRUNE_MESSAGES = """
DELETE FROM messages WHERE id IN (
  SELECT m.id FROM messages m
   WHERE m.created_at < relayd_now() - $1::interval
     AND NOT EXISTS (SELECT FROM email_queue q
                      WHERE q.message_id = m.id AND (q.status IN ('pending', 'queued', 'sending')
                                                     OR q.updated_at >= relayd_now() - $1::interval))
   ORDER BY m.id LIMIT $2)
"""

# What is told of an entry goes when the entry has gone. Indexes: email_delivery_logs_pkey, email_queue_pkey.
PRUNE_LOGS = """
DELETE FROM email_delivery_logs WHERE id IN (
  SELECT l.id FROM email_delivery_logs l
   WHERE l.created_at < relayd_now() - $1::interval
     AND NOT EXISTS (SELECT FROM email_queue q WHERE q.id = l.entry_id)
   ORDER BY l.id LIMIT $2)
"""


async def prune(connection: Connection, age: timedelta, *, limit: int) -> int:
    """Remove up to `limit` messages that ended longer than `age` ago, and as many log rows; returns how many rows."""
    messages = await connection.execute(PRUNE_MESSAGES, age, limit)
    logs = await connection.execute(PRUNE_LOGS, age, limit)
    return int(messages.split()[-1]) + int(logs.split()[-1])
