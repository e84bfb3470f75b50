"""Attempts in doubt: what is kept of them, when they are looked into, what becomes of each; on a real database."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from relayd.daemon.takeback import _ended
from relayd.delivery.attempt import untried
from relayd.delivery.settler import Ended, Settler
from relayd.intake.bounce import Bouncer
from relayd.intake.signer import Signer
from relayd.rules.doubt import LookPolicy, Seen, Sight
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
from relayd.upkeep.resolve_uncertain import LookTerms, resolve_uncertain
from tests.builders import Sender, claim_all, make_sender, put

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

    async def round(self, **retry: Any) -> int:
        async def look(doubt: Doubt) -> Seen:
            self.asked.append(doubt)
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
    connection: Connection, sender: Sender, *, marks: bool = False, lease_seconds: float = 600
) -> list[ClaimedEntry]:
    """Claim what is due and start it."""
    entries = await claim_all(connection, sender.upstream_id)
    mark = dict.fromkeys([each.entry_id for each in entries], f"attempt:{datetime.now(UTC)}") if marks else None
    claims = [(each, "google_workspace") for each in entries]
    started = await attempts.start(connection, claims, lease_seconds=lease_seconds, marks=mark)
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
        (entry,) = await begin(c, sender, marks=True)
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
        entries = await begin(c, sender, marks=True)
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
