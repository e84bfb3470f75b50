"""Each mailbox's bounce, complaint and reply rates of late, and a stop for those that went too far."""

from dataclasses import dataclass

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# Of the last $1 days, for every mailbox that has sent in them or has old rates. Reads a row a mailbox a day of those;
# the time is asked for once, since relayd_now() in a join is a call a row. Index: warmup_stats_day.
RATES = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
late AS (
  SELECT s.* FROM warmup_stats s, clock WHERE s.day >= (clock.now AT TIME ZONE 'UTC')::date - $1::int - 1),
rate AS (
  SELECT m.id, LEAST(sum(s.emails_bounced)::float8
                     / NULLIF(sum(s.emails_sent + s.emails_bounced - s.emails_bounced_later), 0), 1) AS bounce,
         LEAST(sum(s.complaints)::float8 / NULLIF(sum(s.emails_sent), 0), 1) AS spam,
         sum(s.emails_received)::float8 / NULLIF(sum(s.emails_sent), 0) AS reply
    FROM clock CROSS JOIN email_mailboxes m
    LEFT JOIN late s ON s.mailbox_id = m.id AND s.day > (clock.now AT TIME ZONE m.time_zone)::date - $1::int
   WHERE m.deleted_at IS NULL
   GROUP BY m.id
  HAVING count(s.id) > 0 OR m.bounce_rate IS NOT NULL OR m.spam_rate IS NOT NULL OR m.reply_rate IS NOT NULL),
mailbox AS MATERIALIZED (
  SELECT m.id, rate.bounce, rate.spam, rate.reply FROM email_mailboxes m JOIN rate ON rate.id = m.id
   WHERE (m.bounce_rate, m.spam_rate, m.reply_rate) IS DISTINCT FROM (rate.bounce, rate.spam, rate.reply)
   ORDER BY m.id FOR NO KEY UPDATE OF m)
UPDATE email_mailboxes m SET bounce_rate = mailbox.bounce, spam_rate = mailbox.spam, reply_rate = mailbox.reply
  FROM mailbox WHERE m.id = mailbox.id
"""

# $1 days, $2 the fewest tried, $3 bounces and $4 complaints from which on. Mailboxes before lanes, each in the order of
# ids, as everybody who waits for them; the trigger holds the lanes. Indexes: warmup_stats_day,
# warmup_stats_mailbox_id_day_key.
PAUSE = """
WITH clock AS MATERIALIZED (SELECT relayd_now() AS now),
judged AS (
  SELECT m.id, sum(s.emails_sent - s.emails_bounced_later) AS sent,
         sum(s.emails_bounced) AS bounced, sum(s.complaints) AS complaints
    FROM clock CROSS JOIN email_mailboxes m
    JOIN warmup_stats s ON s.mailbox_id = m.id AND s.day >= (clock.now AT TIME ZONE 'UTC')::date - $1::int - 1
     AND s.day > GREATEST((clock.now AT TIME ZONE m.time_zone)::date - $1::int, m.judged_from - 1)
   WHERE m.deleted_at IS NULL AND m.status IN ('warming', 'active')
   GROUP BY m.id
  HAVING sum(s.emails_sent + s.emails_bounced - s.emails_bounced_later) >= $2
     AND (sum(s.emails_bounced) >= $3::float8 * sum(s.emails_sent + s.emails_bounced - s.emails_bounced_later)
          OR sum(s.complaints) >= $4::float8 * GREATEST(sum(s.emails_sent), 1))),
mailbox AS MATERIALIZED (
  SELECT m.id, judged.sent, judged.bounced, judged.complaints FROM email_mailboxes m JOIN judged ON judged.id = m.id
   WHERE m.status IN ('warming', 'active') ORDER BY m.id FOR NO KEY UPDATE OF m),
lane AS MATERIALIZED (
  SELECT l.id FROM mailbox_lanes l JOIN mailbox ON mailbox.id = l.mailbox_id ORDER BY l.id FOR NO KEY UPDATE OF l)
UPDATE email_mailboxes m
   SET status = 'paused',
       status_reason = format('of %s recipients in the last %s days %s bounced and %s complained',
                              mailbox.sent + mailbox.bounced, $1::int, mailbox.bounced, mailbox.complaints)
  FROM mailbox, clients c, (SELECT count(*) FROM lane) locked
 WHERE m.id = mailbox.id AND c.id = m.client_id
RETURNING m.email_address AS mailbox, c.name AS client, m.status_reason AS reason
"""


@dataclass(frozen=True, slots=True)
class PausedMailbox:
    """A mailbox that was stopped, and why."""

    mailbox: str
    client: str
    reason: str


async def refresh_rates(connection: Connection, *, days: int) -> None:
    """Bounce, spam and reply rates of the last days, today's with them."""
    await connection.execute(RATES, days)


async def pause_the_worst(
    connection: Connection, *, days: int, least_tried: int, bounce_rate: float, spam_rate: float
) -> list[PausedMailbox]:
    """Pause every mailbox whose rates reach these; returns them. What was before `judged_from` does not count."""
    rows = await connection.fetch(PAUSE, days, least_tried, bounce_rate, spam_rate)
    return [PausedMailbox(**dict(row)) for row in rows]
