"""Lists of upstreams and their breakers: mail leaves one that fails, and one message tries it again."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest

from relayd.delivery.attempt import untried
from relayd.delivery.settler import Settler
from relayd.rules.breaker import BreakerState, BreakerTerms
from relayd.rules.outcome import Cause, Deferred, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted
from relayd.rules.settlement import settle as decide
from relayd.store import attempts, breakers, mailboxes, settlement, steering, ways
from relayd.store.claim import ClaimedEntry, claim
from relayd.store.connection import Connection
from relayd.store.pool import Database
from tests.builders import NoBounces, Sender, claim_all, make_sender, make_upstream, put, put_many

TERMS = BreakerTerms(failures=4, rate=0.5, window_seconds=60, open_seconds=30, open_longest_seconds=100)
REFUSED = Deferred(Scope.UPSTREAM, Cause(Stage.CONNECT, "connection refused"))
SENT = Sent(Cause(Stage.DOT, "ok", 250))
OFFSET = "UPDATE relayd_state SET clock_offset = clock_offset + $1 * interval '1 second'"


@dataclass
class House:
    """A mailbox whose mail goes through `first`, and else through `second`."""

    db: Database
    sender: Sender
    first: UUID
    second: UUID

    async def goes_through(self, lane_id: int | None = None) -> UUID:
        async with self.db.connection() as c:
            found: UUID = await c.fetchval(
                "SELECT upstream_id FROM mailbox_lanes WHERE id = $1", lane_id or self.sender.mail_lane_id
            )
            return found

    async def open(self, upstream_id: UUID) -> None:
        async with self.db.connection() as c:
            assert await breakers.trip(c, upstream_id, "connect: connection refused", 30)
        await steering.steer(self.db, upstream_id)
        await steering.let_go(self.db, upstream_id)

    async def shown(self, upstream_id: UUID) -> breakers.Shown:
        async with self.db.connection() as c:
            return await breakers.show(c, upstream_id)

    async def later(self, seconds: float) -> None:
        async with self.db.connection() as c:
            await c.execute(OFFSET, seconds)

    async def probe(self, upstream_id: UUID, claimant: str) -> list[ClaimedEntry]:
        """As a worker does."""
        async with self.db.transaction() as c:
            lane_id = await breakers.begin_probe(c, upstream_id, claimant, 600)
            if lane_id is None:
                return []
            claimed = await claim(
                c, {upstream_id: 1}, read_limit=200, claimant=claimant, lease_seconds=60, spread_seconds=0
            )
            await steering.steer_lanes(c, [lane_id])
        return claimed.entries


async def listed(
    c: Connection, sender: Sender, *names: str, weights: tuple[int, ...] = (), misalign: bool = True
) -> None:
    wanted = list(zip(names, weights or (None,) * len(names), strict=True))
    async with c.transaction():
        mailbox = await mailboxes.find_to_change(c, sender.address)
        members = await ways.members(c, wanted, client_id=sender.client_id, client="acme")
        await ways.put(c, mailbox, members, may_misalign=misalign)


@pytest.fixture
async def house(db: Database) -> House:
    async with db.connection() as c:
        sender = await make_sender(c, upstream="first")
        second = await make_upstream(c, "second")
        await listed(c, sender, "first", "second")
    return House(db, sender, sender.upstream_id, second)


async def settle(c: Connection, claimed: list[ClaimedEntry], outcome: Outcome) -> None:
    now = await c.fetchval("SELECT relayd_now()")
    results = [
        settlement.Result(
            each.entry_id,
            each.fence,
            each.claimed_by,
            "capture",
            decide(
                outcome, Attempted(each.retry_count, 50, now), RetryPolicy(), on_uncertain="retry", now=now, dice=0.5
            ),
        )
        for each in claimed
    ]
    async with c.transaction():
        await settlement.settle(c, results)


async def started(c: Connection, claimed: list[ClaimedEntry]) -> int:
    found = await attempts.start(c, [(each, "capture") for each in claimed], lease_seconds=600)
    return len(found.entries)


async def test_mail_goes_through_the_first_and_leaves_it_when_its_breaker_opens(house: House) -> None:
    assert await house.goes_through() == house.first
    await house.open(house.first)
    assert await house.goes_through() == house.second
    assert await house.goes_through(house.sender.dsn_lane_id) == house.second
    async with house.db.connection() as c:
        await put(c, house.sender)
        assert await claim_all(c, house.first) == []
        assert [each.upstream_id for each in await claim_all(c, house.first, house.second)] == [house.second]


async def test_what_was_claimed_for_a_broken_upstream_does_not_begin(house: House) -> None:
    async with house.db.connection() as c:
        await put_many(c, house.sender, 3)
        claimed = await claim_all(c, house.first)
    await house.open(house.first)
    async with house.db.connection() as c:
        assert await started(c, claimed) == 0


async def test_without_another_way_mail_waits_and_spends_no_attempt(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_sender(c, upstream="only")
        await put_many(c, sender, 2)
        claimed = await claim_all(c, sender.upstream_id, messages=1)
        house = House(db, sender, sender.upstream_id, sender.upstream_id)
        await house.open(sender.upstream_id)
        assert await started(c, claimed) == 0
        assert await claim_all(c, sender.upstream_id) == []
        assert await c.fetchval("SELECT max(retry_count) FROM email_queue") == 0


async def test_what_failed_with_its_upstream_alone_goes_at_once_through_the_next(house: House) -> None:
    async with house.db.connection() as c:
        await put_many(c, house.sender, 2)
        dead, greylisted = await claim_all(c, house.first)
        assert await started(c, [dead, greylisted]) == 2
        await settle(c, [dead], REFUSED)
        await settle(c, [greylisted], Deferred(Scope.RECIPIENT, Cause(Stage.RCPT, "come again", 450)))
        assert await claim_all(c, house.first, house.second) == []
    assert await steering.let_go(house.db) == 0  # its upstream is still the one
    await house.open(house.first)
    async with house.db.connection() as c:
        (again,) = await claim_all(c, house.first, house.second)
        assert (again.entry_id, again.upstream_id) == (dead.entry_id, house.second)
        assert "rerouted" in [row["event"] for row in await c.fetch("SELECT event FROM email_delivery_logs")]


async def test_an_attempt_that_ends_after_the_breaker_opened_goes_on_by_the_next_round(house: House) -> None:
    async with house.db.connection() as c:
        await put(c, house.sender)
        claimed = await claim_all(c, house.first)
        assert await started(c, claimed) == 1
        await house.open(house.first)
        await settle(c, claimed, REFUSED)
        assert await claim_all(c, house.second) == []
        assert await steering.let_go(house.db) == 1
        assert len(await claim_all(c, house.second)) == 1


async def note(
    house: House, attempts: int, failures: int, *, trailing: int = 0, succeeded_seconds_ago: float | None = 0
) -> Any:
    """Of many attempts at once, among them a success."""
    noted = breakers.Noted(attempts, failures, trailing, succeeded_seconds_ago, 0, "connect: refused")
    async with house.db.transaction() as c:
        return await breakers.note(c, house.first, noted, TERMS)


async def test_failures_open_it_when_they_are_enough_and_enough_of_all(house: House) -> None:
    assert await note(house, 16, 3) is None
    assert await note(house, 4, 4) is None  # 6 of 16
    assert await note(house, 6, 6) is not None  # 9 of 16
    shown = await house.shown(house.first)
    assert (shown.state, shown.reason) == (BreakerState.OPEN, "connect: refused")
    assert await note(house, 50, 50) is None  # it is open already


async def test_failures_of_long_ago_do_not_count_among_successes(house: House) -> None:
    for _ in range(5):
        assert await note(house, 3, 3) is None
        await house.later(61)
    assert (await house.shown(house.first)).state is BreakerState.CLOSED
    await note(house, 2, 2)
    await house.later(31)
    assert await note(house, 2, 2) is not None


async def test_failures_in_a_row_open_it_however_far_apart(house: House) -> None:
    for _ in range(TERMS.failures - 1):
        assert await note(house, 1, 1, trailing=1, succeeded_seconds_ago=None) is None
        await house.later(86_400)
    assert await note(house, 1, 1, trailing=1, succeeded_seconds_ago=None) is not None


async def test_a_success_ends_the_row_only_if_it_came_after_the_latest_failure(house: House) -> None:
    assert await note(house, 1, 1, trailing=1, succeeded_seconds_ago=None) is None
    for seconds, in_a_row in ((3600, 2), (10, 3), (0, 1), (5, 2)):
        # As another worker tells it: what worked so long ago, then one failure.
        assert await note(house, 10, 1, trailing=1, succeeded_seconds_ago=seconds) is None
        assert (await house.shown(house.first)).consecutive_failures == in_a_row
        await house.later(2)


async def test_a_busy_upstream_is_left_when_it_has_failed_for_a_moment(house: House) -> None:
    for _ in range(100):
        assert await note(house, 16, 1) is None
    assert await note(house, 16, 15) is not None


async def fail(
    house: House, c: Connection, claimed: list[ClaimedEntry], outcome: Outcome = REFUSED, *, max_retries: int = 50
) -> None:
    assert await started(c, claimed) == len(claimed)
    now = await c.fetchval("SELECT relayd_now()")
    settler = Settler(house.db, NoBounces(), RetryPolicy(), emit=lambda event: None, wake=lambda: None, now=lambda: now)
    await settler.settle(
        [replace(untried(each, "it failed"), outcome=outcome, max_retries=max_retries) for each in claimed]
    )


async def test_what_its_upstream_fails_goes_on_through_the_next_at_once(house: House) -> None:
    async with house.db.connection() as c:
        await put(c, house.sender, "one@example.net", "two@example.net")
        await put(c, house.sender, "three@example.net")
        claimed = await claim_all(c, house.first, messages=1)
        assert len(claimed) == 2
        await fail(house, c, claimed)
        again = await claim_all(c, house.second)
        assert {each.entry_id for each in again} == {each.entry_id for each in claimed}
        # It is one try: what the first has failed spends no attempt of its own.
        assert {each.retry_count for each in again} == {0}
        # Other mail goes through the first: its breaker is closed.
        assert [str(each.recipient) for each in await claim_all(c, house.first)] == ["three@example.net"]
        events = [row["event"] for row in await c.fetch("SELECT event FROM email_delivery_logs ORDER BY id")]
        assert events.count("rerouted") == 2


async def test_when_all_have_failed_it_waits_and_begins_with_the_first(house: House) -> None:
    async with house.db.connection() as c:
        await put(c, house.sender)
        for _ in range(3):
            await fail(house, c, await claim_all(c, house.first))
            await note(house, 1, 1, trailing=1, succeeded_seconds_ago=None)
            await fail(house, c, await claim_all(c, house.second))
            assert await claim_all(c, house.first, house.second) == []
            assert await steering.let_go(house.db) == 0
            await house.later(7200)
        row = await c.fetchrow("SELECT retry_count, upstream_failed FROM email_queue")
        assert (row["retry_count"], row["upstream_failed"]) == (3, True)


async def test_the_last_attempt_too_goes_on_through_the_next(house: House) -> None:
    async with house.db.connection() as c:
        await put(c, house.sender)
        await fail(house, c, await claim_all(c, house.first), max_retries=0)
        (entry,) = await claim_all(c, house.second)
        assert entry.retry_count == 0
        await fail(house, c, [entry], max_retries=0)
        assert await c.fetchval("SELECT status FROM email_queue") == "failed"
        events = [row["event"] for row in await c.fetch("SELECT event FROM email_delivery_logs ORDER BY id")]
        assert events == ["queued", "sending", "deferred", "rerouted", "sending", "failed"]


async def test_it_goes_round_a_list_of_three_past_one_that_is_broken(house: House) -> None:
    async with house.db.connection() as c:
        third = await make_upstream(c, "third")
        await listed(c, house.sender, "first", "second", "third")
        await put(c, house.sender)
        await breakers.trip(c, house.second, "connection refused", 3600)
        await fail(house, c, await claim_all(c, house.first))
        (entry,) = await claim_all(c, house.first, house.second, third)
        assert entry.upstream_id == third
        await fail(house, c, [entry])
        assert await claim_all(c, house.first, house.second, third) == []
        await house.later(7200)
        assert [each.upstream_id for each in await claim_all(c, house.first, house.second, third)] == [house.first]


@pytest.mark.parametrize(
    "outcome",
    [
        Deferred(Scope.RECIPIENT, Cause(Stage.RCPT, "come again", 450)),
        Deferred(Scope.MESSAGE, Cause(Stage.DOT, "later", 451)),
        Uncertain(Cause(Stage.DOT, "timed out")),
    ],
)
async def test_what_is_not_about_the_upstream_stays_with_it(house: House, outcome: Outcome) -> None:
    async with house.db.connection() as c:
        await put(c, house.sender)
        await fail(house, c, await claim_all(c, house.first), outcome)
        await house.later(7200)
        assert [each.upstream_id for each in await claim_all(c, house.first, house.second)] == [house.first]


@pytest.mark.parametrize("is_weighted", [False, True])
async def test_an_upstream_that_may_not_take_over_gets_nothing(house: House, is_weighted: bool) -> None:
    async with house.db.connection() as c:
        weights = (1000, 1) if is_weighted else ()
        await listed(c, house.sender, "first", "second", weights=weights, misalign=False)
        await put(c, house.sender)
        claimed = await claim_all(c, house.first)
        await fail(house, c, claimed)
        assert await claim_all(c, house.first, house.second) == []
        await house.open(house.first)
        assert await claim_all(c, house.first, house.second) == []


async def test_what_failed_over_waits_where_it_may_go_when_dns_changes_its_mind(house: House) -> None:
    """A lane of what failed over is no choice of the operator's: DNS must vouch for its upstream as before."""
    async with house.db.connection() as c:
        await put(c, house.sender)
        await fail(house, c, await claim_all(c, house.first))
        await listed(c, house.sender, "first", "second", misalign=False)
        assert [each.upstream_id for each in await claim_all(c, house.first, house.second)] == [house.first]


