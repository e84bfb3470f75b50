"""Mail whose upstream is not used any more is given up in its time, and its sender is told."""

from pathlib import Path

from relayd.config.settings import Settings
from relayd.daemon.takeback import TakeBack
from relayd.rules.outcome import Cause, Deferred, Scope, Stage
from relayd.seal import Seal, new_key, parse_key
from relayd.store import breakers, steering
from relayd.store.pool import Database
from tests.builders import make_sender, put
from tests.integration.notifying import House

DOWN = Deferred(Scope.UPSTREAM, Cause(Stage.CONNECT, "connection refused"))
SETTINGS = Settings.model_validate({"database": {"dsn": "postgresql://relayd@/relayd"}, "seal": {"key_file": "/key"}})


async def test_what_an_open_breaker_keeps_beyond_its_time_is_given_up(db: Database, tmp_path: Path) -> None:
    take_back = TakeBack(db, Seal(parse_key(new_key().encode())), SETTINGS, tmp_path, wake=lambda: None)
    async with db.connection() as c:
        house = House(db, await make_sender(c))
        await put(c, house.sender, "old@example.net")
    await house.end_all(DOWN)
    async with db.connection() as c:
        await breakers.trip(c, house.sender.upstream_id, "connection refused", 86400)
        await steering.steer_lanes(c, [house.sender.mail_lane_id])
        await c.execute("UPDATE relayd_state SET clock_offset = interval '119 hours'")
        await put(c, house.sender, "young@example.net")
    await take_back.of_overdue()
    states = "SELECT status, reason FROM email_queue WHERE recipient_address = $1"
    ((status, _),) = await house.fetch(states, "old@example.net")
    assert status == "queued", "its five days are not over"

    await house.execute("UPDATE relayd_state SET clock_offset = interval '121 hours'")
    for block, free in (
        ("UPDATE mailbox_lanes SET blocked_until = 'infinity'", "UPDATE mailbox_lanes SET blocked_until = '-infinity'"),
        ("UPDATE mailbox_lanes SET held = true", "UPDATE mailbox_lanes SET held = false"),
        (
            "UPDATE email_configurations SET paused_at = relayd_now(), paused_reason = 'night'",
            "UPDATE email_configurations SET paused_at = NULL, paused_reason = NULL",
        ),
    ):
        await house.execute(block)
        await take_back.of_overdue()
        ((status, _),) = await house.fetch(states, "old@example.net")
        assert status == "queued", f"it waits for something else: {block}"
        await house.execute(free)
    await take_back.of_overdue()
    ((status, reason),) = await house.fetch(states, "old@example.net")
    assert status == "failed" and "given up" in reason and "connection refused" in reason
    ((status, _),) = await house.fetch(states, "young@example.net")
    assert status == "queued", "it has never been tried"
    (told,) = await house.notifications()
    assert told["To"] == "<bounces@example.com>"
    await take_back.of_overdue()
    assert len(await house.notifications()) == 1

    async with db.connection() as c:
        await c.execute("UPDATE email_queue SET status = 'queued', failed_at = NULL WHERE status = 'failed'")
        await breakers.close(c, house.sender.upstream_id)
    await take_back.of_overdue()
    ((status, _),) = await house.fetch(states, "old@example.net")
    assert status == "queued", "an attempt decides where one can be made"
