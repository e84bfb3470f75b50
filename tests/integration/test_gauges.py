import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from relayd.metrics import Meter, MetricsPage, NodeState
from relayd.rules.budgets import BudgetKind
from relayd.rules.states import LaneClass, Status
from relayd.store import gauges
from relayd.store.gauges import LimitUse
from relayd.store.pool import Database
from tests.conftest import FreshDatabase

Connection = asyncpg.Connection

MAILBOX = """
INSERT INTO email_mailboxes (client_id, domain_id, upstream_id, email_address, daily_send_limit, status)
SELECT c.id, d.id, u.id, $1, $2, $3 FROM clients c, email_domains d, email_configurations u WHERE c.name = 'acme'
RETURNING id
"""
ENTRY = """
WITH message AS (
  INSERT INTO messages (id, client_id, mailbox_id, origin, reverse_path, header_from, message_id_header, subject,
                        size_octets, smtputf8, body_8bitmime, helo, peer)
  SELECT relayd_uuid(), client_id, id, 'submission', '', 'a@example.com', '<x>', '', 1, false, false, '', ''
    FROM email_mailboxes WHERE id = $1 RETURNING *)
INSERT INTO email_queue (id, client_id, message_id, mailbox_id, lane_id, recipient_address, subject, max_retries,
                         next_attempt_at, created_at, status, pending_reason, sent_at, claimed_by, lease_expires_at)
SELECT relayd_uuid(), client_id, id, mailbox_id, 1, 'you@example.net', '', 3, relayd_now(),
       relayd_now() - make_interval(secs => $3), $2, CASE WHEN $2 = 'pending' THEN 'held' END,
       CASE WHEN $2 = 'sent' THEN relayd_now() END, CASE WHEN $2 = 'sending' THEN 'worker' END,
       CASE WHEN $2 = 'sending' THEN relayd_now() END
  FROM message
"""


@pytest.fixture
async def connection(database: FreshDatabase) -> AsyncIterator[Connection]:
    opened = await database.connect()
    await opened.execute(
        """
        INSERT INTO clients (name) VALUES ('acme');
        INSERT INTO email_domains (client_id, domain) SELECT id, 'example.com' FROM clients;
        INSERT INTO email_configurations (name, provider_type, capture_directory) VALUES ('main', 'capture', '/x');
        """
    )
    yield opened
    await opened.close()


async def mailbox(
    connection: Connection,
    name: str,
    *,
    limit: int | None,
    used: int = 0,
    window: str = "1 hour",
    status: str = "active",
) -> UUID:
    made: UUID = await connection.fetchval(MAILBOX, f"{name}@example.com", limit, status)
    await connection.execute(
        "UPDATE budgets SET units_used = $2, turns_at = relayd_now() + $3::text::interval WHERE owner_id = $1",
        made,
        used,
        window,
    )
    return made


async def test_an_empty_database_has_every_gauge_at_zero(connection: Connection) -> None:
    found = await gauges.read(connection)
    assert dict(found.entries) == {Status.PENDING: 0, Status.QUEUED: 0, Status.SENDING: 0}
    assert set(found.oldest_age_seconds.values()) == {0.0}
    assert dict(found.mailboxes) == dict.fromkeys(LimitUse, 0)
    assert dict(found.blocked_lanes) == dict.fromkeys(LaneClass, 0)
    assert len(found.budgets) == len(BudgetKind) * 4 and set(found.budgets.values()) == {0}


async def test_depth_and_oldest_age_by_state(connection: Connection) -> None:
    box = await mailbox(connection, "a", limit=None)
    for status, age in (("queued", 10), ("queued", 500), ("pending", 60), ("sending", 5), ("sent", 9000)):
        await connection.execute(ENTRY, box, status, age)
    found = await gauges.read(connection)
    assert dict(found.entries) == {Status.PENDING: 1, Status.QUEUED: 2, Status.SENDING: 1}
    assert found.oldest_age_seconds[Status.QUEUED] == pytest.approx(500, abs=30)
    assert found.oldest_age_seconds[Status.PENDING] == pytest.approx(60, abs=30)