@pytest.mark.parametrize("lane", ["mail_lane_id", "bulk_lane_id", "dsn_lane_id"])
async def test_mail_of_each_class_stays_in_its_class(house: House, lane: str) -> None:
    async with house.db.connection() as c:
        await put(c, house.sender, lane_id=getattr(house.sender, lane))
        await fail(house, c, await claim_all(c, house.first))
        rows = await c.fetch(
            "SELECT l.class, l.share_id, home.class AS was FROM email_queue q JOIN mailbox_lanes l ON l.id = q.lane_id,"
            " mailbox_lanes home WHERE home.id = $1",
            getattr(house.sender, lane),
        )
        assert [(row["class"], row["share_id"]) for row in rows] == [(rows[0]["was"], house.second)]
        assert len(await claim_all(c, house.second)) == 1


async def test_one_message_tries_a_broken_upstream_and_no_other(house: House) -> None:
    await house.open(house.first)
    async with house.db.connection() as c:
        await put_many(c, house.sender, 10)
    assert await house.probe(house.first, "w1/1") == []  # not yet
    await house.later(31)
    (tried,) = await house.probe(house.first, "w1/2")
    assert tried.upstream_id == house.first
    assert await house.probe(house.first, "w2/1") == []
    assert await house.goes_through() == house.second
    async with house.db.connection() as c:
        # The others go on; the one that tries may begin although its lane goes another way.
        assert {each.upstream_id for each in await claim_all(c, house.first, house.second)} == {house.second}
        assert await started(c, [tried]) == 1


