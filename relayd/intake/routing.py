"""Which lane each recipient of a message waits in. Asked for every message, so the database is asked once a second a
client, and once for each lane."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from relayd.mail.address import Address
from relayd.rules.mail_class import MailClass
from relayd.rules.routing import Choice, route_for, share_of
from relayd.rules.states import LaneClass
from relayd.store import routing
from relayd.store.directory import SendingMailbox
from relayd.store.pool import Database
from relayd.store.queue import NewEntry
from relayd.store.routing import ClientRoutes
from relayd.store.timed_cache import TimedCache

_LaneKey = tuple[UUID, LaneClass, UUID | None, UUID | None]
# Lanes stay: this long only so that those of mailboxes long gone are forgotten.
LANE_SECONDS = 3600.0


class Routing:
    """One a worker. Raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._routes: TimedCache[UUID, ClientRoutes] = TimedCache(self._load_routes)
        self._choices: TimedCache[UUID, tuple[Choice, ...]] = TimedCache(self._load_choices)
        self._lanes: TimedCache[_LaneKey, int | None] = TimedCache(self._load_lane, seconds=LANE_SECONDS)

    async def place(
        self,
        queue_id: UUID,
        mailbox: SendingMailbox,
        mail_class: MailClass,
        author: Address,
        entries: Sequence[NewEntry],
    ) -> tuple[NewEntry, ...]:
        """The entries with their lanes; those that have none wait in the mailbox's own."""
        routes = await self._routes.get(mailbox.client_id)
        if not routes.rules and not routes.has_weights:
            return tuple(entries)
        own = await self._choices.get(mailbox.id) if routes.has_weights else ()
        lane_class = LaneClass.BULK if mail_class is MailClass.BULK else LaneClass.MAIL
        placed = []
        for entry in entries:
            rule = route_for(routes.rules, mailbox_id=mailbox.id, author=author, recipient=entry.recipient)
            share_id = share_of(queue_id, rule.choices if rule else own)
            if rule is None and share_id is None:
                placed.append(entry)
                continue
            lane_id = await self._lanes.get((mailbox.id, lane_class, rule.id if rule else None, share_id))
            placed.append(replace(entry, lane_id=lane_id))
        return tuple(placed)

    async def _load_routes(self, client_id: UUID) -> ClientRoutes:
        async with self._database.connection() as connection:
            return await routing.routes_of(connection, client_id)

    async def _load_choices(self, mailbox_id: UUID) -> tuple[Choice, ...]:
        async with self._database.connection() as connection:
            return (await routing.choices_of(connection, [mailbox_id])).get(mailbox_id, ())

    async def _load_lane(self, key: _LaneKey) -> int | None:
        async with self._database.transaction() as connection:
            return await routing.lane(connection, *key)
