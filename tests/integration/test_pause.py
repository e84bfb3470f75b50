"""Pausing and resuming everything, a mailbox, an upstream; and `status`, which tells of it."""

import os
from typing import Any

import pytest

from tests.builders import Sender, claim_all, make_sender, put
from tests.integration.conftest import Control


@pytest.fixture
async def sender(control: Control) -> Sender:
    async with control.db.connection() as connection:
        sender = await make_sender(connection)
        await put(connection, sender)
        return sender


TARGETS = pytest.mark.parametrize("target", ["", "mailboxes/NoReply@example.com/", "upstreams/capture/"])


@TARGETS
async def test_paused_mail_is_not_claimed_until_it_is_resumed(control: Control, sender: Sender, target: str) -> None:
    paused = await control.ok("POST", f"{target}pause", {"reason": "storm"})
    assert (paused["changed"], paused["paused"], paused["reason"]) == (True, True, "storm")
    async with control.db.connection() as connection:
        assert await claim_all(connection, sender.upstream_id) == []
        resumed = await control.ok("POST", f"{target}resume")
        assert (resumed["changed"], resumed["paused"]) == (True, False)
        assert control.wakes
        assert len(await claim_all(connection, sender.upstream_id)) == 1


@TARGETS
async def test_doing_it_twice_changes_nothing(control: Control, sender: Sender, target: str) -> None:
    await control.ok("POST", f"{target}pause", {"reason": "first"})
    again = await control.ok("POST", f"{target}pause", {"reason": "second"})
    assert (again["changed"], again["paused"], again["reason"]) == (False, True, "first")
    await control.ok("POST", f"{target}resume")
    once_more = await control.ok("POST", f"{target}resume")
    assert (once_more["changed"], once_more["paused"]) == (False, False)


@TARGETS
async def test_each_change_is_audited_once_under_the_peers_name(control: Control, sender: Sender, target: str) -> None:
    for verb in ("pause", "pause", "resume", "resume"):
        await control.ok("POST", f"{target}{verb}")
    async with control.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT actor, action, row_name FROM audit_logs WHERE action IN ('update', 'operate') ORDER BY id"
        )
    assert len(rows) == 2
    assert all(row["actor"].endswith(f"({os.getuid()})") for row in rows)


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_names_that_nothing_has_are_refused(control: Control, verb: str) -> None:
    for target, text in (("mailboxes/x@example.com", "there is no mailbox"), ("upstreams/x", "there is no upstream")):
        answer = await control.request("POST", f"{target}/{verb}")
        assert (answer.status, text in answer.message) == (404, True)


async def test_a_suspended_mailbox_is_not_resumed_in_passing(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        await connection.execute("UPDATE email_mailboxes SET status = 'suspended'")
    for verb in ("pause", "resume"):
        answer = await control.request("POST", f"mailboxes/{sender.address}/{verb}")
        assert (answer.status, "is suspended" in answer.message) == (409, True)


async def test_status_tells_depth_age_counts_and_what_is_in_the_way(control: Control, sender: Sender) -> None:
    async with control.db.connection() as connection:
        blocked = await make_sender(connection, "news@example.com", daily_limit=1)
        await put(connection, blocked, "a@example.net", "b@example.net")
        while await claim_all(connection, sender.upstream_id):
            pass
        held = await put(connection, sender)
        await put(connection, sender)
    await control.ok("POST", "queue/hold", {"ids": [str(held.queue_id)]})
    await control.ok("POST", "pause", {"reason": "storm"})
    status: dict[str, Any] = await control.ok("GET", "status")
    assert (status["version"], status["node"], status["database"], status["workers"]) == (
        "0.0.test",
        "test-node",
        "ok",
        None,
    )
    queue = status["queue"]
    assert queue["paused_reason"] == "storm"
    assert (queue["pending"], queue["queued"], queue["sending"]) == (1, 2, 2)
    assert queue["oldest_queued_at"] is not None
    assert queue["day"]["accepted"] == 5 and queue["day"]["is_whole"]
    assert {"reason": "mailbox daily limit", "lanes": 1} in queue["blocked"]
    (upstream,) = queue["upstreams"]
    assert (upstream["name"], upstream["in_flight"]) == ("capture", 2)


async def test_status_answers_when_the_database_does_not(control: Control) -> None:
    await control.db.close()
    status = await control.ok("GET", "status")
    assert status["queue"] is None
    assert status["database"] != "ok"
