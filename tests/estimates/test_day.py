"""What `explain` said at the start of a day is what then happens. `python -m tests.estimates` measures it at length."""

from datetime import timedelta

from relayd.store.pool import Database
from tests.estimates import scene
from tests.estimates.day import Left, run

TOLERANCE = timedelta(minutes=1)


async def test_entries_leave_when_explain_said(db: Database) -> None:
    async with db.connection() as connection:
        await scene.furnish(connection, 400)
    left = await run(db, most_days=1)
    assert len(left) > 300
    assert {one.kind for one in left} >= {"client_day", "domain_day", "mailbox_day", "mailbox_hour", "provider_hour"}
    # How many turns bulk mail gets beside other mail depends on how the claims fall: those at a window's edge may go
    # in the next.
    in_bulk = [one for one in left if one.mailbox in scene.IN_BULK]
    assert [one for one in left if not is_near(one) and one not in in_bulk] == []
    assert sum(is_near(one) for one in in_bulk) > 0.8 * len(in_bulk)


def is_near(one: Left) -> bool:
    return abs(one.left_at - one.estimated_at) <= TOLERANCE
