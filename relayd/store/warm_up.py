"""Mailboxes that warm up: whose day has turned, and what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class EndedDay:
    """A mailbox whose day has turned. `used`: for each day from `day` to yesterday whether anything was sent."""

    mailbox_id: UUID
    email_address: str
    client: str
    stage: int
    schedule: str | None
    daily_limit_cap: int | None
    used_days_only: bool
    is_paused: bool
    day: date
    today: date
    used: list[bool]
    sent: int  # in the days that health is judged by
    bounced: int
    complaints: int


@dataclass(frozen=True, slots=True)
class NextDay:
    """What a mailbox goes on with. `completed`: its warm-up is over."""

    mailbox_id: UUID
    day: date
    stage: int
    daily_send_limit: int
    note: str | None
    completed: bool


# $1 how long after midnight the day counts as over (the log has been tallied by then), $2 days of health, $3 at most.
# Mailboxes, domains, budgets, lanes, each in the order of ids, as everybody who waits for them: the triggers want them.
# Index: email_mailboxes_warming.
ENDED = """
WITH mailbox AS MATERIALIZED (
  SELECT m.*, ((relayd_now() - $1::interval) AT TIME ZONE m.time_zone)::date AS today FROM email_mailboxes m
   WHERE m.id IN (
     SELECT id FROM email_mailboxes
      WHERE warmup_enabled AND warmup_completed_at IS NULL AND deleted_at IS NULL
        AND warmup_day < ((relayd_now() - $1::interval) AT TIME ZONE time_zone)::date
      ORDER BY warmup_day, id LIMIT $3)
   ORDER BY m.id FOR NO KEY UPDATE OF m),
domain AS MATERIALIZED (
  SELECT d.id FROM email_domains d WHERE d.id IN (SELECT domain_id FROM mailbox) ORDER BY d.id FOR NO KEY UPDATE OF d),
budget AS MATERIALIZED (
  SELECT b.id FROM budgets b JOIN mailbox ON mailbox.id = b.owner_id WHERE (SELECT count(*) FROM domain) > 0
   ORDER BY b.id FOR NO KEY UPDATE OF b),
lane AS MATERIALIZED (
  SELECT l.id FROM mailbox_lanes l JOIN mailbox ON mailbox.id = l.mailbox_id WHERE (SELECT count(*) FROM budget) > 0
   ORDER BY l.id FOR NO KEY UPDATE OF l)
SELECT mailbox.id AS mailbox_id, mailbox.email_address, c.name AS client, mailbox.warmup_stage AS stage,
       mailbox.warmup_schedule AS schedule, mailbox.daily_limit_cap, mailbox.warmup_used_days_only AS used_days_only,
       mailbox.warmup_paused_at IS NOT NULL OR mailbox.status NOT IN ('warming', 'active') AS is_paused,
       mailbox.warmup_day AS day, mailbox.today,
       (SELECT COALESCE(array_agg(COALESCE(s.emails_sent > 0, false) ORDER BY d), '{}')
          FROM generate_series(mailbox.warmup_day, mailbox.today - 1, '1 day') d
          LEFT JOIN warmup_stats s ON s.mailbox_id = mailbox.id AND s.day = d::date) AS used,
       COALESCE(health.sent, 0) AS sent, COALESCE(health.bounced, 0) AS bounced,
       COALESCE(health.complaints, 0) AS complaints
  FROM mailbox JOIN clients c ON c.id = mailbox.client_id, (SELECT count(*) FROM lane) locked,
  LATERAL (
    SELECT GREATEST(sum(emails_sent - emails_bounced_later), 0) AS sent, sum(emails_bounced) AS bounced,
           sum(complaints) AS complaints
      FROM warmup_stats s
     WHERE s.mailbox_id = mailbox.id AND s.day >= GREATEST(mailbox.today - $2::int, mailbox.judged_from)) health
 ORDER BY mailbox.id
"""

# The day that ended, as it was, and the one that begins.
BEGIN = """
WITH next AS MATERIALIZED (
  SELECT * FROM unnest($1::uuid[], $2::date[], $3::int[], $4::int[], $5::text[], $6::bool[])
    AS t (id, day, stage, daily_limit, note, completed)),
kept AS (
  INSERT INTO warmup_stats AS stats (client_id, mailbox_id, day, warmup_stage, daily_limit)
  SELECT m.client_id, m.id, m.warmup_day, m.warmup_stage, m.daily_send_limit
    FROM next JOIN email_mailboxes m ON m.id = next.id ORDER BY m.id
  ON CONFLICT (mailbox_id, day) DO UPDATE
     SET warmup_stage = EXCLUDED.warmup_stage, daily_limit = EXCLUDED.daily_limit)
