"""Which queue entries an operator means: ids or a filter, counted and walked in pages.

Live entries are walked along (status, created_at), ended ones along their ids, so that a page costs a page wherever
the walk stands. A page locks nothing; what acts on it checks each entry's state again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from relayd.errors import NotFound
from relayd.mail.address import key_of, spellings, to_ascii
from relayd.rules.states import LIVE, PendingReason, Status
from relayd.store.connection import Connection
from relayd.store.entries import unknown_id
from relayd.store.ids import first_id_at

# Ids are stamped by the machine that made them, created_at by the database: how far apart their clocks may be.
_CLOCK_SLACK = timedelta(hours=1)

# For ended entries of a filter that has no other end.
LOOKS_BACK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Filter:
    """What an operator asked for. Empty fields select everything; given ones must all hold."""

    ids: tuple[UUID, ...] = ()  # of messages or entries
    states: tuple[Status, ...] = ()
    mailbox: str | None = None
    domain: str | None = None  # the sender's
    recipient: str | None = None  # an address, or @domain
    older_than: timedelta | None = None
    younger_than: timedelta | None = None
    client: str | None = None
    upstream: str | None = None

    @property
    def is_empty(self) -> bool:
        """Selects the whole queue."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter with its names looked up and its ages turned into instants."""

    read_at: datetime  # the database's clock
    states: tuple[Status, ...]
    ids: tuple[UUID, ...] | None
    mailbox_ids: tuple[UUID, ...] | None
    client_id: UUID | None
    upstream_id: UUID | None
    recipients: tuple[str, ...] | None  # every spelling
    recipient_domains: tuple[str, ...] | None
    created_after: datetime | None
    ended_after: datetime | None
    created_before: datetime
    first_ended_id: UUID | None
    looks_back: timedelta | None  # how far for ended ones, where the filter does not say
    includes_cancelled: bool = True
    pending_reason: PendingReason | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk stands: behind this entry, in this state's part of the walk."""

    status: Status
    created_at: datetime
    entry_id: UUID


# Index: the pkey of the one row; clocks only.
CLOCK = "SELECT relayd_now() AS now, clock_offset FROM relayd_state"

# Removed mailboxes and domains too: their entries may still be asked for. Index: email_mailboxes_address's expression
# serves the living; there are few others.
MAILBOX_IDS = "SELECT id FROM email_mailboxes WHERE lower(email_address) = $1"
DOMAIN_MAILBOX_IDS = """
SELECT m.id FROM email_domains d LEFT JOIN email_mailboxes m ON m.domain_id = d.id WHERE d.domain = $1
"""

# A removed one only where no living one has the name. Indexes: clients_name, email_configurations_name.
CLIENT_ID = "SELECT id FROM clients WHERE name = $1 ORDER BY deleted_at NULLS FIRST LIMIT 1"
UPSTREAM_ID = "SELECT id FROM email_configurations WHERE name = $1 ORDER BY deleted_at NULLS FIRST LIMIT 1"

# Which of these are ids of a message or an entry. Indexes: messages_pkey, email_queue_pkey.
KNOWN_IDS = """
SELECT t.id FROM unnest($1::uuid[]) AS t (id)
 WHERE EXISTS (SELECT FROM messages m WHERE m.id = t.id) OR EXISTS (SELECT FROM email_queue q WHERE q.id = t.id)
"""