async def test_a_probe_that_succeeds_brings_all_back(house: House) -> None:
    await house.open(house.first)
    async with house.db.connection() as c:
        await put_many(c, house.sender, 2)
        await house.later(31)
        (tried,) = await house.probe(house.first, "w1/2")
        assert not await breakers.close(c, house.first, probing_by="w9/9")
        assert await breakers.close(c, house.first, probing_by="w1/2")
        await steering.steer(house.db, house.first)
        assert await house.goes_through() == house.first
        assert len(await claim_all(c, house.first)) == 1
        assert await started(c, [tried]) == 1


async def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest(house: House) -> None:
    async with house.db.connection() as c:
        await put_many(c, house.sender, 9)
    await house.open(house.first)
    waits = []
    await house.later(31)
    for number in range(4):
        (tried,) = await house.probe(house.first, f"w1/{number}")
        async with house.db.connection() as c:
            await started(c, [tried])
            await settle(c, [tried], REFUSED)
            retry_at = await breakers.reopen(
                c, house.first, tried.claimed_by, "still dead", hold_seconds=None, terms=TERMS
            )
            assert retry_at is not None
            waits.append(round((retry_at - await c.fetchval("SELECT relayd_now()")).total_seconds()))
        await house.later(waits[-1] + 1)
    assert waits == [60, 100, 100, 100]


