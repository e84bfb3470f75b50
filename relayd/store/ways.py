"""The upstreams of a mailbox or a route: in order, each when those before it cannot, or by weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from relayd.errors import BadValue
from relayd.rules.breaker import BreakerState
from relayd.store import routing, upstreams
from relayd.store.connection import Connection
from relayd.store.mailboxes import MailboxRecord

MOST = 20


@dataclass(frozen=True, slots=True)
class Member:
    """One upstream of a list. `weight` None: the list is in order."""

    upstream_id: UUID
    name: str
    weight: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A member as it stands just now, for mail of one mailbox. `is_aligned` None: DNS has not told."""

    upstream_id: UUID
    name: str
    weight: int | None
    is_active: bool
    paused_at: datetime | None
    breaker: BreakerState
    breaker_reason: str | None
    retry_at: datetime | None
    may_misalign: bool
    is_aligned: bool | None
    why: str | None
    lacks: str | None = None  # what it needs before it can send anything

    @property
    def obstacle(self) -> str | None:
        """Why it could not take over mail of another upstream, and what changes that; None if it could."""
        if not self.is_active:
            return f"{self.name} cannot take over: it is not active; relayd upstream set {self.name} --active"
        if self.lacks is not None:
            return f"{self.name} cannot take over: it has no {self.lacks}; relayd upstream show {self.name}"
        if self.paused_at is not None:
            return f"{self.name} is paused, so mail would wait for it: relayd resume upstream {self.name}"
        if self.may_misalign or self.is_aligned:
            return None
        why = self.why or "DNS has not been asked yet"
        when = "cannot take over" if self.is_aligned is False else "cannot take over yet"
        return f"{self.name} {when}: {why}; publish that, or set --allow-misaligned"

    @property
    def is_usable(self) -> bool:
        """Whether it takes mail, or would if nobody had paused it."""
        return self.is_active and self.breaker is BreakerState.CLOSED


# Index: mailbox_upstreams_mailbox_id_upstream_id_key.
FORGET = "DELETE FROM mailbox_upstreams WHERE mailbox_id = $1"
ADD = """
INSERT INTO mailbox_upstreams (client_id, mailbox_id, upstream_id, position, weight, may_misalign)
SELECT $1, $2, t.upstream_id, t.place - 1, t.weight, $5
  FROM unnest($3::uuid[], $4::integer[]) WITH ORDINALITY AS t (upstream_id, weight, place)
"""
# Index: mailbox_upstreams_mailbox_id_upstream_id_key.
MAY_MISALIGN = "SELECT COALESCE(bool_or(may_misalign), false) FROM mailbox_upstreams WHERE mailbox_id = $1"
SET_MISALIGN = "UPDATE mailbox_upstreams SET may_misalign = $2 WHERE mailbox_id = $1 AND may_misalign <> $2"
# Index: email_mailboxes_pkey.
SET_FIRST = "UPDATE email_mailboxes SET upstream_id = $2 WHERE id = $1 AND upstream_id <> $2"
DEFAULT_QUOTAS = "SELECT relayd_default_quotas($1, $2::uuid[])"
SYNC = "SELECT relayd_sync_lanes(ARRAY[$1::uuid])"

# Of route $2, or of mailbox $1 where that is NULL. Indexes: mail_route_upstreams_route_id_upstream_id_key,
# mailbox_upstreams_mailbox_id_upstream_id_key, upstream_breakers_pkey, upstream_alignments_pkey.
STANDINGS = """
SELECT u.id AS upstream_id, u.name, w.weight, u.is_active AND u.deleted_at IS NULL AS is_active, u.paused_at,
       COALESCE(k.state, 'closed') AS breaker, k.reason AS breaker_reason, NULLIF(k.retry_at, 'infinity') AS retry_at,
       w.may_misalign, a.is_aligned, a.why,
       CASE WHEN u.provider_type = 'sendgrid' AND u.api_key_sealed IS NULL THEN 'API key'
            WHEN u.mode IN ('xoauth2', 'gmail_api') AND u.oauth_refresh_token_sealed IS NULL
             AND u.google_service_account_sealed IS NULL THEN 'login' END AS lacks
  FROM email_mailboxes m
  CROSS JOIN LATERAL (
    SELECT upstream_id, position, weight, may_misalign FROM mail_route_upstreams WHERE route_id = $2
    UNION ALL
    SELECT upstream_id, position, weight, may_misalign FROM mailbox_upstreams WHERE mailbox_id = m.id AND $2 IS NULL
    UNION ALL
    SELECT m.upstream_id, 0, NULL, false
     WHERE $2 IS NULL AND NOT EXISTS (SELECT FROM mailbox_upstreams WHERE mailbox_id = m.id)) w
  JOIN email_configurations u ON u.id = w.upstream_id
  LEFT JOIN upstream_breakers k ON k.upstream_id = u.id
  LEFT JOIN upstream_alignments a ON a.domain_id = m.domain_id AND a.upstream_id = u.id
 WHERE m.id = $1::uuid
 ORDER BY w.position
"""


