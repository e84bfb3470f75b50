"""Let a pool's mail leave by another member when its own cannot send now: its limit is used up, or it is paused."""

from collections import Counter
from collections.abc import Callable, Sequence

from relayd.rules.mail_class import MailClass
from relayd.rules.pool_choice import best, room
from relayd.rules.states import LaneClass
from relayd.rules.upkeep_events import PoolMailMoved, UpkeepEvent
from relayd.store import pool_moves, pool_standing
from relayd.store.pool import Database
from relayd.store.pool_moves import Stuck
from relayd.store.pool_standing import Member

# As many as one transaction moves, and as a member without a limit is given in a round.
BATCH = 500
# So many members in vain, and a lane waits for the next round: it is in somebody's hands, or nothing in it is due.
TRIES = 20


async def move_in_pools(database: Database, *, emit: Callable[[UpkeepEvent], None], wake: Callable[[], None]) -> None:
    """One round. Safe to repeat and to be cut off: each move is a transaction of its own."""
    async with database.connection() as connection:
        stuck = await pool_moves.stuck(connection)
        members = await pool_standing.members(connection, sorted({lane.pool_id for lane in stuck})) if stuck else []
    given: Counter[int] = Counter()
    for lane in stuck:
        others = [each for each in members if each.pool_id == lane.pool_id]
        if await _empty(database, lane, others, given, emit):
            wake()


async def _empty(
    database: Database,
    lane: Stuck,
    members: Sequence[Member],
    given: Counter[int],
    emit: Callable[[UpkeepEvent], None],
) -> int:
    """Give the lane's entries to the best members, one after the other, as long as there is room; returns how many."""
    mail_class = MailClass.BULK if lane.lane_class is LaneClass.BULK else MailClass.TRANSACTIONAL
    left = [each for each in members if _can_take(each, mail_class, given)]
    total, tries = 0, 0
    while left and tries < TRIES:
        standings = [each.standing(mail_class) for each in left]
        chosen = best(standings, units=1, taken=given)
        assert chosen is not None
        goal, standing = left.pop(chosen), standings[chosen]
        space = room(standing, given[standing.lane_id])
        most = BATCH if space is None else min(BATCH, space)
        address = str(goal.mailbox.address)
        text = f"moved from {lane.mailbox} to {address} of the same pool: {lane.why}"
        async with database.transaction() as connection:
            moved = await pool_moves.move(connection, lane, to_lane_id=standing.lane_id, most=most, text=text)
        tries = 0 if moved else tries + 1
        if moved:
            given[standing.lane_id] += moved
            total += moved
            emit(PoolMailMoved(from_mailbox=lane.mailbox, to_mailbox=address, entries=moved, reason=lane.why))
    return total


def _can_take(member: Member, mail_class: MailClass, given: Counter[int]) -> bool:
    standing = member.standing(mail_class)
    space = room(standing, given[standing.lane_id])
    return standing.may_send and (space is None or space > 0)