async def test_a_probe_whose_worker_died_is_given_to_another(house: House) -> None:
    async with house.db.connection() as c:
        await put_many(c, house.sender, 3)
        await house.open(house.first)
        await house.later(31)
        assert len(await house.probe(house.first, "node/1/7")) == 1
        await breakers.release(c, ["node/1/%"])
        assert len(await house.probe(house.first, "node/2/1")) == 1
    await house.later(601)
    assert len(await house.probe(house.first, "node/3/1")) == 1


async def test_nothing_tries_as_long_as_nothing_is_due(house: House) -> None:
    await house.open(house.first)
    await house.later(31)
    assert await house.probe(house.first, "w1/1") == []
    assert (await house.shown(house.first)).state is BreakerState.OPEN


async def test_mail_that_has_nowhere_to_go_tries_the_second_too(house: House) -> None:
    await house.open(house.first)
    await house.open(house.second)
    assert await house.goes_through() == house.first
    async with house.db.connection() as c:
        await put_many(c, house.sender, 3)
    await house.later(31)
    (tried,) = await house.probe(house.second, "w1/1")
    assert tried.upstream_id == house.second
    async with house.db.connection() as c:
        assert await started(c, [tried]) == 1
        assert await breakers.close(c, house.second, probing_by="w1/1")
    await steering.steer(house.db, house.second)
    assert await house.goes_through() == house.second