async def members(
    connection: Connection, wanted: Sequence[tuple[str, int | None]], *, client_id: UUID | None, client: str
) -> list[Member]:
    """The upstreams of these names and weights, which stay while this transaction lasts.

    Raises BadValue for a list that makes no sense, NotFound, and Refusal for an upstream that is another client's.
    `client_id` None: for mail of all clients, so none may be one client's.
    """
    names = [name for name, _ in wanted]
    if not 1 <= len(names) <= MOST:
        raise BadValue(f"a list has from 1 to {MOST} upstreams")
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadValue(f"upstream {min(twice)} is named twice")
    if len({weight is None for _, weight in wanted}) > 1:
        raise BadValue(
            "either every upstream has a weight or none has", hint="--upstreams a,b or --upstreams a=70,b=30"
        )
    found = []
    for name, weight in wanted:
        upstream = await upstreams.choose_for(connection, name, client_id=client_id, client=client)
        found.append(Member(upstream.id, name, weight))
    return found


async def put(
    connection: Connection, mailbox: MailboxRecord, listed: Sequence[Member], *, may_misalign: bool | None
) -> None:
    """The list of a mailbox found with find_to_change, from now on; mail follows. `may_misalign` None: as it was."""
    if may_misalign is None:
        may_misalign = await connection.fetchval(MAY_MISALIGN, mailbox.id)
    # Its trigger takes away a list that begins with another one.
    await connection.execute(SET_FIRST, mailbox.id, listed[0].upstream_id)
    await connection.execute(FORGET, mailbox.id)
    if len(listed) > 1:
        ids = [each.upstream_id for each in listed]
        weights = [each.weight for each in listed]
        await connection.execute(ADD, mailbox.client_id, mailbox.id, ids, weights, may_misalign)
        await connection.execute(DEFAULT_QUOTAS, mailbox.id, ids)
    await connection.execute(SYNC, mailbox.id)
    await routing.changed(connection)


async def set_misalign(connection: Connection, mailbox: MailboxRecord, may_misalign: bool) -> None:
    """Whether the mailbox's mail may go on through an upstream that DNS does not vouch for."""
    await connection.execute(SET_MISALIGN, mailbox.id, may_misalign)
    await connection.execute(SYNC, mailbox.id)


# One mailbox of each domain that a route may be for. Indexes: mail_routes_pkey, email_mailboxes_client.
ROUTE_MAILBOXES = """
SELECT DISTINCT ON (m.domain_id) m.id FROM mail_routes r
  JOIN email_mailboxes m ON (r.mailbox_id IS NULL OR m.id = r.mailbox_id)
   AND (r.client_id IS NULL OR m.client_id = r.client_id) AND m.deleted_at IS NULL
 WHERE r.id = $1 ORDER BY m.domain_id, m.id LIMIT 20
"""


async def obstacles(connection: Connection, mailbox_id: UUID) -> list[str]:
    """Why upstreams of a mailbox's list could not take over from the first, each in a sentence."""
    listed = await standings(connection, mailbox_id, None)
    return [text for each in listed[1:] if (text := each.obstacle)]


async def route_obstacles(connection: Connection, route_id: UUID) -> list[str]:
    """As `obstacles`, for mail of the route; of the first domains that it may be for."""
    found: dict[str, None] = {}
    for row in await connection.fetch(ROUTE_MAILBOXES, route_id):
        for each in (await standings(connection, row["id"], route_id))[1:]:
            if text := each.obstacle:
                found[text] = None
    return list(found)


async def standings(connection: Connection, mailbox_id: UUID, route_id: UUID | None) -> list[Standing]:
    """The upstreams that a mailbox's mail of that route (None: of no route) may go through, in order."""
    return [
        Standing(**{**dict(row), "breaker": BreakerState(row["breaker"])})
        for row in await connection.fetch(STANDINGS, mailbox_id, route_id)
    ]


def goes_through(standings: Sequence[Standing], preferred: Standing) -> Standing:
    """Where mail that would rather go through `preferred` goes now. The database's relayd_steered says the same."""
    others = [each for each in standings if each is not preferred]
    for each in (preferred, *others):
        if each.is_usable and (each is preferred or each.may_misalign or each.is_aligned):
            return each
    return preferred
