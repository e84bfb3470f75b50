"""The columns that reports read follow the ledger when nothing is sent."""

import asyncio

import pytest

from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.upkeep import mirror_usage as chore
from relayd.upkeep.mirror_usage import mirror_usage
from tests.builders import Sender, make_sender


async def scene(c: Connection) -> Sender:
    """Two mailboxes that have sent 3 and 4, and a provider whose quotas are spent."""
    a = await make_sender(c, "a@example.com", daily_limit=10)
    await make_sender(c, "b@example.com", daily_limit=10)
    await c.execute(
        "INSERT INTO google_workspace_quota (upstream_id, daily_limit, hourly_limit, limit_window)"
        " VALUES ($1, 9, 9, 'calendar')",
        a.upstream_id,
    )
    await c.execute(
        "UPDATE budgets SET turns_at = relayd_window_end(relayd_now(), span, time_zone), units_used = CASE kind"
        " WHEN 'provider_day' THEN 9 WHEN 'provider_hour' THEN 2 ELSE 4 - (owner_id = $1)::int END",
        a.mailbox_id,
    )
    return a


async def columns(c: Connection) -> dict[str, list[int]]:
    tables = ("email_mailboxes", "email_domains", "clients")
    return {
        table: [row[0] for row in await c.fetch(f"SELECT current_daily_sends FROM {table} ORDER BY id")]
        for table in tables
    }


QUOTA = "SELECT daily_used, hourly_used, is_exceeded, daily_reset_at, hourly_reset_at, exceeded_at"


async def test_the_columns_say_what_the_ledger_says(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chore, "BATCH", 1)  # more than one batch
    async with db.connection() as c:
        a = await scene(c)
        await mirror_usage(db)
        # Without a limit of their own, domain and client have used what their mailboxes have.
        assert await columns(c) == {"email_mailboxes": [3, 4], "email_domains": [7], "clients": [7]}
        row = await c.fetchrow(f"{QUOTA} FROM google_workspace_quota")
        assert row is not None and tuple(row)[:3] == (9, 2, True) and row["exceeded_at"] is not None
        ends = await c.fetch("SELECT b.turns_at FROM budgets b WHERE kind LIKE 'provider%' ORDER BY kind")
        assert [row["daily_reset_at"], row["hourly_reset_at"]] == [each["turns_at"] for each in ends]
        same = (
            "SELECT bool_and(m.window_ends_at = b.turns_at) FROM email_mailboxes m JOIN budgets b ON b.owner_id = m.id"
        )
        assert await c.fetchval(same)

        await c.execute("UPDATE clients SET daily_send_limit = 100")
        await c.execute("UPDATE budgets SET units_used = 42 WHERE owner_id = $1", a.client_id)
        await mirror_usage(db)
        assert (await columns(c))["clients"] == [42]

        await c.execute("UPDATE relayd_state SET clock_offset = interval '1 day'")
        await mirror_usage(db)
        assert await columns(c) == {"email_mailboxes": [0, 0], "email_domains": [0], "clients": [0]}
        turned = await c.fetchrow(f"{QUOTA} FROM google_workspace_quota")
        assert turned is not None and tuple(turned)[:3] == (0, 0, False)
        assert turned["exceeded_at"] is None


async def test_it_leaves_no_trace_and_writes_nothing_twice(db: Database) -> None:
    async with db.connection() as c:
        a = await scene(c)
        await c.execute("UPDATE email_mailboxes SET limit_window = 'rolling' WHERE id = $1", a.mailbox_id)
        await c.execute("DELETE FROM audit_logs")
        tables = ("email_mailboxes", "email_domains", "clients", "google_workspace_quota")
        changed = " UNION ALL ".join(f"SELECT updated_at, xmin::text FROM {table}" for table in tables)
        before = [row["updated_at"] for row in await c.fetch(changed)]
        await mirror_usage(db)
        written = await c.fetch(changed)
        await mirror_usage(db)
        assert await c.fetch(changed) == written
        assert [row["updated_at"] for row in written] == before
        assert await c.fetchval("SELECT count(*) FROM audit_logs") == 0


async def test_it_waits_for_nobody(db: Database) -> None:
    async with db.connection() as c:
        a = await scene(c)
        async with db.transaction() as holder:
            await holder.execute("SELECT FROM email_mailboxes WHERE id = $1 FOR UPDATE", a.mailbox_id)
            await holder.execute("SELECT FROM email_domains FOR UPDATE")
            await holder.execute("SELECT FROM clients FOR UPDATE")
            await holder.execute("SELECT FROM google_workspace_quota FOR UPDATE")
            await asyncio.wait_for(mirror_usage(db), timeout=5)
            assert await columns(c) == {"email_mailboxes": [0, 4], "email_domains": [0], "clients": [0]}
        await mirror_usage(db)
        assert await columns(c) == {"email_mailboxes": [3, 4], "email_domains": [7], "clients": [7]}