async def test_a_probe_fits_the_budgets_of_the_upstream_that_it_tries(house: House) -> None:
    async with house.db.connection() as c:
        await put_many(c, house.sender, 2)
        await c.execute(
            "INSERT INTO google_workspace_quota (upstream_id, daily_limit) VALUES ($1, 1), ($2, 5)",
            house.first,
            house.second,
        )
        await house.open(house.first)
        await house.later(31)
        (tried,) = await house.probe(house.first, "w1/1")
        used = "SELECT daily_used FROM google_workspace_quota WHERE upstream_id = $1"
        assert [await c.fetchval(used, each) for each in (house.first, house.second)] == [1, 0]
        assert await started(c, [tried]) == 1
        await settle(c, [tried], SENT)
        await breakers.reopen(c, house.first, "w1/1", "x", hold_seconds=1, terms=TERMS)
    await house.later(5)
    # The day's limit there is used up: nothing tries until it turns.
    assert await house.probe(house.first, "w1/2") == []


async def test_an_operator_opens_and_closes_it(house: House) -> None:
    async with house.db.connection() as c:
        await breakers.hold_open(c, house.first, "moving house")
        await put(c, house.sender)
    await steering.steer(house.db, house.first)
    await house.later(100_000)
    assert await house.probe(house.first, "w1/1") == []
    shown = await house.shown(house.first)
    assert (shown.state, shown.reason, shown.retry_at) == (BreakerState.OPEN, "moving house", None)
    async with house.db.connection() as c:
        assert await breakers.close(c, house.first)
    await steering.steer(house.db, house.first)
    assert await house.goes_through() == house.first


async def test_a_changed_upstream_is_tried_at_once(house: House) -> None:
    await house.open(house.first)
    async with house.db.connection() as c:
        await put(c, house.sender)
        await c.execute("UPDATE email_configurations SET max_connections = 7 WHERE id = $1", house.first)
    assert len(await house.probe(house.first, "w1/1")) == 1


async def test_an_inactive_upstream_is_left_and_taken_again(house: House) -> None:
    async with house.db.connection() as c:
        await c.execute("UPDATE email_configurations SET is_active = false WHERE id = $1", house.first)
        assert await house.goes_through() == house.second
        await c.execute("UPDATE email_configurations SET is_active = true WHERE id = $1", house.first)
        assert await house.goes_through() == house.first


async def test_only_an_upstream_that_aligns_takes_over(house: House) -> None:
    async with house.db.connection() as c:
        await listed(c, house.sender, "first", "second", misalign=False)
    await house.open(house.first)
    assert await house.goes_through() == house.first
    async with house.db.connection() as c:
        say = (
            "INSERT INTO upstream_alignments (domain_id, upstream_id, client_id, is_aligned, why, checked_at)"
            " VALUES ($1, $2, $3, $4, 'because', relayd_now())"
            " ON CONFLICT (domain_id, upstream_id) DO UPDATE SET is_aligned = $4"
        )
        for is_aligned, goes in ((False, house.first), (None, house.first), (True, house.second)):
            await c.execute(say, house.sender.domain_id, house.second, house.sender.client_id, is_aligned)
            await steering.steer(house.db, house.second)
            assert await house.goes_through() == goes


async def test_thousands_of_lanes_follow_in_batches(house: House) -> None:
    async with house.db.connection() as c:
        await c.execute(
            "INSERT INTO mailbox_lanes (mailbox_id, class, client_id, upstream_id, preferred_id, held, share_id)"
            " SELECT $1, 'mail', $2, $3, $3, false, relayd_uuid() FROM generate_series(1, 2500)",
            house.sender.mailbox_id,
            house.sender.client_id,
            house.first,
        )
    await house.open(house.first)
    async with house.db.connection() as c:
        rows = await c.fetch("SELECT upstream_id, count(*) AS lanes FROM mailbox_lanes GROUP BY 1")
    assert [(row["upstream_id"], row["lanes"]) for row in rows] == [(house.second, 2503)]


async def test_a_claim_postponed_for_its_upstream_is_due_again_at_once(house: House) -> None:
    async with house.db.connection() as c:
        await put(c, house.sender)
        claimed = await claim_all(c, house.first)
        await started(c, claimed)
        await house.open(house.first)
        await settle(c, claimed, Postponed(Scope.UPSTREAM, Cause(Stage.AUTH, "the grant is dead"), 3600))
        (again,) = await claim_all(c, house.second)
        assert again.retry_count == 0
