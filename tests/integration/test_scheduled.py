"""Scheduled entries go when their time has come, and no sooner."""

from datetime import UTC, datetime, timedelta

import asyncpg

from relayd.store import scheduled
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.upkeep import release_scheduled as chore
from relayd.upkeep.release_scheduled import release_scheduled
from tests.builders import make_sender, put


async def _states(c: Connection) -> dict[str, tuple[str, str | None]]:
    rows = await c.fetch("SELECT recipient_address, status, pending_reason FROM email_queue")
    return {row["recipient_address"]: (row["status"], row["pending_reason"]) for row in rows}


async def test_what_is_due_is_queued_and_its_lane_woken(db: Database) -> None:
    woken: list[None] = []
    now = datetime.now(UTC)
    async with db.connection() as c:
        sender = await make_sender(c)
        soon = await put(c, sender, "soon@example.net", not_before=now + timedelta(hours=1))
        await put(c, sender, "bulk@example.net", not_before=now + timedelta(hours=1), lane_id=sender.bulk_lane_id)
        await put(c, sender, "later@example.net", not_before=now + timedelta(days=2))
        await put(c, sender, "held@example.net")
        await c.execute(
            "UPDATE email_queue SET status = 'pending', pending_reason = 'held',"
            " next_attempt_at = relayd_now() WHERE recipient_address = 'held@example.net'"
        )
        await c.execute("UPDATE mailbox_lanes SET due_at = 'infinity'")
    await release_scheduled(db, lambda: woken.append(None))
    assert not woken
    async with db.connection() as c:
        await c.execute("UPDATE relayd_state SET clock_offset = interval '61 minutes'")
    await release_scheduled(db, lambda: woken.append(None))
    async with db.connection() as c:
        assert await _states(c) == {
            "soon@example.net": ("queued", None),
            "bulk@example.net": ("queued", None),
            "later@example.net": ("pending", "scheduled"),
            "held@example.net": ("pending", "held"),
        }
        due = await c.fetch("SELECT id FROM mailbox_lanes WHERE due_at <= relayd_now()")
        assert {row["id"] for row in due} == {sender.mail_lane_id, sender.bulk_lane_id}
        log = await c.fetch(
            "SELECT event, error_message FROM email_delivery_logs WHERE message_id = $1 ORDER BY id", soon.queue_id
        )
    assert [tuple(row) for row in log] == [("queued", None), ("released", "its time has come")]
    assert len(woken) == 1


async def test_many_are_released_in_batches_and_none_is_waited_for(db: Database, monkeypatch) -> None:
    monkeypatch.setattr(chore, "BATCH", 2)
    async with db.connection() as c:
        sender = await make_sender(c)
        at = datetime.now(UTC) + timedelta(hours=1)
        messages = [await put(c, sender, not_before=at) for _ in range(5)]
        await c.execute("UPDATE relayd_state SET clock_offset = interval '2 hours'")
    locked = messages[0].entries[0].entry_id
    async with db.transaction() as other:
        await other.execute("SELECT FROM email_queue WHERE id = $1 FOR UPDATE", locked)
        await release_scheduled(db, lambda: None)
    async with db.connection() as c:
        left = await c.fetch("SELECT id FROM email_queue WHERE status = 'pending'")
        assert [row["id"] for row in left] == [locked]


async def test_what_is_not_due_is_not_read(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c)
        for _ in range(20):
            await put(c, sender, *(f"u{n}@example.net" for n in range(20)), not_before=datetime.now(UTC) + timedelta(1))
        await c.execute("ANALYZE email_queue")
        plan = "\n".join(row[0] for row in await _explain(c))
    assert "email_queue_scheduled" in plan and "Rows Removed by Filter" not in plan


async def _explain(c: Connection) -> list[asyncpg.Record]:
    return await c.fetch(f"EXPLAIN (ANALYZE, TIMING off) {scheduled.RELEASE_DUE}", 1000)
