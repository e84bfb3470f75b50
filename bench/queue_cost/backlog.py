"""Fill a database: mailboxes with budget, and exhausted ones with entries behind them.

What waits is written in bulk, as enqueue would have left it; that its lanes are blocked is then found by the product's
own claims, as it is on any day.
"""

from typing import Any
from uuid import UUID

from bench.queue_cost import product
from bench.queue_cost.case import Case
from relayd.store.connection import Connection
from relayd.store.pool import Database

LIVE_MAILBOXES = 100

# One client, one domain, one upstream. The connections' cap is the default: a claim's size follows from it.
FOUNDATION = """
WITH client AS (INSERT INTO clients (name) VALUES ('acme') RETURNING id),
     upstream AS (INSERT INTO email_configurations (name, provider_type, smtp_host, smtp_port, smtp_tls)
                  VALUES ('near', 'smtp_relay', 'mx.example.com', 25, 'none') RETURNING id),
     domain AS (INSERT INTO email_domains (client_id, domain) SELECT id, 'example.com' FROM client RETURNING id)
SELECT client.id AS client_id, upstream.id AS upstream_id, domain.id AS domain_id FROM client, upstream, domain
"""

# $4: `live` or `spent`; $5 how many; $6 today's limit; $7 units counted in today's window.
MAILBOXES = """
WITH mailbox AS (
  INSERT INTO email_mailboxes (client_id, domain_id, upstream_id, email_address, daily_send_limit)
  SELECT $1, $2, $3, $4 || n || '@example.com', $6::int FROM generate_series(0, $5::int - 1) AS n
  RETURNING id)
INSERT INTO budgets (kind, client_id, owner_id, is_rolling, span, time_zone, unit_limit, bulk_limit, units_used,
                     began_at, turns_at)
SELECT 'mailbox_day', $1, id, false, '1 day', 'UTC', $6, $6, $7, date_trunc('day', relayd_now()),
       date_trunc('day', relayd_now()) + interval '1 day'
  FROM mailbox
"""

# As the trigger on mailboxes makes them, which for one mailbox reads them all.
LANES = """
INSERT INTO mailbox_lanes (mailbox_id, class, client_id, upstream_id, preferred_id, held, budget_ids)
SELECT m.id, k.class, m.client_id, m.upstream_id, m.upstream_id, false,
       CASE k.class WHEN 'dsn' THEN '{}' ELSE ARRAY[b.id] END
  FROM email_mailboxes m JOIN budgets b ON b.owner_id = m.id
 CROSS JOIN (VALUES ('mail'), ('bulk'), ('dsn')) AS k (class)
 ORDER BY m.email_address, k.class
"""

# Mailboxes by name, each with its lane for mail.
SENDERS = """
SELECT m.id AS mailbox_id, m.client_id, m.email_address, l.id AS lane_id
  FROM email_mailboxes m JOIN mailbox_lanes l ON l.mailbox_id = m.id AND l.class = 'mail'
 WHERE m.email_address LIKE $1 || '%' ORDER BY l.id
"""

