"""Keep mail on its way: lanes that a worker could not move any more, entries that a broken upstream has kept back, and
what waits where routes and lists said before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from relayd.rules.routing import Choice, route_for, share_of
from relayd.rules.states import LaneClass, Status
from relayd.rules.upkeep_events import MailRerouted, UpkeepEvent
from relayd.store import routing, steering
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.routing import ClientRoutes, Waiting

_LaneKey = tuple[UUID, LaneClass, UUID | None, UUID | None]

PAGE = 500
# What workers know of routes is a second old, and a message may take a while from there into the queue.
AGAIN_AFTER = timedelta(seconds=5)
# The second walk over a long queue takes a while; what it has not come to yet may be claimed where it was before.
WALK = timedelta(minutes=5)


async def steer(database: Database, wake: Callable[[], None]) -> None:
    """Every lane that could be elsewhere."""
    if await steering.steer(database):
        wake()


async def let_go(database: Database, wake: Callable[[], None]) -> None:
    """What was deferred since its upstream failed, and has another way."""
    if await steering.let_go(database):
        wake()


async def reroute(
    database: Database,
    *,
    longest_flight: timedelta,
    emit: Callable[[UpkeepEvent], None],
    wake: Callable[[], None],
) -> None:
    """Walk over all that waits, if routes or lists have changed. What is cut off begins anew.

    `longest_flight`: the longest that an entry may be out of the queue, from its claim until it is taken back.
    """
    async with database.connection() as connection:
        began_at = await routing.to_follow(connection, again_after=[AGAIN_AFTER, longest_flight + WALK])
    if began_at is None:
        return
    known = _Known()
    moved = 0
    for status in (Status.QUEUED, Status.PENDING):
        moved += await _walk(database, status, known, wake)
    async with database.connection() as connection:
        await routing.followed(connection, began_at)
    if moved:
        emit(MailRerouted(moved))


async def _walk(database: Database, status: Status, known: "_Known", wake: Callable[[], None]) -> int:
    moved, last = 0, None
    while True:
        async with database.connection() as connection:
            page = await routing.waiting(connection, status, last, PAGE)
            await known.learn(connection, page)
        for key in sorted(known.lacking(page), key=str):
            # Each by itself, before any entry is locked: entries come before mailboxes, budgets and lanes.
            async with database.transaction() as connection:
                known.lanes[key] = await routing.lane(connection, *key)
        moves = known.moves(page)
        if moves:
            async with database.transaction() as connection:
                moved += await routing.move(connection, moves)
            wake()
        if len(page) < PAGE:
            return moved
        last = page[-1]


@dataclass
class _Known:
    """What one walk has learned: the same for all that it sees."""

    routes: dict[UUID, ClientRoutes] = field(default_factory=dict)
    choices: dict[UUID, tuple[Choice, ...]] = field(default_factory=dict)
    lanes: dict[_LaneKey, int | None] = field(default_factory=dict)

    async def learn(self, connection: Connection, page: Sequence[Waiting]) -> None:
        """The routes and lists that these may take."""
        for client_id in {each.client_id for each in page} - self.routes.keys():
            self.routes[client_id] = await routing.routes_of(connection, client_id)
        unknown = {each.mailbox_id for each in page} - self.choices.keys()
        if unknown:
            found = await routing.choices_of(connection, sorted(unknown))
            self.choices |= {mailbox_id: found.get(mailbox_id, ()) for mailbox_id in unknown}

    def lacking(self, page: Sequence[Waiting]) -> set[_LaneKey]:
        """Where some of these should stand, and no lane is known yet."""
        return {key for _, key in self._astray(page)} - self.lanes.keys()

    def moves(self, page: Sequence[Waiting]) -> list[tuple[UUID, int, int]]:
        """Those that stand in another lane than they should: id, from, to."""
        goals = [(each, self.lanes[key]) for each, key in self._astray(page)]
        return [(each.entry_id, each.lane_id, lane_id) for each, lane_id in goals if lane_id is not None]

    def _astray(self, page: Sequence[Waiting]) -> list[tuple[Waiting, _LaneKey]]:
        ways = [(each, self._way(each)) for each in page]
        return [
            (each, (each.mailbox_id, each.lane_class, *way))
            for each, way in ways
            if way != (each.route_id, each.share_id)
        ]

    def _way(self, each: Waiting) -> tuple[UUID | None, UUID | None]:
        if each.lane_class is LaneClass.DSN:
            return None, None
        rules = self.routes[each.client_id].rules
        rule = route_for(rules, mailbox_id=each.mailbox_id, author=each.author, recipient=each.recipient)
        if rule is None:
            return None, share_of(each.queue_id, self.choices[each.mailbox_id])
        return rule.id, share_of(each.queue_id, rule.choices)
