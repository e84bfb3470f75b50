"""Which lane mail waits in: by route, by weight; and that what waits follows when these change."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from relayd.intake.routing import Routing
from relayd.mail.address import Address
from relayd.rules.mail_class import MailClass
from relayd.rules.states import LaneClass
from relayd.rules.upkeep_events import MailRerouted
from relayd.store import attempts, directory, lanes, mail_routes, mailboxes, messages, routing, tally, upstreams, ways
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.queue import NewEntry, enqueue
from relayd.upkeep.steer import reroute
from tests.builders import Sender, claim_all, make_sender, make_upstream, new_message
from tests.integration.test_breakers import OFFSET, REFUSED, SENT, listed, settle

AUTHOR = Address.parse("noreply@example.com")


@dataclass
class House:
    db: Database
    sender: Sender
    events: list[Any] = field(default_factory=list)

    async def route(self, name: str, *upstreams: str, weights: tuple[int, ...] = (), **conditions: Any) -> UUID:
        async with self.db.transaction() as c:
            wanted = list(zip(upstreams, weights or (None,) * len(upstreams), strict=True))
            made = await mail_routes.add(
                c,
                name=name,
                client_id=None,
                **{"mailbox_id": None, "recipient_domain": None, "header_from": None, "position": None} | conditions,
                upstreams=await ways.members(c, wanted, client_id=None, client="all"),
                may_misalign=True,
            )
            return made.id

    async def remove(self, name: str) -> None:
        async with self.db.transaction() as c:
            await mail_routes.remove(c, await mail_routes.find_to_change(c, name))

    async def put(self, *recipients: str) -> list[NewEntry]:
        """As the door does it."""
        async with self.db.connection() as c:
            mailbox = await directory.find_mailbox(c, AUTHOR)
            assert mailbox is not None
            message = new_message(self.sender, *recipients)
            placed = await Routing(self.db).place(
                message.queue_id, mailbox, MailClass.TRANSACTIONAL, AUTHOR, message.entries
            )
            message = replace(message, entries=placed)
            await enqueue(c, [message])
            await lanes.wake(c, sorted(message.lane_ids))
        return list(placed)

    async def follow(self) -> int:
        """The walk that a change causes; returns how many entries moved."""
        self.events.clear()
        longest = timedelta(seconds=1020)
        await reroute(self.db, longest_flight=longest, emit=self.events.append, wake=lambda: None)
        return sum(event.entries for event in self.events if isinstance(event, MailRerouted))

    async def waiting(self) -> dict[str, int]:
        """How many entries wait for each upstream."""
        async with self.db.connection() as c:
            rows = await c.fetch(
                "SELECT u.name, count(*) FROM email_queue q JOIN mailbox_lanes l ON l.id = q.lane_id"
                " JOIN email_configurations u ON u.id = l.upstream_id GROUP BY 1"
            )
        return {row["name"]: row["count"] for row in rows}


@pytest.fixture
async def house(db: Database) -> House:
    async with db.connection() as c:
        sender = await make_sender(c, upstream="first")
        await make_upstream(c, "second")
        await make_upstream(c, "third")
    return House(db, sender)


async def test_recipients_of_one_message_go_different_ways(house: House) -> None:
    await house.route("net", "second", recipient_domain="example.net")
    await house.put("a@example.net", "b@example.net", "c@example.org")
    assert await house.waiting() == {"second": 2, "first": 1}
    async with house.db.connection() as c:
        claimed = await claim_all(c, *[row["id"] for row in await c.fetch("SELECT id FROM email_configurations")])
    assert Counter(each.recipient.domain for each in claimed) == {"example.net": 2, "example.org": 1}


async def test_a_route_of_the_mailbox_goes_before_any_other_and_then_lower_positions_do(house: House) -> None:
    await house.route("low", "second", recipient_domain="example.net", position=1)
    await house.route("high", "third", recipient_domain="example.net", position=2)
    await house.put("a@example.net")
    assert await house.waiting() == {"second": 1}
    await house.route("own", "third", mailbox_id=house.sender.mailbox_id, position=9)
    await house.put("a@example.net")
    assert await house.waiting() == {"second": 1, "third": 1}


async def test_what_waits_follows_routes_that_come_change_and_go(house: House) -> None:
    await house.put("a@example.net", "b@example.org")
    await house.route("net", "second", recipient_domain="example.net")
    assert await house.follow() == 1
    assert await house.waiting() == {"second": 1, "first": 1}
    async with house.db.transaction() as c:
        found = await mail_routes.find_to_change(c, "net")
        members = await ways.members(c, [("third", None)], client_id=None, client="all")
        await mail_routes.put_upstreams(c, found, members, may_misalign=True)
    # Its lane goes another way at once: no entry has to move.
    assert await house.waiting() == {"third": 1, "first": 1}
    await house.remove("net")
    assert await house.waiting() == {"first": 2}
    assert await house.follow() == 1
    async with house.db.connection() as c:
        assert (
            await c.fetchval("SELECT count(*) FROM email_queue q JOIN mailbox_lanes l ON l.id = q.lane_id AND is_home")
            == 2
        )
        log = await c.fetch("SELECT event FROM email_delivery_logs WHERE event = 'rerouted'")
    assert len(log) == 2


async def test_a_walk_over_the_queue_is_made_once_and_once_more_after_a_change(house: House) -> None:
    await house.put("a@example.net")
    assert await house.follow() == 0
    await house.route("net", "second", recipient_domain="example.net")
    assert await house.follow() == 1
    # As a worker that had not heard of the route yet.
    async with house.db.connection() as c:
        await enqueue(c, [new_message(house.sender, "late@example.net")])
        assert await house.follow() == 0
        await c.execute("UPDATE relayd_state SET clock_offset = interval '6 seconds'")
        assert await house.follow() == 1
        await enqueue(c, [new_message(house.sender, "later@example.net")])
        assert await house.follow() == 0


async def test_what_was_in_flight_during_both_walks_follows_once_it_is_back(house: House) -> None:
    await house.put("a@example.net")
    async with house.db.connection() as c:
        claimed = await claim_all(c, house.sender.upstream_id)
        await attempts.start(c, [(each, "capture") for each in claimed], lease_seconds=960)
        await house.route("net", "second", recipient_domain="example.net")
        for seconds in (0, 6):
            await c.execute(OFFSET, seconds)
            assert await house.follow() == 0
        await settle(c, claimed, REFUSED)
        assert await house.waiting() == {"first": 1}
        await c.execute(OFFSET, 1400)
        assert await house.follow() == 1
        assert await house.waiting() == {"second": 1}
        await c.execute(OFFSET, 5000)
        await enqueue(c, [new_message(house.sender, "later@example.net")])
        assert await house.follow() == 0, "that was the last walk"


async def test_pages_of_the_walk_leave_nothing_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relayd.upkeep.steer.PAGE", 3)
    for number in range(5):
        await house.put(f"a{number}@example.net", f"b{number}@example.net", f"c{number}@example.org")
    await house.route("net", "second", recipient_domain="example.net")
    assert await house.follow() == 10
    assert await house.waiting() == {"second": 10, "first": 5}


async def test_weights_share_messages_out_and_each_stays_whole(house: House) -> None:
    async with house.db.connection() as c:
        await listed(c, house.sender, "first", "second", weights=(50, 50))
    for _ in range(60):
        placed = await house.put("a@example.net", "b@example.net")
        assert len({entry.lane_id for entry in placed}) == 1
    waiting = await house.waiting()
    assert waiting.keys() == {"first", "second"}
    assert min(waiting.values()) > 30
    async with house.db.connection() as c:
        await listed(c, house.sender, "second", "first")
    assert await house.waiting() == {"second": 120}
    await house.follow()
    async with house.db.connection() as c:
        assert await c.fetchval("SELECT count(DISTINCT lane_id) FROM email_queue") == 1


async def test_a_list_of_weights_fails_over_too(house: House) -> None:
    async with house.db.connection() as c:
        await listed(c, house.sender, "first", "second", weights=(50, 50))
        for _ in range(20):
            await house.put("a@example.net")
        await c.execute("UPDATE email_configurations SET is_active = false WHERE name = 'second'")
    assert await house.waiting() == {"first": 20}


async def test_naming_one_upstream_ends_a_list(house: House) -> None:
    async with house.db.connection() as c:
        await listed(c, house.sender, "first", "second")
        await c.execute(
            "UPDATE email_mailboxes SET upstream_id = (SELECT id FROM email_configurations WHERE name = 'third')"
        )
        assert await c.fetchval("SELECT count(*) FROM mailbox_upstreams") == 0
    await house.put("a@example.net")
    assert await house.waiting() == {"third": 1}


async def test_a_copy_goes_the_way_of_its_original(house: House) -> None:
    await house.route("net", "second", recipient_domain="example.net")
    await house.put("a@example.net", "c@example.org")
    async with house.db.connection() as c:
        queue_id = await c.fetchval("SELECT id FROM messages")
        copy = await messages.copy_of(c, queue_id, recipients=())
        await enqueue(c, [copy])
    assert await house.waiting() == {"second": 2, "first": 2}


async def test_a_lane_of_a_route_is_held_and_limited_with_its_mailbox(house: House) -> None:
    async with house.db.connection() as c:
        await c.execute("UPDATE email_mailboxes SET daily_send_limit = 1")
        await house.route("net", "second", recipient_domain="example.net")
        await house.put("a@example.net")
        await house.put("c@example.org")
        all_of = [row["id"] for row in await c.fetch("SELECT id FROM email_configurations")]
        await c.execute("UPDATE email_mailboxes SET status = 'paused'")
        assert await claim_all(c, *all_of) == []
        await c.execute("UPDATE email_mailboxes SET status = 'active'")
        assert len(await claim_all(c, *all_of)) == 1


async def test_googles_quota_of_a_mailbox_comes_with_a_list_or_a_route_to_google(house: House) -> None:
    async with house.db.connection() as c:
        for name in ("second", "third"):
            await c.execute(
                "UPDATE email_configurations SET provider_type = 'google_workspace', mode = 'gmail_api',"
                " capture_directory = NULL WHERE name = $1",
                name,
            )
        await listed(c, house.sender, "first", "second")
        await house.route("net", "third", recipient_domain="example.net")
        await house.put("a@example.net")
        limits = await c.fetch(
            "SELECT u.name, g.daily_limit FROM google_workspace_quota g"
            " JOIN email_configurations u ON u.id = g.upstream_id ORDER BY 1"
        )
        assert [tuple(row) for row in limits] == [("second", 2000), ("third", 2000)]
        budgets = "SELECT cardinality(budget_ids) FROM mailbox_lanes WHERE class = 'mail' ORDER BY is_home"
        assert [row[0] for row in await c.fetch(budgets)] == [2, 1]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE email_mailboxes SET status = 'paused'",
        "UPDATE email_domains SET status = 'suspended'",
        "UPDATE email_domains SET own_daily_limit = 5",
        "UPDATE clients SET status = 'suspended'",
        "UPDATE clients SET daily_send_limit = 5",
        "INSERT INTO google_workspace_quota (upstream_id, daily_limit)"
        " SELECT id, 5 FROM email_configurations WHERE name = 'second'",
        "UPDATE mail_route_upstreams SET upstream_id = (SELECT id FROM email_configurations WHERE name = 'third')",
    ],
)
async def test_a_lane_that_is_made_during_a_change_follows_it(house: House, change: str) -> None:
    route_id = await house.route("net", "second", recipient_domain="example.net")

    async def make() -> int | None:
        async with house.db.transaction() as c:
            return await routing.lane(c, house.sender.mailbox_id, LaneClass.MAIL, route_id, None)

    async with house.db.connection() as watching:
        async with house.db.transaction() as c:
            # As the commands do: first all is locked that is to change.
            if "mail_route" in change:
                await mail_routes.find_to_change(c, "net")
            if "google" in change:
                await upstreams.find_to_change(c, "second")
            await c.execute(change)
            making = asyncio.create_task(make())
            await _waits(watching, making)
        lane_id = await making
        lane = await watching.fetchrow("SELECT * FROM mailbox_lanes WHERE id = $1", lane_id)
        await watching.execute("SELECT relayd_refresh_lanes(ARRAY[$1::bigint])", lane_id)
        assert lane == await watching.fetchrow("SELECT * FROM mailbox_lanes WHERE id = $1", lane_id)
        assert lane["held"] == ("status" in change)


async def test_two_lanes_of_a_mailbox_are_made_at_once(house: House) -> None:
    # Google's facts of the mailbox belong to both: whoever comes second finds them.
    async with house.db.connection() as c:
        await c.execute(
            "UPDATE email_configurations SET provider_type = 'google_workspace', mode = 'gmail_api',"
            " capture_directory = NULL WHERE name = 'third'"
        )
    route_id = await house.route("net", "third", recipient_domain="example.net")

    async def make(lane_class: LaneClass) -> int | None:
        async with house.db.transaction() as c:
            return await routing.lane(c, house.sender.mailbox_id, lane_class, route_id, None)

    async with house.db.connection() as watching:
        async with house.db.transaction() as c:
            first = await routing.lane(c, house.sender.mailbox_id, LaneClass.MAIL, route_id, None)
            making = asyncio.create_task(make(LaneClass.BULK))
            await _waits(watching, making)
        second = await making
        assert first != second
        assert await watching.fetchval("SELECT count(*) FROM google_workspace_quota") == 1
        budgets = await watching.fetch("SELECT budget_ids FROM mailbox_lanes WHERE id = ANY($1)", [first, second])
        assert len({tuple(row["budget_ids"]) for row in budgets}) == 1 and budgets[0]["budget_ids"]


async def _waits(watching: Connection, task: asyncio.Task[Any]) -> None:
    """Until it waits for a lock; or it has ended, and waited for nothing."""
    while not task.done() and not await watching.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass


async def test_a_list_changes_beside_the_tally(house: House) -> None:
    async with house.db.connection() as c:
        await house.put("a@example.net")
        (claimed,) = await claim_all(c, house.sender.upstream_id)
        await attempts.start(c, [(claimed, "capture")], lease_seconds=600)
        await settle(c, [claimed], SENT)

    async def count() -> int:
        async with house.db.transaction() as c:
            return await tally.tally(c, lag=timedelta(seconds=-60), most=100)

    async with house.db.connection() as watching:
        async with house.db.transaction() as c:
            mailbox = await mailboxes.find_to_change(c, house.sender.address)
            counting = asyncio.create_task(count())
            await _waits(watching, counting)
            members = await ways.members(c, [("second", None)], client_id=house.sender.client_id, client="acme")
            await ways.put(c, mailbox, members, may_misalign=None)
        assert await counting >= 1
        assert await watching.fetchval("SELECT emails_sent FROM warmup_stats") == 1


async def test_the_walk_makes_lanes_before_it_holds_entries(house: House) -> None:
    """Whoever settles holds an entry and comes to its mailbox's budgets and lanes last."""
    await house.put("a@example.net")
    async with house.db.connection() as c:
        await c.execute(
            "UPDATE email_configurations SET provider_type = 'google_workspace', mode = 'gmail_api',"
            " capture_directory = NULL WHERE name = 'second'"
        )
    await house.route("net", "second", recipient_domain="example.net")
    async with house.db.connection() as watching:
        async with house.db.transaction() as c:
            await c.execute("SELECT FROM email_queue FOR NO KEY UPDATE")
            following = asyncio.create_task(house.follow())
            await _waits(watching, following)
            assert not following.done()
            await c.execute("SELECT FROM budgets ORDER BY id FOR NO KEY UPDATE")
            await c.execute("SELECT FROM mailbox_lanes ORDER BY id FOR NO KEY UPDATE")
        assert await following == 1
    assert await house.waiting() == {"second": 1}
