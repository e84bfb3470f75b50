"""The ledger follows its owners: what a limit said, raised, removed or moved does to budgets and lanes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import time, timedelta
from typing import Any
from uuid import UUID

import pytest

from relayd.store.connection import Connection
from tests.builders import Sender, claim_all, make_sender, make_upstream, put_many
from tests.conftest import FreshDatabase


@pytest.fixture
async def c(database: FreshDatabase) -> AsyncIterator[Connection]:
    opened: Connection = await database.connect()
    yield opened
    await opened.close()


async def spend(c: Connection, owner_id: UUID, units: int, *, frees_in: str | None = None) -> None:
    """As if so many had been sent today; of a rolling window they come back `frees_in` from now."""
    await c.execute("UPDATE budgets SET units_used = units_used + $2 WHERE owner_id = $1", owner_id, units)
    if frees_in is None:
        end = "relayd_window_end(relayd_now(), span, time_zone)"
    else:
        end = f"LEAST(turns_at, relayd_now() + interval '{frees_in}')"
        await c.execute(
            "INSERT INTO budget_releases SELECT id, relayd_now() + $2::text::interval, $3 FROM budgets"
            " WHERE owner_id = $1",
            owner_id,
            frees_in,
            units,
        )
    await c.execute(f"UPDATE budgets SET turns_at = {end} WHERE owner_id = $1", owner_id)


async def used(c: Connection, owner_id: UUID, kind: str | None = None) -> int | None:
    found: int | None = await c.fetchval(
        "SELECT used FROM budget_usage WHERE owner_id = $1 AND ($2::text IS NULL OR kind = $2)", owner_id, kind
    )
    return found


async def kinds(c: Connection, lane_id: int) -> list[str]:
    """The budgets that a lane's mail has to fit."""
    rows = await c.fetch(
        "SELECT b.kind FROM mailbox_lanes l JOIN budgets b ON b.id = ANY(l.budget_ids) WHERE l.id = $1 ORDER BY b.kind",
        lane_id,
    )
    return [row["kind"] for row in rows]


async def set_limit(c: Connection, table: str, owner_id: UUID, **columns: Any) -> None:
    assignments = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, 2))
    await c.execute(f"UPDATE {table} SET {assignments} WHERE id = $1", owner_id, *columns.values())


async def add_quota(c: Connection, sender: Sender, *, whole: bool = False, **columns: int) -> UUID:
    quota: UUID = await c.fetchval(
        "INSERT INTO google_workspace_quota (client_id, upstream_id, mailbox_id, daily_limit, hourly_limit)"
        " VALUES ($1, $2, $3, $4, $5) RETURNING id",
        None if whole else sender.client_id,
        sender.upstream_id,
        None if whole else sender.mailbox_id,
        columns.get("daily_limit"),
        columns.get("hourly_limit"),
    )
    return quota


async def block(c: Connection) -> None:
    await c.execute("UPDATE mailbox_lanes SET blocked_until = 'infinity', blocked_reason = 'x', blocked_by = 1")


async def blocked(c: Connection) -> set[str]:
    """The mailboxes that wait."""
    rows = await c.fetch(
        "SELECT m.email_address FROM mailbox_lanes l JOIN email_mailboxes m ON m.id = l.mailbox_id"
        " WHERE l.blocked_until > relayd_now() OR l.blocked_reason IS NOT NULL OR l.blocked_by IS NOT NULL"
    )
    return {row["email_address"] for row in rows}


async def two(c: Connection) -> tuple[Sender, Sender]:
    """Two mailboxes of one domain and upstream that have sent 3 and 4 today."""
    a = await make_sender(c, "a@example.com", daily_limit=10)
    b = await make_sender(c, "b@example.com", daily_limit=10)
    await spend(c, a.mailbox_id, 3)
    await spend(c, b.mailbox_id, 4)
    return a, b


async def test_a_new_budget_begins_with_what_its_mailboxes_have_used(c: Connection) -> None:
    a, _ = await two(c)
    await make_sender(c, "c@example.org", client="other", upstream="elsewhere", daily_limit=10)
    await set_limit(c, "clients", a.client_id, daily_send_limit=100)
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=100)
    assert [await used(c, a.client_id), await used(c, a.domain_id)] == [7, 7]
    assert await used(c, await add_quota(c, a, whole=True, daily_limit=100)) == 7
    assert await used(c, await add_quota(c, a, daily_limit=100)) == 3


async def test_it_begins_with_what_a_rolling_window_still_holds_long_after_its_first_release(c: Connection) -> None:
    a = await make_sender(c, daily_limit=10)
    await set_limit(c, "email_mailboxes", a.mailbox_id, limit_window="rolling")
    await spend(c, a.mailbox_id, 1, frees_in="1 hour")
    await spend(c, a.mailbox_id, 6, frees_in="20 hours")
    await c.execute("UPDATE relayd_state SET clock_offset = interval '2 hours'")
    await set_limit(c, "clients", a.client_id, daily_send_limit=100)
    assert [await used(c, a.mailbox_id), await used(c, a.client_id)] == [6, 6]


