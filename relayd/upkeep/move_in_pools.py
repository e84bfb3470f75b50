"""Let a pool's mail leave by another member when its own cannot send now: its limit is used up, or it is paused.

Whoever sends it, mail of a route goes where the route says: it moves to the other member's lane of the same route.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from relayd.rules.mail_class import MailClass
from relayd.rules.pool_choice import best, room
from relayd.rules.routing import RouteRule, route_for
from relayd.rules.states import LaneClass
from relayd.rules.upkeep_events import PoolMailMoved, UpkeepEvent
from relayd.store import pool_moves, pool_standing, routing
from relayd.store.pool import Database
from relayd.store.pool_moves import Stuck
from relayd.store.pool_standing import Candidate, Member

# As many as one transaction moves, and as a member without a limit is given in a round.
BATCH = 500
# So many members in vain, and a lane waits for the next round: it is in somebody's hands, or nothing in it is due. So
# many lanes of a route are made in a round.
TRIES = 20


@dataclass
class _Round:
    """`given`: units by lane. `rules`: the routes of a client's mail."""

    database: Database
    members: Sequence[Member]
    emit: Callable[[UpkeepEvent], None]
    given: Counter[int] = field(default_factory=Counter)
    rules: dict[UUID, tuple[RouteRule, ...]] = field(default_factory=dict)


async def move_in_pools(database: Database, *, emit: Callable[[UpkeepEvent], None], wake: Callable[[], None]) -> None:
    """One round. Safe to repeat and to be cut off: each move is a transaction of its own."""
    async with database.connection() as connection:
        stuck = await pool_moves.stuck(connection)
        members = await pool_standing.members(connection, sorted({lane.pool_id for lane in stuck})) if stuck else []
    this = _Round(database, members, emit)
    for lane in stuck:
        if await _empty(this, lane):
            wake()


async def _empty(this: _Round, lane: Stuck) -> int:
    """Give the lane's entries to the best members, one after the other, as long as there is room; returns how many."""
    left = [each for each in await _candidates(this, lane) if _can_take(each, this.given)]
    total, tries = 0, 0
    while left and tries < TRIES:
        standings = [each.standing for each in left]
        chosen = best(standings, units=1, taken=this.given)
        assert chosen is not None
        goal, standing = left.pop(chosen), standings[chosen]
        space = room(standing, this.given[standing.lane_id])
        most = BATCH if space is None else min(BATCH, space)
        only = await _free_to_go(this, lane, goal)
        text = f"moved from {lane.mailbox} to {goal.address} of the same pool: {lane.why}"
        async with this.database.transaction() as connection:
            moved = await pool_moves.move(
                connection, lane, to_lane_id=standing.lane_id, most=most, text=text, only=only
            )
        tries = 0 if moved else tries + 1
        if moved:
            this.given[standing.lane_id] += moved
            total += moved
            this.emit(PoolMailMoved(from_mailbox=lane.mailbox, to_mailbox=goal.address, entries=moved, reason=lane.why))
    return total


async def _candidates(this: _Round, lane: Stuck) -> list[Candidate]:
    """The members' lanes of the same way: their home, or those of the route, made if need be."""
    if lane.route_id is None:
        mail_class = MailClass.BULK if lane.lane_class is LaneClass.BULK else MailClass.TRANSACTIONAL
        return [
            Candidate(each.mailbox.id, str(each.mailbox.address), each.standing(mail_class))
            for each in this.members
            if each.pool_id == lane.pool_id
        ]
    async with this.database.connection() as connection:
        there = await pool_standing.on_route(connection, lane.pool_id, lane.lane_class, lane.route_id, lane.share_id)
        if any(_can_take(each, this.given) for each in there):
            return there
        missing = await pool_moves.without_lane(connection, lane, most=TRIES)
    for mailbox_id in missing:
        # Each in a transaction of its own: a mailbox is locked before any lane.
        async with this.database.transaction() as connection:
            await routing.lane(connection, mailbox_id, lane.lane_class, lane.route_id, lane.share_id)
    async with this.database.connection() as connection:
        return await pool_standing.on_route(connection, lane.pool_id, lane.lane_class, lane.route_id, lane.share_id)


async def _free_to_go(this: _Round, lane: Stuck, goal: Candidate) -> list[UUID] | None:
    """The entries for which the other mailbox has no route of its own, which would send them another way; None: all."""
    if lane.client_id not in this.rules:
        async with this.database.connection() as connection:
            this.rules[lane.client_id] = (await routing.routes_of(connection, lane.client_id)).rules
    own = [rule for rule in this.rules[lane.client_id] if rule.mailbox_id == goal.mailbox_id]
    if not own:
        return None
    async with this.database.connection() as connection:
        due = await pool_moves.due(connection, lane)
    return [
        entry_id
        for entry_id, author, recipient in due
        if route_for(own, mailbox_id=goal.mailbox_id, author=author, recipient=recipient) is None
    ]


def _can_take(candidate: Candidate, given: Counter[int]) -> bool:
    space = room(candidate.standing, given[candidate.standing.lane_id])
    return candidate.standing.may_send and (space is None or space > 0)