# $1-$11. An entry goes by its latest claim's upstream; one that waits, by its lane's. Absent conditions fold away
# when the statement is planned for its parameters (see CUSTOM_PLANS), so that the right index serves what is left.
_MATCHES = """
       ($1::uuid[] IS NULL OR q.id = ANY($1) OR q.message_id = ANY($1))
   AND ($2::uuid[] IS NULL OR q.mailbox_id = ANY($2))
   AND ($3::uuid IS NULL OR q.client_id = $3)
   AND ($4::uuid IS NULL OR $4 = CASE WHEN q.status IN ('pending', 'queued') OR q.upstream_id IS NULL
          THEN (SELECT l.upstream_id FROM mailbox_lanes l WHERE l.id = q.lane_id) ELSE q.upstream_id END)
   AND ($5::text[] IS NULL OR lower(q.recipient_address) = ANY($5))
   AND ($6::text[] IS NULL OR EXISTS (SELECT FROM unnest($6) AS t (domain)
          WHERE right(lower(q.recipient_address), length(domain)) = domain))
   AND ($7::timestamptz IS NULL OR q.created_at >= $7)
   AND q.created_at <= $8::timestamptz
   AND ($9::uuid IS NULL OR q.id >= $9)
   AND ($10::bool OR q.status <> 'failed' OR q.reason IS DISTINCT FROM 'cancelled')
   AND ($11::text IS NULL OR q.pending_reason = $11)
"""

# Indexes: email_queue_live for live states, the id range for ended ones, email_queue_recipient, email_queue_message.
COUNT_LIVE = f"""
SELECT q.status, count(*) AS count FROM email_queue q
 WHERE (q.status IN ('pending', 'queued', 'sending')) IS TRUE AND q.status = ANY($12::text[]) AND {_MATCHES} GROUP BY 1
"""  # noqa: S608 (constants of this module)
COUNT_ENDED = f"""
SELECT q.status, count(*) AS count FROM email_queue q WHERE q.status = ANY($12::text[]) AND {_MATCHES} GROUP BY 1
"""  # noqa: S608 (constants of this module)

# One state's next page. Indexes: email_queue_live, then email_queue_pkey.
PAGE_LIVE = f"""
SELECT q.id, q.created_at FROM email_queue q
 WHERE (q.status IN ('pending', 'queued', 'sending')) IS TRUE AND q.status = $12::text AND {_MATCHES}
   AND ($13::timestamptz IS NULL OR (q.created_at, q.id) > ($13, $14::uuid))
 ORDER BY q.created_at, q.id LIMIT $15
"""  # noqa: S608 (constants of this module)
PAGE_ENDED = f"""
SELECT q.id, q.created_at FROM email_queue q
 WHERE q.status = $12::text AND {_MATCHES} AND ($13::timestamptz IS NULL OR q.id < $14::uuid)
 ORDER BY q.id DESC LIMIT $15
"""  # noqa: S608 (constants of this module)

# A plan that must serve every filter serves none of them.
CUSTOM_PLANS = "SELECT set_config('plan_cache_mode', 'force_custom_plan', true)"


async def resolve(connection: Connection, wanted: Filter, *, states: Sequence[Status]) -> Selection:
    """Look up the filter's names. `states` are those meant where the filter gives none.

    Raises NotFound for a name or an id that nothing has.
    """
    clock = await connection.fetchrow(CLOCK)
    assert clock is not None
    if wanted.ids:
        await _require_known(connection, wanted.ids)
    before = clock["now"] - (wanted.older_than or timedelta())
    after = clock["now"] - wanted.younger_than if wanted.younger_than is not None else None
    # Ended ones go back to the first day. Ids and addresses find theirs by an index; all else needs an end.
    is_bounded = after is not None or wanted.ids or wanted.recipient
    ended_after = after if is_bounded else before - LOOKS_BACK
    recipients = tuple(spellings(wanted.recipient.lower())) if wanted.recipient else None
    is_domain = wanted.recipient is not None and wanted.recipient.startswith("@")
    return Selection(
        read_at=clock["now"],
        states=tuple(wanted.states or states),
        ids=wanted.ids or None,
        mailbox_ids=await _mailbox_ids(connection, wanted),
        client_id=await _named(connection, CLIENT_ID, "client", wanted.client),
        upstream_id=await _named(connection, UPSTREAM_ID, "upstream", wanted.upstream),
        recipients=None if is_domain else recipients,
        recipient_domains=recipients if is_domain else None,
        created_after=after,
        ended_after=ended_after,
        created_before=before,
        first_ended_id=first_id_at(ended_after - clock["clock_offset"] - _CLOCK_SLACK) if ended_after else None,
        looks_back=None if is_bounded or all(state in LIVE for state in wanted.states or states) else LOOKS_BACK,
    )