UPDATE email_mailboxes m
   SET warmup_day = next.day,
       judged_from = CASE WHEN next.stage < m.warmup_stage THEN next.day ELSE m.judged_from END,
       warmup_stage = next.stage, daily_send_limit = next.daily_limit, warmup_note = next.note,
       warmup_completed_at = CASE WHEN next.completed THEN relayd_now() END,
       status = CASE WHEN next.completed AND m.status = 'warming' THEN 'active' ELSE m.status END
  FROM next WHERE m.id = next.id
"""

# Index: email_mailboxes_pkey.
SET = """
UPDATE email_mailboxes
   SET warmup_enabled = $2, warmup_started_at = $3, warmup_paused_at = $4, warmup_completed_at = $5, warmup_stage = $6,
       warmup_schedule = $7, warmup_used_days_only = $8, warmup_note = $9, daily_limit_cap = $10,
       daily_send_limit = $11, status = $12,
       warmup_day = CASE WHEN $2 THEN COALESCE($13, (relayd_now() AT TIME ZONE time_zone)::date) END
 WHERE id = $1
"""

# Index: email_mailboxes_pkey.
FIND = """
SELECT m.id AS mailbox_id, m.email_address, m.status, m.warmup_enabled AS enabled, m.warmup_started_at AS started_at,
       m.warmup_paused_at AS paused_at, m.warmup_completed_at AS completed_at, m.warmup_stage AS stage,
       m.warmup_schedule AS schedule, m.warmup_used_days_only AS used_days_only, m.warmup_note AS note,
       m.daily_limit_cap, m.daily_send_limit, m.warmup_day AS day, m.bounce_rate, m.spam_rate, m.reply_rate,
       relayd_now() AS now, COALESCE(u.used, 0) AS used
  FROM email_mailboxes m LEFT JOIN email_mailbox_usage u ON u.mailbox_id = m.id WHERE m.id = $1
"""

# Index: warmup_stats_mailbox_id_day_key.
STATS = """
SELECT day, emails_sent, emails_received, emails_bounced, complaints, warmup_stage, daily_limit
  FROM warmup_stats WHERE mailbox_id = $1 ORDER BY day DESC LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class WarmUpRecord:
    """A mailbox's warm-up as it stands. `day`: the mailbox's day that its stage is of."""

    mailbox_id: UUID
    email_address: str
    status: str
    enabled: bool
    started_at: datetime | None
    paused_at: datetime | None
    completed_at: datetime | None
    stage: int
    schedule: str | None
    used_days_only: bool
    note: str | None
    daily_limit_cap: int | None
    daily_send_limit: int | None
    day: date | None
    bounce_rate: float | None
    spam_rate: float | None
    reply_rate: float | None
    now: datetime
    used: int


@dataclass(frozen=True, slots=True)
class DayRecord:
    """What became of a mailbox's mail on one day of its own zone, in recipients."""

    day: date
    emails_sent: int
    emails_received: int
    emails_bounced: int
    complaints: int
    warmup_stage: int | None
    daily_limit: int | None


async def ended_days(connection: Connection, *, grace: timedelta, health_days: int, most: int) -> list[EndedDay]:
    """Mailboxes whose day is over, locked until the transaction ends. `grace`: so long after midnight."""
    return [EndedDay(**dict(row)) for row in await connection.fetch(ENDED, grace, health_days, most)]


async def begin_days(connection: Connection, days: Sequence[NextDay]) -> None:
    """Keep the ended days as they were, and let the next ones begin."""
    await connection.execute(
        BEGIN,
        [day.mailbox_id for day in days],
        [day.day for day in days],
        [day.stage for day in days],
        [day.daily_send_limit for day in days],
        [day.note for day in days],
        [day.completed for day in days],
    )


async def find(connection: Connection, mailbox_id: UUID) -> WarmUpRecord:
    """A mailbox's warm-up."""
    row = await connection.fetchrow(FIND, mailbox_id)
    assert row is not None, "the mailbox was found before"
    return WarmUpRecord(**dict(row))


async def save(connection: Connection, wanted: WarmUpRecord) -> WarmUpRecord:
    """Store all of it but rates and usage; the day is today where none is given. The mailbox is locked already."""
    await connection.execute(
        SET,
        wanted.mailbox_id,
        wanted.enabled,
        wanted.started_at,
        wanted.paused_at,
        wanted.completed_at,
        wanted.stage,
        wanted.schedule,
        wanted.used_days_only,
        wanted.note,
        wanted.daily_limit_cap,
        wanted.daily_send_limit,
        wanted.status,
        wanted.day,
    )
    return await find(connection, wanted.mailbox_id)


async def days(connection: Connection, mailbox_id: UUID, *, most: int) -> list[DayRecord]:
    """A mailbox's latest days, the newest first."""
    return [DayRecord(**dict(row)) for row in await connection.fetch(STATS, mailbox_id, most)]
