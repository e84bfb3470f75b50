"""Warm-up under a moving clock: claims, starts and settles as in the product, and the chore at each day's turn."""

import asyncio
from datetime import timedelta
from itertools import accumulate

import pytest

from relayd.rules.outcome import Cause, Failed, Outcome, Scope, Sent, Stage
from relayd.rules.retry import RetryPolicy
from relayd.rules.settlement import Attempted
from relayd.rules.settlement import settle as decide
from relayd.rules.upkeep_events import MailboxPaused, UpkeepEvent, WarmUpTurned, Way
from relayd.rules.warm_up import DEFAULT_SCHEDULE, Gate
from relayd.store import attempts, settlement
from relayd.store.claim import claim
from relayd.store.connection import Connection
from relayd.store.pool import Database
from relayd.store.settlement import Result
from relayd.upkeep.health import HealthTerms, watch_health
from relayd.upkeep.warm_up import WarmUpTerms, warm_up_mailboxes
from tests.builders import Sender, make_sender, put_many
from tests.integration.conftest import Control

SENT = Sent(Cause(Stage.DOT, "ok", 250, "2.0.0"))
REFUSED = Failed(Scope.RECIPIENT, Cause(Stage.RCPT, "no such user", 550, "5.1.1"))
TERMS = WarmUpTerms(DEFAULT_SCHEDULE, Gate(), health_days=7, lag=timedelta())


async def send_all(connection: Connection, sender: Sender, *, refused: int = 0) -> int:
    """Whatever may leave leaves, the first `refused` of it refused for good; how many were taken."""
    taken = 0
    while True:
        async with connection.transaction():
            claimed = await claim(
                connection,
                {sender.upstream_id: 1000},
                read_limit=1000,
                claimant=f"n/1/{taken}",
                lease_seconds=60,
                spread_seconds=0,
            )
        if not claimed.entries:
            return taken
        started = await attempts.start(connection, [(entry, "capture") for entry in claimed.entries], lease_seconds=600)
        assert len(started.entries) == len(claimed.entries)
        now = await connection.fetchval("SELECT relayd_now()")
        results = []
        for entry in claimed.entries:
            outcome: Outcome = REFUSED if taken < refused else SENT
            taken += 1
            decided = decide(
                outcome,
                Attempted(entry.retry_count, entry.max_retries, now),
                RetryPolicy(),
                on_uncertain="retry",
                now=now,
                dice=0.5,
            )
            results.append(Result(entry.entry_id, entry.fence, entry.claimed_by, "capture", decided))
        async with connection.transaction():
            await settlement.settle(connection, results)


class Days:
    """A warming mailbox with more mail than it may send, day after day."""

    def __init__(self, db: Database, control: Control, sender: Sender) -> None:
        self.db, self.control, self.sender = db, control, sender
        self.events: list[UpkeepEvent] = []
        self.wakes = 0

    async def turn(self, days: int = 1, terms: WarmUpTerms = TERMS) -> None:
        """So many days later, and the chore has run."""
        await asyncio.sleep(0.01)  # ids of this very millisecond are not counted yet
        async with self.db.connection() as c:
            await c.execute("UPDATE relayd_state SET clock_offset = clock_offset + make_interval(days => $1)", days)
        await watch_health(self.db, HealthTerms(least_tried=10_000, lag=timedelta()), emit=self.events.append)
        await warm_up_mailboxes(self.db, terms, emit=self.events.append, wake=self._wake)

    async def send(self, *, refused: int = 0) -> int:
        async with self.db.connection() as c:
            return await send_all(c, self.sender, refused=refused)

    async def shown(self) -> dict:  # type: ignore[type-arg]
        shown: dict = await self.control.ok("GET", f"mailboxes/{self.sender.address}/warmup")  # type: ignore[type-arg]
        return shown

    async def step(self, verb: str, **body: object) -> dict:  # type: ignore[type-arg]
        path = f"mailboxes/{self.sender.address}/warmup/{verb}"
        changed: dict = await self.control.ok("POST", path, body)  # type: ignore[type-arg]
        return changed

    def _wake(self) -> None:
        self.wakes += 1


@pytest.fixture
async def days(db: Database, control: Control) -> Days:
    async with db.connection() as c:
        sender = await make_sender(c, daily_limit=1000)
        await put_many(c, sender, 1500)
    return Days(db, control, sender)