async def count(connection: Connection, selection: Selection) -> dict[Status, int]:
    """How many entries of each selected state match. Call inside a transaction."""
    await connection.execute(CUSTOM_PLANS)
    live = [status for status in selection.states if status in LIVE]
    ended = [status for status in selection.states if status not in LIVE]
    rows = await connection.fetch(COUNT_LIVE, *_arguments(selection, live=True), live) if live else []
    rows += await connection.fetch(COUNT_ENDED, *_arguments(selection, live=False), ended) if ended else []
    found = {row["status"]: row["count"] for row in rows}
    return {status: found[status] for status in Status if status in found}


async def page(connection: Connection, selection: Selection, *, after: Position | None, limit: int) -> list[Position]:
    """The next `limit` entries: state by state, live ones oldest first, ended ones newest first.

    Call inside a transaction.
    """
    await connection.execute(CUSTOM_PLANS)
    found: list[Position] = []
    for status in _from(selection.states, after):
        behind = after if after is not None and after.status is status else None
        rows = await connection.fetch(
            PAGE_LIVE if status in LIVE else PAGE_ENDED,
            *_arguments(selection, live=status in LIVE),
            status,
            behind.created_at if behind else None,
            behind.entry_id if behind else None,
            limit - len(found),
        )
        found += [Position(status, row["created_at"], row["id"]) for row in rows]
        if len(found) == limit:
            break
    return found


def only(selection: Selection, states: Sequence[Status]) -> Selection:
    """The part of the selection in these states."""
    return replace(selection, states=tuple(status for status in selection.states if status in states))


def _from(states: Sequence[Status], after: Position | None) -> Sequence[Status]:
    if after is None or after.status not in states:
        return states
    return states[list(states).index(after.status) :]


def _arguments(selection: Selection, *, live: bool) -> tuple[object, ...]:
    return (
        selection.ids,
        selection.mailbox_ids,
        selection.client_id,
        selection.upstream_id,
        selection.recipients,
        selection.recipient_domains,
        selection.created_after if live else selection.ended_after,
        selection.created_before,
        None if live else selection.first_ended_id,
        selection.includes_cancelled,
        selection.pending_reason,
    )


async def _require_known(connection: Connection, ids: Sequence[UUID]) -> None:
    known = {row["id"] for row in await connection.fetch(KNOWN_IDS, list(ids))}
    unknown = [one for one in ids if one not in known]
    if unknown:
        raise unknown_id(*unknown)


async def _mailbox_ids(connection: Connection, wanted: Filter) -> tuple[UUID, ...] | None:
    chosen: set[UUID] | None = None
    if wanted.mailbox is not None:
        rows = await connection.fetch(MAILBOX_IDS, key_of(wanted.mailbox))
        if not rows:
            raise NotFound(f"there is no mailbox {wanted.mailbox}", hint="relayd mailbox list")
        chosen = {row["id"] for row in rows}
    if wanted.domain is not None:
        rows = await connection.fetch(DOMAIN_MAILBOX_IDS, to_ascii(wanted.domain.removeprefix("@")))
        if not rows:
            raise NotFound(f"there is no domain {wanted.domain}", hint="relayd domain list")
        of_domain = {row["id"] for row in rows if row["id"] is not None}
        chosen = of_domain if chosen is None else chosen & of_domain
    return None if chosen is None else tuple(sorted(chosen))


async def _named(connection: Connection, statement: str, noun: str, name: str | None) -> UUID | None:
    if name is None:
        return None
    found: UUID | None = await connection.fetchval(statement, name)
    if found is None:
        raise NotFound(f"there is no {noun} {name}", hint=f"relayd {noun} list")
    return found
