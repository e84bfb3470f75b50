"""Mail of a pool leaves by another member when its own cannot send now; and by nobody who may not."""

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from relayd.rules.states import LaneClass
from relayd.rules.upkeep_events import PoolMailMoved
from relayd.store import mail_routes, messages, pool_moves, routing, ways
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.queue import NewMessage
from relayd.upkeep.move_in_pools import move_in_pools
from tests.builders import Sender, make_sender, make_upstream, put


@dataclass
class Scene:
    """A pool of a, b and c; a has ten messages of it and two that are its own."""

    db: Database
    pool_id: UUID
    a: Sender
    b: Sender
    c: Sender
    messages: list[NewMessage]
    events: list[Any]
    wakes: list[None]

    async def move(self) -> dict[str, int]:
        """One round; then how many entries wait with whom."""
        await move_in_pools(self.db, emit=self.events.append, wake=lambda: self.wakes.append(None))
        async with self.db.connection() as c:
            assert not await c.fetchval(
                "SELECT count(*) FROM email_queue q JOIN mailbox_lanes l ON l.id = q.lane_id"
                " WHERE l.mailbox_id <> q.mailbox_id"
            )
            rows = await c.fetch(
                "SELECT m.email_address, count(*) FROM email_queue q JOIN email_mailboxes m ON m.id = q.mailbox_id"
                " WHERE q.status = 'queued' GROUP BY 1"
            )
        return {row[0].partition("@")[0]: row[1] for row in rows}

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self.db.connection() as c:
            await c.execute(statement, *arguments)

    async def block(self, sender: Sender) -> None:
        """As a claim does that finds the limit used up."""
        await self.execute(
            "UPDATE mailbox_lanes SET blocked_until = relayd_now() + interval '1 day',"
            " blocked_reason = 'mailbox daily limit' WHERE mailbox_id = $1",
            sender.mailbox_id,
        )


@pytest.fixture
async def scene(db: Database) -> Scene:
    async with db.transaction() as c:
        a, b, other = [await make_sender(c, f"{name}@example.com", daily_limit=6) for name in "abc"]
        pool_id = await _make_pool(c, a, b, other)
        for _ in range(2):
            await put(c, a)
        messages = [await put(c, a, pool_id=pool_id) for _ in range(10)]
    return Scene(db, pool_id, a, b, other, messages, [], [])


async def _make_pool(c: Connection, *senders: Sender) -> UUID:
    client_id = senders[0].client_id
    pool_id: UUID = await c.fetchval(
        "INSERT INTO mailbox_pools (client_id, name) VALUES ($1, 'news') RETURNING id", client_id
    )
    await c.executemany(
        "INSERT INTO mailbox_pool_members (client_id, pool_id, mailbox_id) VALUES ($1, $2, $3)",
        [(client_id, pool_id, each.mailbox_id) for each in senders],
    )
    return pool_id


async def test_nothing_moves_while_its_own_mailbox_can_send(scene: Scene) -> None:
    assert await scene.move() == {"a": 12}
    assert not scene.wakes and not scene.events


