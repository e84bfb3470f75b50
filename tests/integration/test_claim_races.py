"""Claims that were lost, are taken back, or meet others half way: nothing is counted, returned or sent twice."""

from relayd.rules.outcome import Cause, Postponed, Scope, Stage
from relayd.store.claim import claim
from relayd.store.pool import Database
from tests.builders import make_sender, put
from tests.integration.test_claim import (
    early_in_the_day,  # noqa: F401
    one_claim,
    settle,
    start,
    used,
)

UNTRIED = Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, "not tried"), 0)


async def test_a_claim_lost_in_a_crash_of_postgres_neither_starts_nor_gives_back_the_one_made_in_its_place(
    db: Database,
) -> None:
    """A claim does not wait for the disk, so its fence may be given out again."""
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=5)
        await put(c, sender)
        crash = c.transaction()
        await crash.start()
        wanted = {sender.upstream_id: 1}
        lost: list = []
        while not lost:
            lost = await claim(c, wanted, read_limit=10, claimant="n/1/1/1", lease_seconds=60, spread_seconds=0)
        await crash.rollback()
        (again,) = await one_claim(c, {sender.upstream_id: 10}, claimant="n/1/1/2")
        assert again.fence == lost[0].fence
        assert await start(c, lost) == set()
        assert await start(c, [again]) == {again.entry_id}
        assert await settle(c, lost, UNTRIED) == set()
        assert await c.fetchval("SELECT status FROM email_queue") == "sending"
        assert await used(c) == 1
