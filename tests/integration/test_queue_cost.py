"""What the queue's statements read and write, as Postgres counts it: no time is measured here."""

import json
from uuid import UUID

import pytest

from bench.queue_cost.plan import nodes, summed
from relayd.store import attempts, lanes
from relayd.store.claim import CLAIM
from relayd.store.connection import Connection
from relayd.store.ids import new_ids
from relayd.store.pool import Database
from tests.builders import Sender, claim_all, make_sender, put_many
from tests.conftest import at_length

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
        assert len(started.entries) == 30
        updates, hot = await counted(c)
    assert updates == 60
    # A page may have no room left for a new version of one of its rows; over an index none would be hot.
    assert hot >= 10


async def rows_read_by_claim(c: Connection, sender: Sender) -> int:
    await c.execute("ANALYZE email_queue, mailbox_lanes, email_mailboxes")
    transaction = c.transaction()
    await transaction.start()
    await c.execute("SET LOCAL enable_seqscan = off")
    arguments = ([sender.upstream_id], [20], 200, "node:1:2", 300.0, UUID(int=0))
    explained = await c.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {CLAIM}", *arguments)
    await transaction.rollback()
    return int(summed(json.loads(explained) if isinstance(explained, str) else explained)["rows_read"])


async def test_a_claim_reads_no_more_from_deep_lanes_than_from_shallow_ones(db: Database) -> None:
    async with db.connection() as c:
        senders = [await make_sender(c, f"box{number}@example.com") for number in range(10)]
        for sender in senders:
            await put_many(c, sender, 30)
        await claim_all(c, senders[0].upstream_id, messages=20)  # opens the mailboxes' windows
        shallow = await rows_read_by_claim(c, senders[0])
        for sender in senders:
            await put_many(c, sender, 170)
        deep = await rows_read_by_claim(c, senders[0])
    assert shallow > 200  # it does read ahead
    assert deep <= shallow * 1.1


async def test_a_claim_of_many_counts_its_budgets_once(db: Database) -> None:
    async with db.connection() as c:
        senders = [await make_sender(c, f"box{number}@example.com", daily_limit=500) for number in range(20)]
        for sender in senders:
            await put_many(c, sender, 10)
        await claim_all(c, senders[0].upstream_id, messages=20)  # opens the mailboxes' windows
        await c.execute("ANALYZE email_queue, mailbox_lanes, budgets")
        async with c.transaction():
            await c.execute("SET LOCAL enable_seqscan = off")
            arguments = ([senders[0].upstream_id], [100], 200, "node:1:2", 300.0, UUID(int=0))
            explained = await c.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {CLAIM}", *arguments)
    plan = json.loads(explained) if isinstance(explained, str) else explained
    updated = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "email_queue"]
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in updated) >= 100  # it does claim many
    # What is over the budgets, whose turn it is, how long a message is: windows over all that is read.
    assert {node["Actual Loops"] for node in nodes(plan[0]["Plan"]) if node["Node Type"] == "WindowAgg"} == {1}


SEND_ALL_AWAY = """
UPDATE email_queue SET status = 'sending', claimed_by = 'x', lease_expires_at = relayd_now() WHERE status = 'queued';
UPDATE email_queue SET status = 'sent', sent_at = relayd_now(), claimed_by = NULL, lease_expires_at = NULL
"""

# Each scan of a table that grows, and how the index that serves it is entered. Nothing else may be read.
PLANNED_WHILE_EMPTY = {
    "claim": {
        "email_queue_due": "((lane_id = ",
        "email_queue_message": "(message_id = ",
        "email_queue_pkey": "(id = ",
    },
    "reschedule": {"email_queue_due": "(lane_id = "},
    "start": {
        "email_queue_pkey": "(id = ",
        "messages_pkey": "(id = ",
        "message_bodies_pkey": "(message_id = ",
    },
}


@pytest.mark.parametrize("step", list(PLANNED_WHILE_EMPTY))
@pytest.mark.parametrize("mode", ["force_generic_plan", pytest.param("force_custom_plan", marks=at_length)])
async def test_a_plan_made_while_nothing_waited_reads_no_whole_index(db: Database, step: str, mode: str) -> None:
    async with db.connection() as c:
        senders = [await make_sender(c, f"box{number}@example.com") for number in range(40)]
        for _ in range(2):
            for sender in senders:
                await put_many(c, sender, 100)
            await c.execute(SEND_ALL_AWAY)
        await c.execute("VACUUM (ANALYZE) email_queue, mailbox_lanes, email_mailboxes")
        ids = new_ids(20)
        statement, arguments = {
            "claim": (CLAIM, ([senders[0].upstream_id], [20], 200, "node:1:2", 300.0, UUID(int=0))),
            "reschedule": (lanes.RESCHEDULE, ([each.mail_lane_id for each in senders[:20]], [], 300.0)),
            "start": (
                attempts.START,
                (ids, [1] * 20, 960.0, ["capture"] * 20, ["node:1:2"] * 20, 8 << 20, [None] * 20, [None] * 20),
            ),
        }[step]
        async with c.transaction():
            await c.execute("SET LOCAL enable_seqscan = off")
            await c.execute(f"SET LOCAL plan_cache_mode = {mode}")
            explained = await c.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *arguments)
    plan = json.loads(explained) if isinstance(explained, str) else explained
    entered = {
        (node["Index Name"], node.get("Index Cond", "")) for node in nodes(plan[0]["Plan"]) if "Index Name" in node
    }
    growing = {(name, condition) for name, condition in entered if name.startswith(("email_queue_", "message"))}
    assert {name for name, _ in growing} == set(PLANNED_WHILE_EMPTY[step])
    for name, condition in growing:
        assert condition.startswith(PLANNED_WHILE_EMPTY[step][name]), (name, condition)