# What waits, a number each: $1 entries in all, $2 entries a mailbox, $3 recipients a message. Ids rise with time,
# as a UUIDv7 does, from an hour ago.
NUMBERED = """
CREATE TEMPORARY TABLE waiting AS
SELECT n, n / $2::bigint AS mailbox_number, (n / $2) * (($2 + $3 - 1) / $3) + n % $2 / $3::bigint AS message_number
  FROM generate_series(0, $1::bigint - 1) AS n
"""
IDS = """
CREATE FUNCTION pg_temp.id_of(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex(1750000000000 + n / 10), 12, '0') || '7' || kind || '8' || lpad(to_hex(n), 15, '0'))::uuid
$$
"""
SPENT = """
CREATE TEMPORARY TABLE spent AS
SELECT row_number() OVER (ORDER BY l.id) - 1 AS number, m.id AS mailbox_id, m.client_id, m.email_address,
       l.id AS lane_id
  FROM email_mailboxes m JOIN mailbox_lanes l ON l.mailbox_id = m.id AND l.class = 'mail'
 WHERE m.email_address LIKE 'spent%'
"""
MESSAGES = """
INSERT INTO messages (id, client_id, mailbox_id, origin, reverse_path, header_from, message_id_header, subject,
                      size_octets, smtputf8, body_8bitmime, helo, peer, created_at, updated_at)
SELECT pg_temp.id_of('aaa', w.message_number), s.client_id, s.mailbox_id, 'submission', 'bounces@example.com',
       s.email_address, '<' || w.message_number || '@example.com>', 'Hello', 1, false, false, 'app.example.com',
       '192.0.2.1', clock.at, clock.at
  FROM (SELECT DISTINCT message_number, mailbox_number FROM waiting) w JOIN spent s ON s.number = w.mailbox_number,
       (SELECT relayd_now() - interval '1 hour' AS at) clock
 ORDER BY w.message_number
"""
BODIES = "INSERT INTO message_bodies (message_id, content) SELECT id, '\\x0d0a' FROM messages"
ENTRIES = """
INSERT INTO email_queue (id, client_id, message_id, mailbox_id, lane_id, recipient_address, subject, max_retries,
                         next_attempt_at, created_at, updated_at)
SELECT pg_temp.id_of('bbb', w.n), s.client_id, pg_temp.id_of('aaa', w.message_number), s.mailbox_id, s.lane_id,
       'user' || w.n || '@example.net', 'Hello', 50, clock.at + w.n * interval '1 microsecond', clock.at, clock.at
  FROM waiting w JOIN spent s ON s.number = w.mailbox_number,
       (SELECT relayd_now() - interval '1 hour' AS at) clock
 ORDER BY w.n
"""
LOGS = """
INSERT INTO email_delivery_logs (id, client_id, message_id, entry_id, event, created_at, updated_at)
SELECT pg_temp.id_of('ccc', w.n), s.client_id, pg_temp.id_of('aaa', w.message_number), pg_temp.id_of('bbb', w.n),
       'queued', clock.at, clock.at
  FROM waiting w JOIN spent s ON s.number = w.mailbox_number,
       (SELECT relayd_now() - interval '1 hour' AS at) clock
 ORDER BY w.n
"""
WAKE = "UPDATE mailbox_lanes l SET due_at = relayd_now() - interval '1 hour' FROM spent s WHERE l.id = s.lane_id"
STATISTICS = """
VACUUM (ANALYZE) email_queue, messages, message_bodies, email_delivery_logs, mailbox_lanes, email_mailboxes, budgets
"""
COUNTS = "ANALYZE email_queue, mailbox_lanes, email_mailboxes, budgets"


async def fill(connection: Connection, database: Database, case: Case) -> UUID:
    """Make the case; returns the upstream. `database` is a worker's, for the claims that find the limits."""
    found = await connection.fetchrow(FOUNDATION)
    assert found is not None
    owner = (found["client_id"], found["domain_id"], found["upstream_id"])
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(MAILBOXES, *owner, "live", LIVE_MAILBOXES, 100_000_000, 0)
        await connection.execute(MAILBOXES, *owner, "spent", case.mailboxes, 500, 500)
        await connection.execute(LANES)
    if case.backlog:
        await fill_waiting(connection, case.backlog, case.entries_per_mailbox, case.recipients_per_message)
    upstream_id: UUID = found["upstream_id"]
    while (await product.claim(database, upstream_id, batch=500, claimant="bench/fill"))[1]:
        pass
    await settle_down(connection)
    return upstream_id


async def settle_down(connection: Connection) -> None:
    """As autovacuum and a checkpoint would leave it a little later.

    Before live mail is submitted, not after: on a system at work the pages that a claim changes have been changed, and
    so written whole to the log, since the last checkpoint.
    """
    await connection.execute(STATISTICS, timeout=3600)
    await connection.execute("CHECKPOINT", timeout=3600)


async def put_live(connection: Connection, database: Database, count: int) -> None:
    """Live mail, then statistics; `database` is a worker's."""
    await product.submit(database, await live_senders(connection), count)
    await connection.execute(COUNTS, timeout=3600)


async def live_senders(connection: Connection) -> list[Any]:
    """The mailboxes with budget."""
    return list(await connection.fetch(SENDERS, "live"))


async def fill_waiting(connection: Connection, count: int, per_mailbox: int, per_message: int) -> None:
    """`count` entries, so many in each mailbox of SPENT in turn, so many of them with one message and body."""
    async with connection.transaction():
        # No foreign key needs a look: all rows come from here.
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("SET LOCAL statement_timeout = 0")
        # CREATE TABLE AS takes no parameters: numbers, put in as such.
        numbers = {"$1": str(count), "$2": str(per_mailbox), "$3": str(per_message)}
        numbered = NUMBERED
        for name, value in numbers.items():
            numbered = numbered.replace(name, value)
        for statement in (IDS, numbered, SPENT, "ANALYZE waiting, spent", MESSAGES, BODIES, ENTRIES, LOGS, WAKE):
            await connection.execute(statement, timeout=3600)
        await connection.execute("DROP TABLE waiting, spent")
