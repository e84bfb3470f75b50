"""Count the delivery log into each mailbox's days, once, in the order of its ids. Off the hot path."""

from datetime import timedelta

import asyncpg

from relayd.store.ids import first_id_at

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# Ids are made as rows are written, by the real clock, whatever relayd_now() says.
REAL_CLOCK = "SELECT clock_timestamp()"

# Up to $1, at most $2 rows. A bounce message harms nobody's rates, and a cancelled entry was not refused.
# Indexes: email_delivery_logs_pkey, email_queue_pkey, messages_pkey, email_mailboxes_pkey.
TALLY = """
WITH state AS MATERIALIZED (SELECT tallied_to FROM relayd_state FOR UPDATE),
row AS MATERIALIZED (
  SELECT l.id, l.entry_id, l.event, l.stage, l.error_code, l.created_at FROM email_delivery_logs l
   WHERE l.id > (SELECT tallied_to FROM state) AND l.id < $1 ORDER BY l.id LIMIT $2),
counted AS (
  SELECT q.client_id, q.mailbox_id, (row.created_at AT TIME ZONE m.time_zone)::date AS day,
         count(*) FILTER (WHERE row.event = 'sent') AS sent,
         count(*) FILTER (WHERE row.event = 'bounced' OR (row.event = 'failed' AND row.error_code >= 500)) AS bounced,
         count(*) FILTER (WHERE row.event = 'bounced' AND row.stage = 'report') AS bounced_later,
         count(*) FILTER (WHERE row.event = 'complained') AS complaints,
         count(*) FILTER (WHERE row.event = 'replied') AS received
    FROM row
    JOIN email_queue q ON q.id = row.entry_id
    JOIN messages message ON message.id = q.message_id AND message.origin <> 'dsn'
    JOIN email_mailboxes m ON m.id = q.mailbox_id
   WHERE row.event IN ('sent', 'bounced', 'failed', 'complained', 'replied')
   GROUP BY 1, 2, 3),
stored AS (
  INSERT INTO warmup_stats AS stats
         (client_id, mailbox_id, day, emails_sent, emails_bounced, emails_bounced_later, complaints, emails_received)
  SELECT client_id, mailbox_id, day, sent, bounced, bounced_later, complaints, received FROM counted
   WHERE sent + bounced + complaints + received > 0 ORDER BY mailbox_id, day
  ON CONFLICT (mailbox_id, day) DO UPDATE
     SET emails_sent = stats.emails_sent + EXCLUDED.emails_sent,
         emails_bounced = stats.emails_bounced + EXCLUDED.emails_bounced,
         emails_bounced_later = stats.emails_bounced_later + EXCLUDED.emails_bounced_later,
         complaints = stats.complaints + EXCLUDED.complaints,
         emails_received = stats.emails_received + EXCLUDED.emails_received),
last AS (SELECT id FROM row ORDER BY id DESC LIMIT 1),
moved AS (UPDATE relayd_state SET tallied_to = last.id FROM last)
SELECT count(*) FROM row
"""


async def tally(connection: Connection, *, lag: timedelta, most: int) -> int:
    """Count up to `most` rows of the log; returns how many there were. Call inside a transaction.

    The youngest wait for `lag`, longer than any transaction may take: one that began earlier may commit later.
    """
    now = await connection.fetchval(REAL_CLOCK)
    count: int = await connection.fetchval(TALLY, first_id_at(now - lag), most)
    return count