async def test_what_a_used_up_limit_holds_leaves_by_those_with_room(scene: Scene) -> None:
    await scene.execute("UPDATE mailbox_lanes SET due_at = 'infinity' WHERE id = $1", scene.b.mail_lane_id)
    await scene.execute(
        "UPDATE budgets SET units_used = 4, turns_at = relayd_now() + interval '1 day' WHERE owner_id = $1",
        scene.c.mailbox_id,
    )
    await scene.block(scene.a)
    assert await scene.move() == {"a": 4, "b": 6, "c": 2}
    assert await scene.move() == {"a": 4, "b": 6, "c": 2}, "nobody has room any more"
    assert len(scene.wakes) == 1
    async with scene.db.connection() as c:
        moved = await c.fetch(
            "SELECT q.id, s.mailbox_id = q.mailbox_id AS follows, g.error_message FROM email_queue q"
            " JOIN messages s ON s.id = q.message_id"
            " JOIN email_delivery_logs g ON g.entry_id = q.id AND g.error_message IS NOT NULL"
            " WHERE q.mailbox_id = $1",
            scene.b.mailbox_id,
        )
        assert await c.fetchval("SELECT due_at <= relayd_now() FROM mailbox_lanes WHERE id = $1", scene.b.mail_lane_id)
    said = "moved from a@example.com to b@example.com of the same pool: mailbox daily limit"
    assert [(row["follows"], row["error_message"]) for row in moved] == [(True, said)] * 6
    oldest = [message.entries[0].entry_id for message in scene.messages[:6]]
    assert sorted(row["id"] for row in moved) == sorted(oldest)
    assert scene.events == [
        PoolMailMoved("a@example.com", "b@example.com", 6, "mailbox daily limit"),
        PoolMailMoved("a@example.com", "c@example.com", 2, "mailbox daily limit"),
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE email_mailboxes SET status = 'paused' WHERE id = $1", "it is paused"),
        (
            "UPDATE email_configurations SET paused_at = relayd_now(), paused_reason = 'x'"
            " WHERE id = (SELECT upstream_id FROM email_mailboxes WHERE id = $1)",
            "its upstream is paused",
        ),
    ],
)
async def test_what_waits_for_somebody_leaves_by_others_too(scene: Scene, change: str, why: str) -> None:
    async with scene.db.transaction() as c:
        far = await make_sender(c, "far@example.com", upstream="another", daily_limit=100)
        await c.execute("UPDATE mailbox_pool_members SET mailbox_id = $1 WHERE mailbox_id = $2", *_ids(far, scene.b))
        await c.execute("DELETE FROM mailbox_pool_members WHERE mailbox_id = $1", scene.c.mailbox_id)
    await scene.execute(change, scene.a.mailbox_id)
    assert await scene.move() == {"a": 2, "far": 10}
    assert [event.reason for event in scene.events] == [why]


def _ids(*senders: Sender) -> list[UUID]:
    return [each.mailbox_id for each in senders]


async def test_what_is_not_due_or_in_flight_or_held_stays(scene: Scene) -> None:
    future, flying, held = [message.entries[0].entry_id for message in scene.messages[:3]]
    await scene.execute("UPDATE email_queue SET next_attempt_at = now() + interval '1 h' WHERE id = $1", future)
    await scene.execute(
        "UPDATE email_queue SET status = 'sending', claimed_by = 'n/1/1/1', lease_expires_at = now() WHERE id = $1",
        flying,
    )
    await scene.execute("UPDATE email_queue SET status = 'pending', pending_reason = 'held' WHERE id = $1", held)
    await scene.execute("UPDATE email_mailboxes SET daily_send_limit = 100 WHERE id = $1", scene.b.mailbox_id)
    await scene.block(scene.a)
    assert await scene.move() == {"a": 3, "b": 7}
    async with scene.db.connection() as c:
        left = await c.fetch(
            "SELECT id FROM email_queue WHERE mailbox_id = $1 AND pool_id IS NOT NULL", _ids(scene.a)[0]
        )
    assert {row["id"] for row in left} == {future, flying, held}


async def test_each_class_keeps_its_own_line_and_room(scene: Scene) -> None:
    async with scene.db.transaction() as c:
        await put(c, scene.a, lane_id=scene.a.bulk_lane_id, pool_id=scene.pool_id)
        await c.execute("UPDATE budgets SET bulk_limit = 0 WHERE owner_id = $1", scene.b.mailbox_id)
        await c.execute("DELETE FROM email_queue WHERE lane_id = $1", scene.a.mail_lane_id)
    await scene.block(scene.a)
    assert await scene.move() == {"c": 1}
    async with scene.db.connection() as c:
        assert await c.fetchval("SELECT lane_id FROM email_queue") == scene.c.bulk_lane_id