async def test_a_rolling_budget_frees_what_was_there_before_it_a_whole_day_later(c: Connection) -> None:
    a, _ = await two(c)
    await set_limit(c, "clients", a.client_id, daily_send_limit=10, limit_window="rolling")
    for offset, expected in (("0", 7), ("23 hours 59 minutes", 7), ("24 hours 2 minutes", 0)):
        await c.execute("UPDATE relayd_state SET clock_offset = $1::text::interval", offset)
        assert await used(c, a.client_id) == expected, offset


@pytest.mark.parametrize("table", ["email_mailboxes", "email_domains", "clients", "google_workspace_quota"])
async def test_a_raised_limit_unblocks_those_whom_it_binds_and_nobody_else(c: Connection, table: str) -> None:
    a, _ = await two(c)
    await make_sender(c, "c@example.org", client="other", upstream="elsewhere", daily_limit=10)
    quota = await add_quota(c, a, whole=True, daily_limit=5)
    await block(c)
    owner, column, freed = {
        "email_mailboxes": (a.mailbox_id, "daily_send_limit", {"a@example.com"}),
        "email_domains": (a.domain_id, "own_daily_limit", {"a@example.com", "b@example.com"}),
        "clients": (a.client_id, "daily_send_limit", {"a@example.com", "b@example.com"}),
        "google_workspace_quota": (quota, "daily_limit", {"a@example.com", "b@example.com"}),
    }[table]
    await set_limit(c, table, owner, **{column: 99})
    assert await blocked(c) == {"a@example.com", "b@example.com", "c@example.org"} - freed
    assert await c.fetchval("SELECT unit_limit FROM budgets WHERE owner_id = $1", owner) == 99


async def test_counters_and_what_is_derived_unblock_nobody(c: Connection) -> None:
    a, b = await two(c)
    await add_quota(c, a, daily_limit=5)
    await block(c)
    for table in ("clients", "email_domains", "email_mailboxes"):
        await c.execute(f"UPDATE {table} SET current_daily_sends = 2")
    await c.execute("UPDATE google_workspace_quota SET daily_used = 2, is_exceeded = true")
    assert await blocked(c) == {a.address, b.address}


async def test_a_lane_knows_the_budgets_that_its_mail_has_to_fit(c: Connection) -> None:
    a, _ = await two(c)
    bulk = await c.fetchval("SELECT id FROM mailbox_lanes WHERE mailbox_id = $1 AND class = 'bulk'", a.mailbox_id)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day"]
    await set_limit(c, "clients", a.client_id, daily_send_limit=100)
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=100)
    quota = await add_quota(c, a, daily_limit=100, hourly_limit=10)
    every = ["client_day", "domain_day", "mailbox_day", "provider_day", "provider_hour"]
    assert await kinds(c, a.mail_lane_id) == await kinds(c, bulk) == every
    # A bounce message spends nothing of ours; the provider counts it all the same.
    assert await kinds(c, a.dsn_lane_id) == ["provider_day", "provider_hour"]
    await set_limit(c, "clients", a.client_id, daily_send_limit=None)
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=None)
    await set_limit(c, "google_workspace_quota", quota, hourly_limit=None)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day", "provider_day"]
    await c.execute("DELETE FROM google_workspace_quota")
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day"]
    assert await c.fetchval("SELECT count(*) FROM budgets") == 2


async def test_another_upstream_brings_its_own_quota_and_keeps_the_formers_count(c: Connection) -> None:
    a = await make_sender(c, daily_limit=10)
    quota = await add_quota(c, a, daily_limit=100)
    await spend(c, quota, 5, frees_in="3 hours")
    other = await make_upstream(c, "other")
    await set_limit(c, "email_mailboxes", a.mailbox_id, upstream_id=other)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day"]
    await set_limit(c, "email_mailboxes", a.mailbox_id, upstream_id=a.upstream_id)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day", "provider_day"]
    assert await used(c, quota) == 5


async def test_googles_mailboxes_have_googles_limit_unless_somebody_took_it_away(c: Connection) -> None:
    a = await make_sender(c, daily_limit=10)
    google = await make_upstream(c, "google")
    await c.execute("SET session_replication_role = replica")
    await c.execute(
        "UPDATE email_configurations SET provider_type = 'google_workspace', mode = 'gmail_api' WHERE id = $1", google
    )
    await c.execute("SET session_replication_role = origin")
    await set_limit(c, "email_mailboxes", a.mailbox_id, upstream_id=google)
    row = await c.fetchrow("SELECT daily_limit, limit_window, mailbox_id FROM google_workspace_quota")
    assert row is not None and tuple(row) == (2000, "rolling", a.mailbox_id)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day", "provider_day"]
    await c.execute("DELETE FROM google_workspace_quota")
    await set_limit(c, "email_mailboxes", a.mailbox_id, upstream_id=google, daily_send_limit=20)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day"]