async def test_thirty_one_days(days: Days) -> None:
    started = await days.step("start")
    assert (started["state"], started["stage"], started["daily_send_limit"]) == ("warming", 0, 10)
    sent = []
    for _ in range(32):
        sent.append(await days.send())
        await days.turn()
    totals = list(accumulate(sent))
    assert [totals[day - 1] for day in (5, 10, 15, 20, 25, 30)] == [50, 150, 300, 500, 750, 1050]
    assert sent[30:] == [75, 75]
    shown = await days.shown()
    assert (shown["state"], shown["status"], shown["stage"]) == ("completed", "active", 30)
    assert [event.way for event in days.events if isinstance(event, WarmUpTurned)] == [Way.ON] * 29 + [Way.COMPLETED]
    assert days.wakes == 30
    latest = shown["days"][-1]
    assert latest["emails_sent"] == latest["daily_limit"]


async def test_a_spike_of_bounces_on_day_twelve_lowers_it_once(days: Days) -> None:
    await days.step("start")
    for _ in range(11):
        await days.send()
        await days.turn()
    # 28 bounce, which gives their units back for 28 others: of the 188 that were tried in seven days 14.9 %.
    assert (await days.shown())["daily_send_limit"] == 30
    assert await days.send(refused=28) == 58
    await days.turn()
    shown = await days.shown()
    assert (shown["stage"], shown["daily_send_limit"]) == (5, 20)
    assert shown["note"] == "lowered: bounce rate 14.9% of 188"
    assert isinstance(days.events[-1], WarmUpTurned) and days.events[-1].way is Way.LOWERED
    # What was before is paid for: it goes on from there, and down again only for what bounces now.
    assert await days.send() == 20
    await days.turn()
    shown = await days.shown()
    assert (shown["stage"], shown["note"]) == (6, None)
    assert await days.send(refused=20) == 40
    await days.turn()
    shown = await days.shown()
    assert (shown["stage"], shown["daily_send_limit"]) == (0, 10)


async def test_a_few_bounces_hold_the_stage(days: Days) -> None:
    await days.step("start")
    for _ in range(11):
        await days.send()
        await days.turn()
    await days.send(refused=12)
    await days.turn()
    shown = await days.shown()
    assert (shown["stage"], shown["daily_send_limit"]) == (11, 30)
    assert shown["note"].startswith("held: bounce rate")


async def test_days_that_nobody_turned_count_all_the_same(days: Days) -> None:
    await days.step("start")
    await days.turn(7)
    assert (await days.shown())["daily_send_limit"] == 20


async def test_where_only_used_days_count_an_idle_one_does_not(days: Days) -> None:
    await days.step("start", used_days_only=True)
    for _ in range(5):
        await days.send()
        await days.turn()
    assert (await days.shown())["stage"] == 5
    await days.turn()
    await days.turn(3)
    shown = await days.shown()
    assert (shown["stage"], shown["note"]) == (5, "held: nothing was sent")


async def test_paused_resumed_restarted_completed(days: Days) -> None:
    await days.step("start", cap=15)
    await days.turn(6)
    assert (await days.shown())["daily_send_limit"] == 15, "20, but for the cap"
    assert (await days.step("pause"))["state"] == "paused"
    await days.turn(3)
    shown = await days.shown()
    assert (shown["stage"], shown["note"]) == (6, "held: paused")
    await days.step("resume")
    await days.turn()
    assert (await days.shown())["stage"] == 7
    restarted = await days.step("restart")
    assert (restarted["stage"], restarted["daily_send_limit"], restarted["state"]) == (0, 10, "warming")
    completed = await days.step("complete")
    assert (completed["state"], completed["status"], completed["daily_send_limit"]) == ("completed", "active", 15)
    await days.turn()
    assert (await days.shown())["daily_send_limit"] == 15


async def test_a_resumed_mailbox_warms_on(days: Days) -> None:
    await days.step("start")
    address = days.sender.address
    await days.control.ok("POST", f"mailboxes/{address}/pause", {})
    await days.control.ok("POST", f"mailboxes/{address}/resume", {})
    assert (await days.shown())["status"] == "warming"
    await days.control.ok("PATCH", f"mailboxes/{address}", {"status": "paused"})
    await days.control.ok("PATCH", f"mailboxes/{address}", {"status": "active"})
    assert (await days.shown())["status"] == "warming"