async def test_a_credential_binds_wherever_its_mail_is_moved(scene: Scene) -> None:
    async with scene.db.transaction() as c:
        add = (
            "INSERT INTO smtp_credentials (client_id, login, salt, iterations, stored_key, server_key, senders)"
            " VALUES ($1, $2, '\\x00', 4096, $3, $3, $4) RETURNING id"
        )
        client_id = scene.a.client_id
        bound = await c.fetchval(add, client_id, "bound", bytes(32), ["a@example.com", "c@example.com"])
        domain = await c.fetchval(add, client_id, "domain", bytes(32), ["example.com"])
        await c.execute("DELETE FROM messages WHERE mailbox_id = $1", scene.a.mailbox_id)
        await put(c, scene.a, "bound@example.net", pool_id=scene.pool_id, credential_id=bound)
        await put(c, scene.a, "domain@example.net", pool_id=scene.pool_id, credential_id=domain)
        await c.execute("DELETE FROM mailbox_pool_members WHERE mailbox_id = $1", scene.c.mailbox_id)
    await scene.block(scene.a)
    assert await scene.move() == {"a": 1, "b": 1}
    async with scene.db.transaction() as c:
        stays = await c.fetchval("SELECT recipient_address FROM email_queue WHERE mailbox_id = $1", scene.a.mailbox_id)
        assert stays == "bound@example.net"
        await c.execute(
            "INSERT INTO mailbox_pool_members (client_id, pool_id, mailbox_id) VALUES ($1, $2, $3)",
            client_id,
            scene.pool_id,
            scene.c.mailbox_id,
        )
    assert await scene.move() == {"b": 1, "c": 1}


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT FROM mailbox_lanes WHERE id = $1 FOR NO KEY UPDATE",
        "SELECT FROM mailbox_lanes WHERE id = $2 FOR NO KEY UPDATE",
        "SELECT FROM email_mailboxes WHERE id = (SELECT mailbox_id FROM mailbox_lanes WHERE id = $2) FOR UPDATE",
    ],
)
async def test_it_waits_for_nobody(scene: Scene, lock: str) -> None:
    await scene.execute("DELETE FROM mailbox_pool_members WHERE mailbox_id = $1", scene.c.mailbox_id)
    await scene.block(scene.a)
    async with scene.db.transaction() as other:
        # Both lanes are named, so that each parameter has a type.
        await other.execute(f"{lock.replace('FOR ', 'AND ($1::bigint, $2::bigint) IS NOT NULL FOR ')}", *_lanes(scene))
        assert await scene.move() == {"a": 12}
    assert await scene.move() == {"a": 6, "b": 6}


def _lanes(scene: Scene) -> tuple[int, int]:
    return scene.a.mail_lane_id, scene.b.mail_lane_id


async def test_a_lane_that_was_unblocked_meanwhile_keeps_its_own(scene: Scene) -> None:
    await scene.block(scene.a)
    async with scene.db.connection() as c:
        (stuck,) = await pool_moves.stuck(c)
        await c.execute("UPDATE mailbox_lanes SET blocked_until = '-infinity'")
        assert await pool_moves.move(c, stuck, to_lane_id=scene.b.mail_lane_id, most=10, text="") == 0
        await c.execute("UPDATE mailbox_lanes SET blocked_until = 'infinity'")
        assert await pool_moves.move(c, stuck, to_lane_id=scene.b.mail_lane_id, most=10, text="") == 0


async def test_nothing_is_moved_while_everything_is_paused(scene: Scene) -> None:
    await scene.block(scene.a)
    await scene.execute("UPDATE relayd_state SET paused_at = relayd_now(), paused_reason = 'x'")
    assert await scene.move() == {"a": 12}


async def test_what_many_entries_wait_is_not_read_to_find_who_is_stuck(scene: Scene) -> None:
    async with scene.db.transaction() as c:
        for _ in range(20):
            await put(c, scene.a, *(f"u{n}@example.net" for n in range(50)), pool_id=scene.pool_id)
    async with scene.db.connection() as c:
        await c.execute("ANALYZE email_queue")
        plan = "\n".join(row[0] for row in await c.fetch(f"EXPLAIN (ANALYZE, TIMING off) {pool_moves.STUCK}"))
    read = re.findall(r"email_queue_pool .*actual rows=([0-9.]+)", plan)
    assert [float(rows) for rows in read] == [1, 0], plan


async def test_what_was_moved_in_part_is_sent_again_in_one_line(scene: Scene) -> None:
    async with scene.db.transaction() as c:
        await c.execute("DELETE FROM messages")
        message = await put(c, scene.a, "one@example.net", "two@example.net", pool_id=scene.pool_id)
        sent = "UPDATE email_queue SET status = 'sent', sent_at = relayd_now() WHERE id = $1"
        await c.execute(sent, message.entries[0].entry_id)
    await scene.block(scene.a)
    assert await scene.move() == {"b": 1}
    async with scene.db.connection() as c:
        copy = await messages.copy_of(c, message.queue_id, recipients=())
    assert (copy.mailbox_id, copy.lane_id) == (scene.b.mailbox_id, scene.b.mail_lane_id)