async def test_what_was_used_counts_on_whatever_window_comes_after(c: Connection) -> None:
    a = await make_sender(c, daily_limit=10)
    await spend(c, a.mailbox_id, 4)
    await set_limit(c, "email_mailboxes", a.mailbox_id, limit_window="rolling")
    assert await used(c, a.mailbox_id) == 4
    await spend(c, a.mailbox_id, 3, frees_in="1 hour")
    await c.execute("UPDATE relayd_state SET clock_offset = interval '90 minutes'")
    assert await used(c, a.mailbox_id) == 4
    await set_limit(c, "email_mailboxes", a.mailbox_id, limit_window="calendar")
    assert await used(c, a.mailbox_id) == 4  # what had come back stays back
    assert await c.fetchval("SELECT count(*) FROM budget_releases") == 0
    await set_limit(c, "email_mailboxes", a.mailbox_id, limit_window="rolling")
    await c.execute("UPDATE relayd_state SET clock_offset = interval '25 hours'")
    assert await used(c, a.mailbox_id) == 4
    await c.execute("UPDATE relayd_state SET clock_offset = interval '26 hours'")
    assert await used(c, a.mailbox_id) == 0


async def test_a_window_that_had_turned_carries_nothing_into_a_rolling_one(c: Connection) -> None:
    a = await make_sender(c, daily_limit=10)
    await spend(c, a.mailbox_id, 4)
    await c.execute("UPDATE relayd_state SET clock_offset = interval '1 day'")
    await set_limit(c, "email_mailboxes", a.mailbox_id, limit_window="rolling")
    assert await used(c, a.mailbox_id) == 0


async def test_with_another_zone_the_open_day_lasts_to_the_first_midnight_there_after_its_own_end(
    c: Connection,
) -> None:
    a = await make_sender(c, daily_limit=10)
    await spend(c, a.mailbox_id, 4)
    before = await c.fetchval("SELECT turns_at FROM budgets")
    await set_limit(c, "email_mailboxes", a.mailbox_id, time_zone="Pacific/Auckland")
    after = await c.fetchrow("SELECT turns_at, turns_at AT TIME ZONE time_zone AS there FROM budgets")
    assert after is not None and before <= after["turns_at"] <= before + timedelta(days=1)
    assert after["there"].time() == time(0) and await used(c, a.mailbox_id) == 4


async def test_what_is_claimed_while_a_budget_is_made_counts_in_it(database: FreshDatabase, c: Connection) -> None:
    a = await make_sender(c, daily_limit=None)
    await put_many(c, a, 3)
    other = await database.connect()
    async with c.transaction():
        assert len(await claim_all(c, a.upstream_id)) == 3
        setting = asyncio.create_task(set_limit(other, "clients", a.client_id, daily_send_limit=100))
        while not await c.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not setting.done()
    await setting
    await other.close()
    assert await used(c, a.client_id) == 3


@pytest.mark.parametrize(("limit", "share"), [(240, 10), (10, 1), (25, 2), (0, 0)])
async def test_pacing_is_a_budget_of_the_days_share_an_hour(c: Connection, limit: int, share: int) -> None:
    a = await make_sender(c, daily_limit=limit)
    await set_limit(c, "email_mailboxes", a.mailbox_id, is_paced=True)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day", "mailbox_hour"]
    assert await c.fetchval("SELECT unit_limit FROM budgets WHERE kind = 'mailbox_hour'") == share
    await set_limit(c, "email_mailboxes", a.mailbox_id, daily_send_limit=48)
    assert await c.fetchval("SELECT unit_limit FROM budgets WHERE kind = 'mailbox_hour'") == 2
    await set_limit(c, "email_mailboxes", a.mailbox_id, daily_send_limit=None)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day"]
    await set_limit(c, "email_mailboxes", a.mailbox_id, daily_send_limit=48)
    await set_limit(c, "email_mailboxes", a.mailbox_id, is_paced=False)
    assert await kinds(c, a.mail_lane_id) == ["mailbox_day"]


