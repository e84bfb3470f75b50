"""Chores: what is forgotten and when, whose claims are taken back, what a lost wake costs."""

import asyncio
from datetime import timedelta

from relayd.errors import StoreUnavailable
from relayd.rules.outcome import Outcome, Postponed, Uncertain
from relayd.store import attempts, retention
from relayd.store.ids import first_id_at
from relayd.store.leases import LapsedClaim
from relayd.store.pool import Database
from relayd.store.queue import enqueue
from relayd.upkeep import runner
from relayd.upkeep.prune import prune
from relayd.upkeep.reclaim import reclaim
from relayd.upkeep.runner import Chore
from relayd.upkeep.wake_lanes import wake_lanes
from tests.builders import claim_all, make_sender, new_message, put, put_many


async def test_only_what_ended_long_ago_is_forgotten(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        old = await put(c, sender)
        live = await put(c, sender)
        await c.execute(
            "UPDATE email_queue SET status = 'sent', sent_at = relayd_now() WHERE message_id = $1", old.queue_id
        )
        await c.execute("UPDATE relayd_state SET clock_offset = interval '40 days'")
        recent = await put(c, sender)
        await c.execute(
            "UPDATE email_queue SET status = 'sent', sent_at = relayd_now() WHERE message_id = $1", recent.queue_id
        )
    await prune(db, timedelta(days=30))
    async with db.connection() as c:
        left = {row["id"] for row in await c.fetch("SELECT id FROM messages")}
        assert left == {live.queue_id, recent.queue_id}
        logged = {row["message_id"] for row in await c.fetch("SELECT message_id FROM email_delivery_logs")}
        assert logged == {live.queue_id, recent.queue_id}
        assert await c.fetchval("SELECT count(*) FROM message_bodies") == 2


async def test_what_is_young_is_not_read_to_find_what_is_old(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put_many(c, sender, 500)
        await c.execute("UPDATE email_queue SET status = 'sent', sent_at = relayd_now()")
        await c.execute("DELETE FROM email_queue")  # only their age keeps messages and log rows
        await c.execute("ANALYZE messages, email_delivery_logs")
        before = await c.fetchval(retention.CLOCK) - timedelta(days=30)
        bound = first_id_at(before + timedelta(hours=1))
        for statement in (retention.PRUNE_MESSAGES, retention.PRUNE_LOGS):
            async with c.transaction():
                await c.execute("SET LOCAL enable_seqscan = off")
                plan = await c.fetch(f"EXPLAIN (ANALYZE, TIMING off) {statement}", before, 500, bound)
            assert "Rows Removed by Filter" not in "\n".join(row[0] for row in plan)
    await prune(db, timedelta(days=30))
    async with db.connection() as c:
        assert await c.fetchval("SELECT count(*) FROM messages") == 500


async def test_claims_of_the_dead_are_taken_back_and_of_the_living_left(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put_many(c, sender, 4)
        entries = await claim_all(c, sender.upstream_id)
        await attempts.start(c, [(entry, "capture") for entry in entries[:2]], lease_seconds=600)
    taken: list[tuple[LapsedClaim, Outcome]] = []

    async def settle(outcomes) -> None:
        taken.extend(outcomes)

    assert await reclaim(db, settle, emit=lambda event: None) == 0
    assert await reclaim(db, settle, emit=lambda event: None, dead=["other/%"]) == 0
    assert await reclaim(db, settle, emit=lambda event: None, dead=["node:%"], living=["node:1%"]) == 0
    assert await reclaim(db, settle, emit=lambda event: None, dead=["node:%"]) == 4
    by_id = {claim.entry_id: outcome for claim, outcome in taken}
    assert [type(by_id[entry.entry_id]) for entry in entries] == [Uncertain, Uncertain, Postponed, Postponed]


async def test_a_lapsed_lease_is_anybodys(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        await put(c, sender)
        await claim_all(c, sender.upstream_id)
        await c.execute("UPDATE relayd_state SET clock_offset = interval '1 hour'")
    taken: list[object] = []

    async def settle(outcomes) -> None:
        taken.extend(outcomes)

    assert await reclaim(db, settle, emit=lambda event: None) == 1


async def test_a_lost_wake_is_mended_and_the_workers_told(db: Database) -> None:
    woken: list[bool] = []
    async with db.connection() as c:
        sender = await make_sender(c)
        await wake_lanes(db, lambda: woken.append(True))
        assert woken == []
        await enqueue(c, [new_message(sender, "you@example.net")])
        await wake_lanes(db, lambda: woken.append(True))
        assert woken == [True]
        assert len(await claim_all(c, sender.upstream_id)) == 1


async def test_one_node_does_the_chores_and_another_takes_over(db: Database) -> None:
    done: list[str] = []

    def start(name: str) -> "asyncio.Task[None]":
        async def work() -> None:
            done.append(name)

        return asyncio.create_task(runner.run(db, [Chore("x", 0.01, work)], retry_seconds=0.02))

    first = start("first")
    while not done:
        await asyncio.sleep(0.01)
    second = start("second")
    await asyncio.sleep(0.1)
    assert set(done) == {"first"}
    first.cancel()
    while "second" not in done:
        await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_a_chore_that_fails_does_not_stop_the_others(db: Database) -> None:
    done: list[str] = []

    async def broken() -> None:
        done.append("broken")
        raise ValueError("a bug")

    async def unavailable() -> None:
        done.append("unavailable")
        raise StoreUnavailable("gone")

    async def fine() -> None:
        done.append("fine")

    chores = [Chore("a", 0.01, broken), Chore("b", 0.01, unavailable), Chore("c", 0.01, fine)]
    task = asyncio.create_task(runner.run(db, chores, retry_seconds=0.01))
    while not {"broken", "unavailable", "fine"} <= set(done):
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
