"""Fill a database with clients, domains and mailboxes by the thousand, and with mail that waits behind some of them.

Mailboxes are made in bulk, as the triggers would leave them; that lanes are blocked is found by the product's claims.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bench.loopback import loopback
from bench.queue_cost import backlog, product
from relayd.store.connection import Connection
from relayd.store.pool import Database


@dataclass(frozen=True, slots=True)
class World:
    """`crowd` mailboxes with `entries` waiting behind them, and `live` ones that nothing waits behind.

    The crowd is of the first `crowd_clients`, the live ones are of all.
    """

    clients: int
    live: int
    crowd: int
    entries: int
    crowd_clients: int
    crowd_limit: int | None  # a day; NULL: none
    crowd_used: int = 0
    recipients_per_message: int = 1

    @property
    def per_mailbox(self) -> int:
        """How many entries wait behind each of the crowd, the last one's but for a rest."""
        return max(1, -(-self.entries // self.crowd))


# $1 how many. The upstream is shared by all, with the default connections.
CLIENTS = "INSERT INTO clients (name) SELECT 'client' || n FROM generate_series(0, $1::int - 1) AS n"
DOMAINS = """
INSERT INTO email_domains (client_id, domain)
SELECT c.id, c.name || '-' || n || '.example.com' FROM clients c, generate_series(0, 1) AS n
"""
UPSTREAM = """
INSERT INTO email_configurations (name, provider_type, smtp_host, smtp_port, smtp_tls)
VALUES ('near', 'smtp_relay', $1, $2, 'none') RETURNING id
"""
# $1 upstream, $2 `live` or `spent`, $3 how many, $4 today's limit, $5 units used, $6 over the first so many clients.
MAILBOXES = """
WITH domain AS (
  SELECT d.id, d.client_id, d.domain, row_number() OVER (ORDER BY d.domain) - 1 AS number
    FROM email_domains d JOIN clients c ON c.id = d.client_id WHERE substr(c.name, 7)::int < $6::int),
mailbox AS (
  INSERT INTO email_mailboxes (client_id, domain_id, upstream_id, email_address, daily_send_limit)
  SELECT d.client_id, d.id, $1, $2 || n || '@' || d.domain, $4::int
    FROM generate_series(0, $3::int - 1) AS n JOIN domain d ON d.number = n % (SELECT count(*) FROM domain)
  RETURNING id, client_id)
INSERT INTO budgets (kind, client_id, owner_id, is_rolling, span, time_zone, unit_limit, bulk_limit, units_used,
                     began_at, turns_at)
SELECT 'mailbox_day', client_id, id, false, '1 day', 'UTC', $4, $4, $5, date_trunc('day', relayd_now()),
       date_trunc('day', relayd_now()) + interval '1 day'
  FROM mailbox
"""
# $1: of whom the live senders are, with their clients' names.
LIVE = """
SELECT m.email_address, c.name AS client
  FROM email_mailboxes m JOIN clients c ON c.id = m.client_id
 WHERE m.email_address LIKE 'live%' ORDER BY length(m.email_address), m.email_address
"""
BLOCKED = "SELECT count(*) FROM mailbox_lanes WHERE blocked_by IS NOT NULL AND blocked_until > relayd_now()"
WAITING = """
SELECT count(*) FROM email_queue q JOIN email_mailboxes m ON m.id = q.mailbox_id
 WHERE q.status IN ('queued', 'sending') AND m.email_address LIKE 'live%'
"""


async def fill(connection: Connection, database: Database, world: World, *, sink: tuple[str, int]) -> UUID:
    """Make it; returns the upstream, which leads to the sink. `database` is a worker's."""
    await connection.execute(CLIENTS, world.clients)
    await connection.execute(DOMAINS)
    upstream_id: UUID = await connection.fetchval(UPSTREAM, loopback(sink[0]), sink[1])
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(MAILBOXES, upstream_id, "live", world.live, 100_000_000, 0, world.clients)
        await connection.execute(
            MAILBOXES, upstream_id, "spent", world.crowd, world.crowd_limit, world.crowd_used, world.crowd_clients
        )
        await connection.execute(backlog.LANES)
    if world.entries:
        await backlog.fill_waiting(connection, world.entries, world.per_mailbox, world.recipients_per_message)
    if world.crowd_limit is not None and world.crowd_used >= world.crowd_limit:
        while (await product.claim(database, upstream_id, batch=500, claimant="bench/fill"))[1]:
            pass
    await backlog.settle_down(connection)
    return upstream_id


async def live_senders(connection: Connection) -> list[tuple[str, str]]:
    """Address and client of each live mailbox."""
    return [(row["email_address"], row["client"]) for row in await connection.fetch(LIVE)]


async def counted(connection: Connection) -> dict[str, Any]:
    """How many lanes a budget blocks, how many live entries have not left."""
    return {
        "blocked_lanes": await connection.fetchval(BLOCKED),
        "live_waiting": await connection.fetchval(WAITING),
    }