async def test_the_clients_reserve_is_of_each_of_its_limits(c: Connection) -> None:
    a, _ = await two(c)
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=15)
    quota = await add_quota(c, a, daily_limit=100)
    await set_limit(c, "clients", a.client_id, daily_send_limit=1000, bulk_reserve_percent=33)
    await set_limit(c, "email_mailboxes", a.mailbox_id, is_paced=True)
    rows = await c.fetch("SELECT kind, unit_limit, bulk_limit FROM budgets WHERE owner_id <> $1", quota)
    # A reserve is rounded up: of ten, a third is four.
    bulk = {(row["kind"], row["unit_limit"]): row["bulk_limit"] for row in rows}
    assert bulk == {
        ("client_day", 1000): 670,
        ("domain_day", 15): 10,
        ("mailbox_day", 10): 6,
        ("mailbox_hour", 1): 0,
    }
    assert await c.fetchval("SELECT bulk_limit FROM budgets WHERE owner_id = $1", quota) == 100


async def test_a_removed_mailbox_domain_client_or_upstream_leaves_no_budget(c: Connection) -> None:
    a = await make_sender(c, daily_limit=10)
    await set_limit(c, "email_mailboxes", a.mailbox_id, is_paced=True)
    await set_limit(c, "clients", a.client_id, daily_send_limit=100)
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=100)
    await add_quota(c, a, daily_limit=100, hourly_limit=10)
    await add_quota(c, a, whole=True, daily_limit=100)
    for table, kept in (
        ("email_mailboxes", ["client_day", "domain_day", "provider_day"]),
        ("email_domains", ["client_day", "provider_day"]),
        ("clients", ["provider_day"]),
        ("email_configurations", []),
    ):
        status = ", status = 'deleted'" if table == "email_domains" else ""
        await c.execute(f"UPDATE {table} SET deleted_at = relayd_now(){status}")
        assert [row["kind"] for row in await c.fetch("SELECT kind FROM budgets ORDER BY kind")] == kept, table
    assert await c.fetchval("SELECT count(*) FROM google_workspace_quota") == 0


async def test_a_domain_follows_its_mailboxes_until_somebody_says_otherwise(c: Connection) -> None:
    async def limit() -> int | None:
        found: int | None = await c.fetchval("SELECT daily_send_limit FROM email_domains")
        return found

    a = await make_sender(c, "a@example.com", daily_limit=10)
    assert await limit() == 50
    b = await make_sender(c, "b@example.com", daily_limit=90)
    assert await limit() == 100
    await set_limit(c, "email_mailboxes", a.mailbox_id, daily_send_limit=None)
    assert await limit() is None
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=7)
    assert await limit() == 7
    await set_limit(c, "email_mailboxes", a.mailbox_id, daily_send_limit=20)
    assert await limit() == 7
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=None)
    assert await limit() == 110
    await set_limit(c, "email_mailboxes", b.mailbox_id, deleted_at=await c.fetchval("SELECT relayd_now()"))
    assert await limit() == 50
    for name in "xy":
        await make_sender(c, f"{name}@example.com", daily_limit=2_147_483_647)
    assert await limit() == 2_147_483_647


async def test_operators_changes_are_audited_and_what_follows_from_them_is_not(c: Connection) -> None:
    a, _ = await two(c)
    await c.execute("DELETE FROM audit_logs")
    await set_limit(c, "clients", a.client_id, daily_send_limit=5)
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=6)
    quota = await add_quota(c, a, daily_limit=7)
    await set_limit(c, "google_workspace_quota", quota, hourly_limit=8)
    await c.execute("DELETE FROM google_workspace_quota")
    rows = await c.fetch(
        "SELECT table_name, action, before -> 'daily_limit' AS before, after -> 'daily_limit' AS after"
        "  FROM audit_logs ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        ("clients", "update", None, None),
        ("email_domains", "update", None, None),
        ("google_workspace_quota", "insert", None, 7),
        ("google_workspace_quota", "update", 7, 7),
        ("google_workspace_quota", "delete", 7, None),
    ]
    client, domain = await c.fetch("SELECT before, after FROM audit_logs WHERE action = 'update' ORDER BY id LIMIT 2")
    assert (client["before"]["daily_send_limit"], client["after"]["daily_send_limit"]) == (None, 5)
    assert (domain["before"]["own_daily_limit"], domain["after"]["own_daily_limit"]) == (None, 6)
    assert "daily_send_limit" not in domain["after"] and "current_daily_sends" not in client["after"]
    await c.execute("DELETE FROM audit_logs")
    await set_limit(c, "email_domains", a.domain_id, own_daily_limit=None)
    await set_limit(c, "email_mailboxes", a.mailbox_id, daily_send_limit=400)  # the domain's limit follows
    await c.execute("UPDATE clients SET current_daily_sends = 3")
    await c.execute("UPDATE email_domains SET current_daily_sends = 3")
    tables = [row["table_name"] for row in await c.fetch("SELECT table_name FROM audit_logs ORDER BY id")]
    assert tables == ["email_domains", "email_mailboxes"]