async def _route(scene: Scene, name: str = "net", *, upstream: str, mailbox_id: UUID | None = None) -> UUID:
    async with scene.db.transaction() as c:
        if not await c.fetchval("SELECT count(*) FROM email_configurations WHERE name = $1", upstream):
            await make_upstream(c, upstream)
        made = await mail_routes.add(
            c,
            name=name,
            client_id=None,
            mailbox_id=mailbox_id,
            recipient_domain="example.net",
            header_from=None,
            position=None,
            upstreams=await ways.members(c, [(upstream, None)], client_id=None, client="all"),
            may_misalign=False,
        )
    return made.id


async def _put_on(scene: Scene, route_id: UUID, count: int) -> None:
    """Nothing but so many messages that the door has put on that route."""
    async with scene.db.transaction() as c:
        await c.execute("DELETE FROM messages")
        lane_id = await routing.lane(c, scene.a.mailbox_id, LaneClass.MAIL, route_id, None)
        for _ in range(count):
            await put(c, scene.a, lane_id=lane_id, pool_id=scene.pool_id)


async def _leaves_by(scene: Scene) -> set[tuple[str, UUID | None]]:
    """The upstreams that mail waits for, and the routes that say so."""
    async with scene.db.connection() as c:
        rows = await c.fetch(
            "SELECT DISTINCT u.name, l.route_id FROM email_queue q JOIN mailbox_lanes l ON l.id = q.lane_id"
            " JOIN email_configurations u ON u.id = l.upstream_id WHERE q.status = 'queued'"
        )
    return {(row["name"], row["route_id"]) for row in rows}


async def test_mail_of_a_route_leaves_as_the_route_says_by_whomever(scene: Scene) -> None:
    route_id = await _route(scene, upstream="other")
    await _put_on(scene, route_id, 10)
    assert await scene.move() == {"a": 10}
    await scene.execute(
        "UPDATE budgets SET units_used = 4, turns_at = relayd_now() + interval '1 day' WHERE owner_id = $1",
        scene.c.mailbox_id,
    )
    await scene.block(scene.a)
    assert await scene.move() == {"a": 2, "b": 6, "c": 2}
    assert await _leaves_by(scene) == {("other", route_id)}


async def test_mail_of_a_route_waits_where_its_upstream_is_paused_or_the_route_is_gone(scene: Scene) -> None:
    route_id = await _route(scene, upstream="other")
    await _put_on(scene, route_id, 3)
    await scene.execute(
        "UPDATE email_configurations SET paused_at = relayd_now(), paused_reason = 'x' WHERE name = 'other'"
    )
    assert await scene.move() == {"a": 3}
    await scene.block(scene.a)
    assert await scene.move() == {"a": 3}, "those of the others are for the same upstream"
    async with scene.db.transaction() as c:
        await mail_routes.remove(c, await mail_routes.find_to_change(c, "net"))
    await scene.block(scene.a)
    assert await scene.move() == {"a": 3}, "it is put elsewhere first"


async def test_mail_of_a_mailboxs_own_route_stays_with_it(scene: Scene) -> None:
    route_id = await _route(scene, upstream="other", mailbox_id=scene.a.mailbox_id)
    await _put_on(scene, route_id, 3)
    await scene.block(scene.a)
    assert await scene.move() == {"a": 3}


async def test_nobody_takes_mail_that_a_route_of_its_own_would_send_another_way(scene: Scene) -> None:
    await _route(scene, upstream="other", mailbox_id=scene.b.mailbox_id)
    async with scene.db.transaction() as c:
        await c.execute("DELETE FROM messages")
        for recipient in ("you@example.net", "you@example.org"):
            await put(c, scene.a, recipient, pool_id=scene.pool_id)
        await c.execute("DELETE FROM mailbox_pool_members WHERE mailbox_id = $1", scene.c.mailbox_id)
    await scene.block(scene.a)
    assert await scene.move() == {"a": 1, "b": 1}
    async with scene.db.connection() as c:
        taken = await c.fetchval("SELECT recipient_address FROM email_queue WHERE mailbox_id = $1", scene.b.mailbox_id)
    assert taken == "you@example.org"