@pytest.mark.parametrize(
    ("use", "case"),
    [
        (LimitUse.UNLIMITED, {"limit": None, "used": 1000}),
        (LimitUse.BELOW_HALF, {"limit": 10, "used": 4}),
        (LimitUse.ABOVE_HALF, {"limit": 10, "used": 5}),
        (LimitUse.ABOVE_HALF, {"limit": 10, "used": 9}),
        (LimitUse.EXHAUSTED, {"limit": 10, "used": 10}),
        (LimitUse.EXHAUSTED, {"limit": 10, "used": 12}),
        (LimitUse.EXHAUSTED, {"limit": 0}),
        (LimitUse.BELOW_HALF, {"limit": 10, "used": 10, "window": "-1 second"}),
        (LimitUse.PAUSED, {"limit": 10, "used": 10, "status": "paused"}),
        (LimitUse.PAUSED, {"limit": None, "status": "suspended"}),
        (LimitUse.BELOW_HALF, {"limit": 10, "status": "warming"}),
    ],
)
async def test_mailboxes_by_use_of_their_limit(connection: Connection, use: LimitUse, case: dict) -> None:  # type: ignore[type-arg]
    await mailbox(connection, "a", **case)
    found = await gauges.read(connection)
    assert dict(found.mailboxes) == {**dict.fromkeys(LimitUse, 0), use: 1}


async def test_a_suspended_clients_mailboxes_are_paused_and_removed_ones_are_not_counted(
    connection: Connection,
) -> None:
    await mailbox(connection, "a", limit=10)
    removed = await mailbox(connection, "b", limit=10)
    await connection.execute("UPDATE email_mailboxes SET deleted_at = relayd_now() WHERE id = $1", removed)
    await connection.execute("UPDATE clients SET status = 'suspended'")
    assert dict((await gauges.read(connection)).mailboxes) == {**dict.fromkeys(LimitUse, 0), LimitUse.PAUSED: 1}


@pytest.mark.parametrize(
    ("use", "limit", "used", "window"),
    [
        (LimitUse.UNLIMITED, None, 2_000_000_000, "1 hour"),
        (LimitUse.BELOW_HALF, 10, 4, "1 hour"),
        (LimitUse.ABOVE_HALF, 2_000_000_000, 1_500_000_000, "1 hour"),
        (LimitUse.EXHAUSTED, 10, 10, "1 hour"),
        (LimitUse.BELOW_HALF, 10, 10, "-1 second"),
        (LimitUse.EXHAUSTED, 0, 0, "1 hour"),
    ],
)
async def test_budgets_by_kind_and_use(
    connection: Connection, use: LimitUse, limit: int | None, used: int, window: str
) -> None:
    await mailbox(connection, "a", limit=limit, used=used, window=window, status="paused")
    await connection.execute("UPDATE clients SET daily_send_limit = 3")
    await connection.execute("UPDATE budgets SET units_used = 1 WHERE kind = 'client_day'")
    found = {key: count for key, count in (await gauges.read(connection)).budgets.items() if count}
    assert found == {(BudgetKind.MAILBOX_DAY, use): 1, (BudgetKind.CLIENT_DAY, LimitUse.BELOW_HALF): 1}


@pytest.mark.parametrize(
    ("due", "blocked", "held", "counts"),
    [
        ("-1 s", "1 hour", False, True),
        ("-1 s", "1 hour", True, False),
        ("-1 s", "-1 s", False, False),
        ("1 hour", "2 hours", False, False),
    ],
)
async def test_blocked_lanes_are_those_with_mail_that_is_due(
    connection: Connection, due: str, blocked: str, held: bool, counts: bool
) -> None:
    await mailbox(connection, "a", limit=10)
    await connection.execute(
        "UPDATE mailbox_lanes SET held = $3, due_at = relayd_now() + $1::text::interval,"
        " blocked_until = relayd_now() + $2::text::interval WHERE class = 'mail'",
        due,
        blocked,
        held,
    )
    blocked = dict((await gauges.read(connection)).blocked_lanes)
    assert blocked == {LaneClass.MAIL: int(counts), LaneClass.BULK: 0, LaneClass.DSN: 0}


