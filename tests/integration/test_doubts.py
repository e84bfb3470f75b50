"""Attempts in doubt: what is kept of them, when they are looked into, what becomes of each; on a real database."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from relayd.daemon.takeback import _ended
from relayd.delivery.attempt import untried
from relayd.delivery.settler import Ended, Settler
from relayd.delivery.upstreams import Fleet, Upstream, UpstreamTerms
from relayd.intake.bounce import Bouncer
from relayd.intake.signer import Signer
from relayd.mail.envelope import Transmission
from relayd.rules.doubt import LookPolicy, Seen, Sight, Trace, Way
from relayd.rules.events import Event
from relayd.rules.outcome import Cause, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.rules.retry import RetryPolicy
from relayd.rules.states import Status
from relayd.rules.upkeep_events import DoubtLookedInto
from relayd.seal import Seal, new_key, parse_key
from relayd.store import attempts, doubts, references
from relayd.store.claim import ClaimedEntry
from relayd.store.clock import DatabaseClock
from relayd.store.connection import Connection
from relayd.store.doubts import Doubt
from relayd.store.leases import LapsedClaim
from relayd.store.pool import Database
from relayd.store.references import ClaimLost
from relayd.upkeep.reclaim import reclaim
from relayd.upkeep.resolve_uncertain import AT_ONCE, LookTerms, resolve_uncertain
from tests.builders import Sender, claim_all, make_sender, put
from tests.peers.mail import transmission

DOUBT = Uncertain(Cause(Stage.DOT, "connection lost"))
POLICY = LookPolicy(first_seconds=60, looks=3)


@dataclass
class Desk:
    """What settles and resolves, and an upstream whose answer a test sets."""

    db: Database
    answer: Seen = field(default_factory=lambda: Seen(Sight.ABSENT, "not there"))
    events: list[Event] = field(default_factory=list)
    asked: list[Doubt] = field(default_factory=list)
    wakes: int = 0
    hanging: UUID | None = None  # an upstream at which no look ends
    broken: UUID | None = None  # one at which a look shows a bug

    def __post_init__(self) -> None:
        self.clock = DatabaseClock()
        signer = Signer(self.db, Seal(parse_key(new_key().encode())))
        self.bouncer = Bouncer(self.db, signer, host="relay.test", max_retries=5, now=lambda: datetime.now(UTC))
        self.settler = Settler(
            self.db,
            self.bouncer,
            RetryPolicy(),
            emit=self.events.append,
            wake=self._wake,
            now=self.clock.now,
            looks=POLICY,
        )

    async def settle(self, entries: Sequence[ClaimedEntry], outcome: Outcome, *, can_look: bool = True) -> None:
        async with self.db.connection() as connection:
            await self.clock.sync(connection)
        await self.settler.settle([_ended_entry(each, outcome, can_look=can_look) for each in entries])

    async def round(self, *, look_seconds: float = 20, **retry: Any) -> int:
        async def look(doubt: Doubt) -> Seen:
            self.asked.append(doubt)
            if doubt.upstream_id == self.hanging:
                await asyncio.Event().wait()
            if doubt.upstream_id == self.broken:
                raise KeyError("a bug")
            return self.answer

        async def lookers() -> dict[UUID, Any]:
            async with self.db.connection() as connection:
                return {row["id"]: look for row in await connection.fetch("SELECT id FROM email_configurations")}

        return await resolve_uncertain(
            self.db,
            lookers,
            self.bouncer,
            LookTerms(POLICY, RetryPolicy(**retry)),
            emit=self.events.append,
            wake=self._wake,
            look_seconds=look_seconds,
        )

    async def reclaim(self) -> list[Outcome]:
        taken: list[Outcome] = []

        async def settle(outcomes: Sequence[tuple[LapsedClaim, Outcome]]) -> None:
            taken.extend(outcome for _, outcome in outcomes)
            for claim, outcome in outcomes:
                await self.settler.settle([_ended(claim, outcome)])

        async with self.db.connection() as connection:
            await self.clock.sync(connection)
        await reclaim(self.db, settle, emit=lambda event: None)
        return taken

    @property
    def conclusions(self) -> list[str]:
        return [event.conclusion for event in self.events if isinstance(event, DoubtLookedInto)]

    def _wake(self) -> None:
        self.wakes += 1


def _ended_entry(entry: ClaimedEntry, outcome: Outcome, *, can_look: bool) -> Ended:
    return replace(
        untried(entry, "its end is told below"),
        upstream="gmail",
        provider="google_workspace",
        outcome=outcome,
        can_look=can_look,
    )


@pytest.fixture
def desk(db: Database) -> Desk:
    return Desk(db)


async def make_gmail(connection: Connection, mode: str = "gmail_api", **sender: Any) -> Sender:
    """A mailbox that sends by Google."""
    made = await make_sender(connection, **sender)
    await connection.execute(
        "UPDATE email_configurations SET provider_type = 'google_workspace', mode = $1, smtp_host = 'smtp.gmail.com',"
        " smtp_port = 587, smtp_tls = 'starttls'",
        mode,
    )
    return made


async def begin(
    connection: Connection, sender: Sender, *, way: Way | None = Way.REFERENCE, lease_seconds: float = 600
) -> list[ClaimedEntry]:
    """Claim what is due and start it, in a mode that leaves this to be looked for."""
    entries = await claim_all(connection, sender.upstream_id)
    trace = Trace(way, f"attempt:{datetime.now(UTC)}" if way is Way.MESSAGE_ID else None) if way else None
    traces = dict.fromkeys([each.entry_id for each in entries], trace) if trace else None
    claims = [(each, "google_workspace") for each in entries]
    started = await attempts.start(connection, claims, lease_seconds=lease_seconds, traces=traces)
    assert len(started.entries) == len(entries)
    return entries


async def leap(connection: Connection, seconds: float) -> None:
    await connection.execute("UPDATE relayd_state SET clock_offset = clock_offset + make_interval(secs => $1)", seconds)


async def row_of(connection: Connection, entry: ClaimedEntry) -> Any:
    return await connection.fetchrow("SELECT * FROM email_queue WHERE id = $1", entry.entry_id)


async def log_of(connection: Connection, entry: ClaimedEntry) -> list[str]:
    rows = await connection.fetch(
        "SELECT event FROM email_delivery_logs WHERE entry_id = $1 ORDER BY created_at, id", entry.entry_id
    )
    return [row["event"] for row in rows]


async def test_a_reference_is_kept_while_the_claim_is_ours_and_belongs_to_this_attempt(db: Database) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await put(c, sender, "a@example.net", "b@example.net")
        entries = await begin(c, sender)
        await references.keep(c, entries, "draft:1:2:3")
        assert {(await row_of(c, each))["provider_reference"] for each in entries} == {"draft:1:2:3"}
        await c.execute("UPDATE email_queue SET fence = fence + 1 WHERE id = $1", entries[0].entry_id)
        with pytest.raises(ClaimLost):
            await references.keep(c, entries, "draft:4:5:6")
        assert (await row_of(c, entries[1]))["provider_reference"] == "draft:1:2:3", "all of them or none"
        await c.execute("UPDATE email_queue SET fence = fence - 1 WHERE id = $1", entries[0].entry_id)
        await leap(c, 601)
        with pytest.raises(ClaimLost):
            await references.keep(c, entries, "draft:4:5:6")


async def test_the_attempt_before_does_not_answer_for_the_next_one(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await put(c, sender)
        first = await begin(c, sender)
        await references.keep(c, first, "draft:1:2:3")
        await desk.settle(first, Postponed(Scope.MESSAGE, Cause(Stage.DOT, "429"), 0))
        (second,) = await begin(c, sender)
        assert (await row_of(c, second))["provider_reference"] is None


async def test_what_can_be_looked_into_waits_for_a_look_whatever_on_uncertain_says(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await put(c, sender)
        (entry,) = await begin(c, sender)
        await desk.settle([entry], DOUBT)
        row = await row_of(c, entry)
        assert (row["status"], row["pending_reason"]) == ("pending", "uncertain")
        assert timedelta(seconds=59) < row["look_at"] - row["updated_at"] <= timedelta(seconds=60)
    assert await desk.round() == 0 and desk.asked == []


async def test_what_was_seen_is_sent(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await put(c, sender, "a@example.net", "b@example.net")
        entries = await begin(c, sender)
        await references.keep(c, entries, "draft:1:2:3")
        await desk.settle(entries, DOUBT)
        await leap(c, 61)
        desk.answer = Seen(Sight.SENT, "there it is", "18c0")
        assert await desk.round() == 2
        assert [each.reference for each in desk.asked] == ["draft:1:2:3"], "one look for all of its recipients"
        for entry in entries:
            row = await row_of(c, entry)
            assert (row["status"], row["provider_message_id"]) == ("sent", "18c0")
            assert await log_of(c, entry) == ["queued", "sending", "uncertain", "resolved", "sent"]
    assert desk.conclusions == ["sent", "sent"]


async def test_what_was_not_sent_goes_again_and_takes_another_unit(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c, daily_limit=5)
        await put(c, sender)
        entries = await begin(c, sender)
        await desk.settle(entries, DOUBT)
        await leap(c, 61)
        desk.answer = Seen(Sight.NOT_SENT, "its draft was still there")
        assert await desk.round() == 1 and desk.wakes
        (again,) = await begin(c, sender)
        await desk.settle([again], Sent(Cause(Stage.DOT, "ok", 200)))
        assert await log_of(c, again) == ["queued", "sending", "uncertain", "resolved", "sending", "sent"]
        used = "SELECT used FROM budget_usage WHERE owner_id = $1 AND kind = 'mailbox_day'"
        assert await c.fetchval(used, sender.mailbox_id) == 2


async def test_absent_counts_as_not_sent_only_after_the_last_look(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c, "xoauth2")
        await put(c, sender)
        (entry,) = await begin(c, sender, way=Way.MESSAGE_ID)
        await desk.settle([entry], DOUBT)
        for wait in (61, 121, 241):
            assert (await row_of(c, entry))["status"] == "pending"
            await leap(c, wait)
            assert await desk.round() == 1
            assert await desk.round() == 0, "not at once again"
        assert (await row_of(c, entry))["status"] == "queued"
        assert await log_of(c, entry) == ["queued", "sending", "uncertain", "resolved"]
    assert desk.conclusions == ["look_again", "look_again", "retry"]


@pytest.mark.parametrize(("on_uncertain", "status"), [("hold", "pending"), ("retry", "queued")])
async def test_where_looking_does_not_tell_on_uncertain_decides(
    db: Database, desk: Desk, on_uncertain: str, status: str
) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await c.execute("UPDATE email_configurations SET on_uncertain = $1", on_uncertain)
        await put(c, sender)
        (entry,) = await begin(c, sender)
        await desk.settle([entry], DOUBT)
        await leap(c, 61)
        desk.answer = Seen(Sight.UNREACHABLE, "connection refused")
        await desk.round()
        row = await row_of(c, entry)
        assert (row["status"], row["looks"]) == ("pending", 0) and row["look_at"] is not None
        await leap(c, 86_400)
        await desk.round()
        row = await row_of(c, entry)
        assert (row["status"], row["look_at"]) == (status, None)
        assert "looking does not tell: connection refused" in row["reason"]


async def test_an_upstream_that_hangs_keeps_back_no_others_doubts(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        hanging = await make_gmail(c, address="a@example.com", upstream="gmail")
        other = await make_gmail(c, address="b@example.com", upstream="other")
        for _ in range(2 * AT_ONCE):
            await put(c, hanging)
        await desk.settle(await begin(c, hanging), DOUBT)
        await leap(c, 10)
        await put(c, other)
        (entry,) = await begin(c, other)
        await desk.settle([entry], DOUBT)
        await leap(c, 61)
        desk.hanging = hanging.upstream_id
        desk.answer = Seen(Sight.SENT, "there it is")
        assert await desk.round(look_seconds=0.2) == AT_ONCE + 1
        assert (await row_of(c, entry))["status"] == "sent"
        rows = await c.fetch(
            "SELECT status, looks, look_at > relayd_now() AS waits, reason FROM email_queue WHERE upstream_id = $1",
            hanging.upstream_id,
        )
        assert {row["status"] for row in rows} == {"pending"}
        assert [row["looks"] for row in rows] == [0] * (2 * AT_ONCE), "a look cut off tells nothing"
        # Half of them have been tried and wait; the others come first in the next round.
        assert sum(row["waits"] for row in rows) == AT_ONCE
        assert all("no end of the look" in row["reason"] for row in rows if row["waits"])
        assert await desk.round(look_seconds=0.2) == AT_ONCE
        assert len({each.entry_id for each in desk.asked}) == 2 * AT_ONCE + 1


async def test_the_many_doubts_of_one_upstream_leave_room_for_those_of_another(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        crowd = await make_gmail(c, address="a@example.com", upstream="gmail")
        other = await make_gmail(c, address="b@example.com", upstream="other")
        for _ in range(4):
            await put(c, crowd)
        await desk.settle(await begin(c, crowd), DOUBT)
        await leap(c, 10)
        await put(c, other)
        await desk.settle(await begin(c, other), DOUBT)
        await leap(c, 61)
        found = [each.upstream_id for each in await doubts.due(c, most=2)]
        assert found == [crowd.upstream_id, crowd.upstream_id, other.upstream_id]


async def test_a_look_that_shows_a_bug_keeps_back_no_other(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        broken = await make_gmail(c, address="a@example.com", upstream="gmail")
        other = await make_gmail(c, address="b@example.com", upstream="other")
        for sender in (broken, other):
            await put(c, sender)
            await desk.settle(await begin(c, sender), DOUBT)
        await leap(c, 61)
        desk.broken = broken.upstream_id
        desk.answer = Seen(Sight.SENT, "there it is")
        assert await desk.round() == 2
        rows = await c.fetch("SELECT upstream_id, status FROM email_queue")
        assert dict(rows) == {broken.upstream_id: "pending", other.upstream_id: "sent"}


async def test_what_is_given_up_tells_its_sender(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await put(c, sender)
        (entry,) = await begin(c, sender)
        await desk.settle([entry], DOUBT)
        await leap(c, 61)
        desk.answer = Seen(Sight.NOT_SENT, "refused")
        await desk.round(max_retries=0, give_up_after_seconds=1)
        assert (await row_of(c, entry))["status"] == "failed"
        assert await c.fetchval("SELECT count(*) FROM messages WHERE origin = 'dsn'") == 1


async def test_a_decision_holds_only_for_the_doubt_it_was_made_about(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await put(c, sender)
        (entry,) = await begin(c, sender)
        await desk.settle([entry], DOUBT)
        await leap(c, 61)
        (stale,) = await doubts.due(c, most=10)
        late = Sent(Cause(Stage.DOT, "ok", 200), "18c0")
        await desk.settle([entry], late)  # its holder turns up after all
        async with c.transaction():
            changed, _ = await doubts.decide(c, [doubts.Decision(stale, Status.QUEUED, "x", "x")])
        assert changed == set()
        assert (await row_of(c, entry))["status"] == "sent"


async def test_another_message_under_its_message_id_is_not_taken_for_it(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c, "xoauth2")
        await put(c, sender, "a@example.net", "b@example.net")
        entries = await begin(c, sender, way=Way.MESSAGE_ID)
        await desk.settle(entries, DOUBT)
        await leap(c, 61)
        assert [each.is_alone for each in await doubts.due(c, most=10)] == [True, True]
        await c.execute(
            "UPDATE email_queue SET provider_reference = 'attempt:other', status = 'sent', pending_reason = NULL,"
            " sent_at = relayd_now() WHERE id = $1",
            entries[1].entry_id,
        )
        assert [each.is_alone for each in await doubts.due(c, most=10)] == [False]


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_dead_worker_leaves_a_doubt_only_if_it_had_kept_a_reference(
    db: Database, desk: Desk, is_kept: bool
) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c, daily_limit=5)
        await put(c, sender)
        entries = await begin(c, sender)
        if is_kept:
            await references.keep(c, entries, "draft:1:2:3")
        await leap(c, 601)
        (outcome,) = await desk.reclaim()
        assert isinstance(outcome, Uncertain if is_kept else Postponed)
        row = await row_of(c, entries[0])
        assert (row["status"], row["look_at"] is not None) == (("pending", True) if is_kept else ("queued", False))
        used = "SELECT used FROM budget_usage WHERE owner_id = $1 AND kind = 'mailbox_day'"
        assert await c.fetchval(used, sender.mailbox_id) == int(is_kept), "what was not handed over spends nothing"


@pytest.mark.parametrize(
    ("way", "mode", "kind", "is_looked_for"),
    [
        (Way.MESSAGE_ID, "gmail_api", Uncertain, True),
        (Way.MESSAGE_ID, "smtp-relay", Uncertain, True),
        (Way.REFERENCE, "xoauth2", Postponed, False),
        (None, "gmail_api", Uncertain, False),
        (None, "xoauth2", Uncertain, False),
    ],
)
async def test_a_dead_attempt_is_judged_by_the_mode_in_which_it_began(
    db: Database, desk: Desk, way: Way | None, mode: str, kind: type, is_looked_for: bool
) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c, "smtp-relay")
        await put(c, sender)
        (entry,) = await begin(c, sender, way=way)
        await c.execute("UPDATE email_configurations SET mode = $1", mode)
        await leap(c, 601)
        assert [type(outcome) for outcome in await desk.reclaim()] == [kind]
        row = await row_of(c, entry)
        assert (row["look_at"] is not None) == is_looked_for
        assert (row["status"] == "pending") == is_looked_for
        await leap(c, 61)
        assert [each.look_by for each in await doubts.due(c, most=10)] == ([way] if is_looked_for else [])


async def test_what_is_under_way_when_the_schema_changes_keeps_its_way(db: Database) -> None:
    files = [Path(__file__).parents[2] / "migrations" / f"0017_traces.{way}.sql" for way in ("down", "up")]
    async with db.connection() as c:
        sender = await make_gmail(c, "xoauth2")
        await put(c, sender)
        (entry,) = await begin(c, sender, way=None)
        for file in files:
            await c.execute(file.read_text())
        assert (await row_of(c, entry))["look_by"] == Way.MESSAGE_ID


async def test_the_next_attempt_is_looked_for_as_it_went_itself(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await put(c, sender)
        first = await begin(c, sender, way=Way.MESSAGE_ID)
        await desk.settle(first, Postponed(Scope.MESSAGE, Cause(Stage.DOT, "429"), 0))
        (second,) = await begin(c, sender, way=None)
        assert (await row_of(c, second))["look_by"] is None


@dataclass
class Taker:
    """An upstream that takes everything."""

    taken: int = 0

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        self.taken += 1
        return (Sent(Cause(Stage.DOT, "ok", 250)),) * len(transmission.recipients)

    async def close(self) -> None:
        pass


async def test_nothing_goes_by_a_mode_other_than_its_start_says() -> None:
    taker = Taker()
    begun = UpstreamTerms(UUID(int=1), "gmail", "google_workspace", 1, 1, "retry", "1", looks=Way.REFERENCE)
    present = begun

    async def load() -> list[tuple[UpstreamTerms, Callable[[], Upstream]]]:
        return [(present, lambda: taker)]

    fleet = Fleet(load)
    await fleet.refresh()
    assert isinstance((await fleet.deliver(begun, transmission()))[0], Sent)
    present = replace(begun, revision="2", looks=Way.MESSAGE_ID)
    await fleet.refresh()
    (outcome,) = await fleet.deliver(begun, transmission())
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.MESSAGE and outcome.hold_seconds == 0
    assert taker.taken == 1
    await fleet.close()


async def test_a_reference_that_was_kept_meanwhile_stops_the_take_back(db: Database, desk: Desk) -> None:
    async with db.connection() as c:
        sender = await make_gmail(c)
        await put(c, sender)
        entries = await begin(c, sender)
        untried = Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, "not sent"), 0)
        ended = _ended_entry(entries[0], untried, can_look=True)
        await references.keep(c, entries, "draft:1:2:3")

        await desk.settler.settle([replace(ended, only_if_unreferenced=True)])
        assert (await row_of(c, entries[0]))["status"] == "sending"
        await leap(c, 601)
        assert [type(outcome) for outcome in await desk.reclaim()] == [Uncertain]
