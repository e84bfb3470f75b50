"""What indexes cost: updates that are to leave them alone do."""

from relayd.store import attempts
from relayd.store.connection import Connection
from relayd.store.pool import Database
from tests.builders import claim_all, make_sender, put_many

COUNTS = """
SELECT n_tup_upd AS updates, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = 'email_queue'
"""


async def counted(c: Connection) -> tuple[int, int]:
    # What this session has done is counted at the latest when the next statement after this one is read.
    await c.execute("SELECT pg_stat_force_next_flush()")
    row = await c.fetchrow(COUNTS)
    assert row is not None
    return row["updates"], row["hot"]


async def test_the_start_of_an_attempt_writes_to_no_index(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put_many(c, sender, 30)
        claimed = await claim_all(c, sender.upstream_id)
        updates, hot = await counted(c)
        assert hot == 0 and updates == 30  # a claim changes the state, which indexes are over
        started = await attempts.start(c, [(entry, "capture") for entry in claimed], lease_seconds=600)
        assert len(started) == 30
        updates, hot = await counted(c)
    assert updates == 60
    # A page may have no room left for a new version of one of its rows.
    assert hot >= 20