async def test_the_queues_depth_is_read_from_its_partial_index(connection: Connection) -> None:
    box = await mailbox(connection, "a", limit=None)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(
        ENTRY.replace("FROM message\n", "FROM message, generate_series(1, 5000)\n"), box, "sent", 0
    )
    await connection.execute(ENTRY, box, "queued", 0)
    await connection.execute("ANALYZE email_queue")
    plan = await connection.fetch(f"EXPLAIN {gauges.QUEUE}", ["pending", "queued", "sending"])
    assert "email_queue_live" in "".join(row[0] for row in plan)


def values(page: bytes) -> dict[str, float]:
    return {
        each.name + "".join(f"/{value}" for value in each.labels.values()): each.value
        for family in text_string_to_metric_families(page.decode())
        for each in family.samples
    }


def metrics_page(path: Path, db: Database) -> MetricsPage:
    return MetricsPage(
        path, db, node=NodeState(workers_ready=lambda: 0, workers_wanted=lambda: 2), meter=Meter(CollectorRegistry())
    )


async def test_the_page_shows_the_gauges_and_asks_once_in_five_seconds(
    connection: Connection, db: Database, tmp_path: Path
) -> None:
    page = metrics_page(tmp_path, db)
    await connection.execute(ENTRY, await mailbox(connection, "a", limit=10, used=6), "queued", 100)
    first = values(await page.render())
    assert first["relayd_database_up"] == 1
    assert first["relayd_queue_entries/queued"] == 1
    assert first["relayd_queue_oldest_age_seconds/queued"] > 90
    assert first["relayd_mailboxes/above_half"] == 1
    assert first["relayd_lanes_blocked/mail"] == 0
    assert first["relayd_budgets/mailbox_day/above_half"] == 1
    await connection.execute("UPDATE email_queue SET status = 'sent', sent_at = relayd_now()")
    again = await asyncio.gather(*(page.render() for _ in range(5)))
    assert {values(each)["relayd_queue_entries/queued"] for each in again} == {1}
    assert values(await metrics_page(tmp_path, db).render())["relayd_queue_entries/queued"] == 0


async def test_without_the_database_the_page_says_so_and_shows_the_rest(tmp_path: Path) -> None:
    away = await Database.open("postgresql://relayd@127.0.0.1:1/none", connect_timeout_seconds=0.5)
    found = values(await metrics_page(tmp_path, away).render())
    assert found["relayd_database_up"] == 0
    assert found["relayd_workers_wanted"] == 2
    assert "relayd_messages_accepted_total" in found
    assert not any(
        name.startswith(("relayd_queue", "relayd_mailboxes", "relayd_lanes", "relayd_budgets")) for name in found
    )
    await away.close()


async def test_a_database_without_its_tables_is_up_and_has_no_gauges(
    connection: Connection, db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await connection.execute("DROP TABLE email_queue CASCADE")
    found = values(await metrics_page(tmp_path, db).render())
    assert found["relayd_database_up"] == 1
    assert "relayd_mailboxes/unlimited" not in found
    assert "cannot read the gauges" in caplog.text


async def test_gauges_that_take_too_long_do_not_hold_the_page(
    connection: Connection, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relayd.metrics.page.LOOK_SECONDS", 0.5)
    async with connection.transaction():
        await connection.execute("LOCK email_queue IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(5):
            found = values(await metrics_page(tmp_path, db).render())
    assert found["relayd_database_up"] == 1
    assert "relayd_queue_entries/queued" not in found