async def test_what_makes_no_sense_is_refused_with_the_way_out(days: Days) -> None:
    address = days.sender.address
    path = f"mailboxes/{address}/warmup"
    for verb, says in (("pause", "warmup start"), ("complete", "warmup start"), ("restart", "warmup start")):
        answer = await days.control.request("POST", f"{path}/{verb}", {})
        assert answer.status == 409 and says in answer.message
    for schedule in ("20x5,10x5,75", "10x5,20x0,75", "10", "ten a day"):
        answer = await days.control.request("POST", f"{path}/start", {"schedule": schedule})
        assert answer.status == 422
    answer = await days.control.request("POST", f"{path}/start", {"stage": 30})
    assert answer.status == 409 and "beyond the schedule" in answer.message
    assert (await days.shown())["state"] == "not begun"
    await days.step("start")
    answer = await days.control.request("POST", f"{path}/start", {})
    assert answer.status == 409 and "warmup restart" in answer.message
    answer = await days.control.request("PATCH", f"mailboxes/{address}", {"daily_send_limit": 500})
    assert answer.status == 409 and "warms up" in answer.message


async def test_a_simulation_is_what_then_happens(days: Days) -> None:
    await days.step("start", schedule="100x2,300x2,1000")
    plan = await days.control.ok("GET", f"mailboxes/{days.sender.address}/warmup/simulation")
    assert (plan["backlog"], plan["done_on_day"]) == (1500, 5)
    for day in plan["items"][:5]:
        assert await days.send() == day["leaves"]
        await days.turn()


async def test_the_commands(days: Days) -> None:
    address = days.sender.address
    ran = await days.control.cli("warmup", "start", address, "--schedule", "10x5, 20x5, 75")
    assert ran.code == 0 and "day 1 of 10, 10 recipients a day now" in ran.out
    ran = await days.control.cli("warmup", "simulate", address, "--days", "12")
    assert ran.code == 0 and "1500 recipients wait" in ran.err and "not done within 12 days" in ran.err
    await days.send()
    await days.turn()
    ran = await days.control.cli("warmup", "show", address)
    assert ran.code == 0 and "2 of 10" in ran.out and "10x5,20x5,75" in ran.out


async def test_a_message_of_bounces_does_not_count(days: Days) -> None:
    async with days.db.connection() as c:
        await c.execute("UPDATE messages SET origin = 'dsn'")
    await days.step("start")
    await days.send(refused=5)
    await days.turn()
    assert (await days.shown())["bounce_rate"] is None


@pytest.mark.parametrize("lets_go", [("POST", "/resume", {}), ("PATCH", "", {"status": "active"})])
async def test_a_mailbox_that_does_harm_is_paused_and_says_why(days: Days, lets_go: tuple[str, str, dict]) -> None:  # type: ignore[type-arg]
    terms = HealthTerms(least_tried=100, lag=timedelta())
    await days.send(refused=250)
    await asyncio.sleep(0.01)
    await watch_health(days.db, terms, emit=days.events.append)
    (event,) = days.events
    assert isinstance(event, MailboxPaused)
    assert event.reason == "of 1250 recipients in the last 7 days 250 bounced and 0 complained"
    shown = await days.control.ok("GET", f"mailboxes/{days.sender.address}")
    assert (shown["status"], shown["status_reason"]) == ("paused", event.reason)
    assert (await days.shown())["bounce_rate"] == 0.2
    # The operator has looked: what was before does not count again.
    method, path, body = lets_go
    await days.control.ok(method, f"mailboxes/{days.sender.address}{path}", body)
    await watch_health(days.db, terms, emit=days.events.append)
    assert (await days.control.ok("GET", f"mailboxes/{days.sender.address}"))["status"] == "active"


async def test_below_the_threshold_or_the_count_nothing_is_paused(days: Days) -> None:
    await days.send(refused=249)
    await asyncio.sleep(0.01)
    for terms in (HealthTerms(lag=timedelta()), HealthTerms(least_tried=1250, bounces_pause=0.1, lag=timedelta())):
        await watch_health(days.db, terms, emit=days.events.append)
    assert not days.events
    assert (await days.shown())["bounce_rate"] == pytest.approx(249 / 1249)


async def test_the_log_is_counted_once(days: Days) -> None:
    await days.send()
    await asyncio.sleep(0.01)
    for _ in range(3):
        await watch_health(days.db, HealthTerms(lag=timedelta()), emit=days.events.append)
    (day,) = (await days.shown())["days"]
    assert (day["emails_sent"], day["emails_bounced"]) == (1000, 0)
