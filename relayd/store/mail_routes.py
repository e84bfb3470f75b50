"""Routes: mail that goes another way than its mailbox's list says."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.store import names, routing
from relayd.store.connection import Connection
from relayd.store.violations import explained
from relayd.store.ways import Member


@dataclass(frozen=True, slots=True)
class MailRouteRecord:
    """A living route. `client` None: for mail of all clients."""

    id: UUID
    name: str
    client_id: UUID | None
    client: str | None
    mailbox_id: UUID | None
    mailbox: str | None
    recipient_domain: str | None
    header_from: str | None
    position: int
    upstreams: list[str]
    may_misalign: bool
    created_at: datetime
    updated_at: datetime


# All the living. Indexes: mail_routes_name, mail_route_upstreams_route_id_upstream_id_key.
SELECT_LIVING = """
SELECT r.id, r.name, r.client_id, c.name AS client, r.mailbox_id, m.email_address AS mailbox, r.recipient_domain,
       r.header_from, r.position,
       ARRAY(SELECT e.name || COALESCE('=' || x.weight, '') FROM mail_route_upstreams x
               JOIN email_configurations e ON e.id = x.upstream_id
              WHERE x.route_id = r.id ORDER BY x.position) AS upstreams,
       COALESCE((SELECT bool_or(may_misalign) FROM mail_route_upstreams x WHERE x.route_id = r.id), false)
         AS may_misalign,
       r.created_at, r.updated_at
  FROM mail_routes r
  LEFT JOIN clients c ON c.id = r.client_id
  LEFT JOIN email_mailboxes m ON m.id = r.mailbox_id
 WHERE r.deleted_at IS NULL
"""

# In the order in which they are asked. Of one client, those for all included; NULL: of all. Index: mail_routes_name.
LIST = (
    SELECT_LIVING
    + """
   AND ($1::uuid IS NULL OR r.client_id IS NULL OR r.client_id = $1)
 ORDER BY r.mailbox_id IS NULL, r.position, r.name
"""
)

# Index: mail_routes_name.
FIND = SELECT_LIVING + " AND r.name = $1"
FIND_TO_CHANGE = FIND + " FOR UPDATE OF r"
SOME_NAMES = "SELECT name FROM mail_routes WHERE deleted_at IS NULL ORDER BY name LIMIT $1"
# Behind all others where nobody says.
NEXT_POSITION = "SELECT COALESCE(max(position) + 10, 10) FROM mail_routes WHERE deleted_at IS NULL"

ADD = """
INSERT INTO mail_routes (client_id, name, mailbox_id, recipient_domain, header_from, position)
VALUES ($1, $2, $3, $4, $5, $6)
"""
# Index: mail_routes_pkey.
SAVE = "UPDATE mail_routes SET recipient_domain = $2, header_from = $3, position = $4 WHERE id = $1"
REMOVE = "UPDATE mail_routes SET deleted_at = relayd_now() WHERE id = $1"

# Index: mail_route_upstreams_route_id_upstream_id_key.
FORGET_UPSTREAMS = "DELETE FROM mail_route_upstreams WHERE route_id = $1"
ADD_UPSTREAMS = """
INSERT INTO mail_route_upstreams (client_id, route_id, upstream_id, position, weight, may_misalign)
SELECT $1, $2, t.upstream_id, t.place - 1, t.weight, $5
  FROM unnest($3::uuid[], $4::integer[]) WITH ORDINALITY AS t (upstream_id, weight, place)
"""
SET_MISALIGN = "UPDATE mail_route_upstreams SET may_misalign = $2 WHERE route_id = $1 AND may_misalign <> $2"

# Mailboxes that have mail of this route may come to use all of its upstreams. Index: mailbox_lanes_route.
DEFAULT_QUOTAS = """
SELECT relayd_default_quotas(of_route.mailbox_id, $2::uuid[])
  FROM (SELECT DISTINCT mailbox_id FROM mailbox_lanes WHERE route_id = $1 ORDER BY 1) of_route
"""
REFRESH = "SELECT relayd_refresh_lanes(ARRAY(SELECT id FROM mailbox_lanes WHERE route_id = $1 ORDER BY id))"


async def add(
    connection: Connection,
    *,
    name: str,
    client_id: UUID | None,
    mailbox_id: UUID | None,
    recipient_domain: str | None,
    header_from: str | None,
    position: int | None,
    upstreams: Sequence[Member],
    may_misalign: bool,
) -> MailRouteRecord:
    """A new route. Raises Refusal if the name is taken."""
    if position is None:
        position = await connection.fetchval(NEXT_POSITION)
    with explained(taken=f"there is a route {name} already"):
        await connection.execute(ADD, client_id, name, mailbox_id, recipient_domain, header_from, position)
    made = await find(connection, name)
    await put_upstreams(connection, made, upstreams, may_misalign=may_misalign)
    return await find(connection, name)


async def find(connection: Connection, name: str) -> MailRouteRecord:
    """The living route of that name. Raises NotFound, which says which there are."""
    return await _find(connection, FIND, name)


async def find_to_change(connection: Connection, name: str) -> MailRouteRecord:
    """As find, and nobody else changes it until this transaction ends."""
    return await _find(connection, FIND_TO_CHANGE, name)


async def living(connection: Connection, *, client_id: UUID | None = None) -> list[MailRouteRecord]:
    """In the order in which they are asked; of one client with those for all."""
    return [MailRouteRecord(**dict(row)) for row in await connection.fetch(LIST, client_id)]


async def save(connection: Connection, route: MailRouteRecord) -> None:
    """Store the conditions and the place of a route found with find_to_change; what waits follows."""
    await connection.execute(SAVE, route.id, route.recipient_domain, route.header_from, route.position)
    await routing.changed(connection)


async def put_upstreams(
    connection: Connection, route: MailRouteRecord, upstreams: Sequence[Member], *, may_misalign: bool
) -> None:
    """The upstreams of a route from now on; what waits follows."""
    ids = [each.upstream_id for each in upstreams]
    await connection.execute(FORGET_UPSTREAMS, route.id)
    await connection.execute(
        ADD_UPSTREAMS, route.client_id, route.id, ids, [each.weight for each in upstreams], may_misalign
    )
    await connection.execute(DEFAULT_QUOTAS, route.id, ids)
    await connection.execute(REFRESH, route.id)
    await routing.changed(connection)


async def set_misalign(connection: Connection, route: MailRouteRecord, may_misalign: bool) -> None:
    """Whether its mail may go on through an upstream that DNS does not vouch for."""
    await connection.execute(SET_MISALIGN, route.id, may_misalign)
    await connection.execute(REFRESH, route.id)


async def remove(connection: Connection, route: MailRouteRecord) -> None:
    """Remove a route found with find_to_change: what waits goes as its mailbox's list says."""
    await connection.execute(REMOVE, route.id)
    await connection.execute(FORGET_UPSTREAMS, route.id)
    await connection.execute(REFRESH, route.id)
    await routing.changed(connection)


async def _find(connection: Connection, statement: str, name: str) -> MailRouteRecord:
    row = await connection.fetchrow(statement, name)
    if row is None:
        some = [row["name"] for row in await connection.fetch(SOME_NAMES, names.ASKED)]
        raise names.unknown(
            "route", name, some, add=f"relayd route add {name} --recipient-domain DOMAIN --upstreams a,b"
        )
    return MailRouteRecord(**dict(row))
