from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relayd.rules.budget import Budget, Growth
from relayd.rules.budgets import BudgetKind
from relayd.rules.estimate import Estimate
from relayd.rules.explain import Where, explain
from relayd.rules.facts import EntryFacts, Facts, LaneFacts, LimitFacts, MailboxFacts, RouteFacts
from relayd.rules.states import LaneClass, PendingReason, Status
from relayd.rules.warm_up import DEFAULT_SCHEDULE

NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
MIDNIGHT_BERLIN = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)

ENTRY = EntryFacts(
    entry_id="e1",
    status=Status.QUEUED,
    reason=None,
    pending_reason=None,
    retry_count=0,
    max_retries=50,
    next_attempt_at=NOW - HOUR,
    claimed_by=None,
    attempt_started_at=None,
    lease_expires_at=None,
    ended_at=None,
    provider_message_id=None,
    claim_upstream="relay",
    last_change_at=NOW - HOUR,
    last_actor=None,
    ahead=0,
    ahead_is_capped=False,
)
LANE = LaneFacts(LaneClass.MAIL, None, None)
MAILBOX = MailboxFacts(
    address="noreply@example.com",
    status="active",
    status_reason=None,
    is_removed=False,
    domain="example.com",
    domain_status="active",
    client="acme",
    client_status="active",
)
ROUTE = RouteFacts("relay", True, None, None, None, None)
OWN = Budget(
    id=1,
    kind=BudgetKind.MAILBOX_DAY,
    owner="noreply@example.com",
    user=None,
    unit_limit=50,
    bulk_limit=50,
    used=50,
    is_rolling=False,
    span=timedelta(days=1),
    time_zone="Europe/Berlin",
    turns_at=MIDNIGHT_BERLIN,
)
CLIENT = replace(
    OWN, id=2, kind=BudgetKind.CLIENT_DAY, owner="acme", unit_limit=5_000, bulk_limit=4_000, used=4_321, time_zone="UTC"
)
QUOTA = replace(
    OWN,
    id=3,
    kind=BudgetKind.PROVIDER_DAY,
    owner="gmail",
    user="noreply@example.com",
    unit_limit=2_000,
    bulk_limit=2_000,
    used=2_000,
    is_rolling=True,
    turns_at=NOW + HOUR,
)
PACE = replace(OWN, id=4, kind=BudgetKind.MAILBOX_HOUR, unit_limit=3, used=3, span=HOUR, turns_at=NOW + HOUR)
BUDGETS = (OWN, CLIENT, QUOTA, PACE)
LIMITS = LimitFacts(BUDGETS, Estimate(NOW, None), 0)

Change = Callable[[Facts], Facts]


def entry(**changes: Any) -> Change:
    return lambda facts: replace(facts, entry=replace(facts.entry, **changes))


def lane(**changes: Any) -> Change:
    return lambda facts: replace(facts, lane=replace(facts.lane, **changes))


def mailbox(**changes: Any) -> Change:
    return lambda facts: replace(facts, mailbox=replace(facts.mailbox, **changes))


def route(**changes: Any) -> Change:
    return lambda facts: replace(facts, route=replace(facts.route, **changes))


def held(budget: Budget, at: datetime, *, sharing: int = 0, is_known: bool = True, **changes: Any) -> Change:
    """It waits for this budget, which is as it says."""
    changed = replace(budget, **changes)
    budgets = tuple(changed if each.id == changed.id else each for each in BUDGETS)
    return lambda facts: replace(facts, limits=LimitFacts(budgets, Estimate(at, budget.id, is_known), sharing))


def never(budget: Budget, **changes: Any) -> Change:
    return lambda facts: replace(facts, limits=LimitFacts((replace(budget, **changes),), Estimate(None, budget.id), 0))


CASES: list[tuple[str, list[Change], Where, datetime | None, str]] = [
    (
        "sent",
        [entry(status=Status.SENT, ended_at=NOW - HOUR, provider_message_id="abc", reason="dot: 250 2.0.0 ok")],
        Where.SENT,
        None,
        "sent 2026-11-21T19:00:00Z (1 h ago) through relay (its id there: abc); the reply: dot: 250 2.0.0 ok",
    ),
    (
        "failed",
        [entry(status=Status.FAILED, ended_at=NOW - HOUR, reason="data: 552 5.3.4 too big")],
        Where.FAILED,
        None,
        "failed 2026-11-21T19:00:00Z (1 h ago): data: 552 5.3.4 too big",
    ),
    (
        "bounced",
        [entry(status=Status.BOUNCED, ended_at=NOW - HOUR, reason="rcpt: 550 5.1.1 nobody")],
        Where.BOUNCED,
        None,
        "bounced 2026-11-21T19:00:00Z (1 h ago): rcpt: 550 5.1.1 nobody",
    ),
    (
        "spam",
        [entry(status=Status.SPAM, ended_at=NOW - HOUR)],
        Where.SPAM,
        None,
        "sent, and reported as spam 2026-11-21T19:00:00Z (1 h ago)",
    ),
    (
        "cancelled",
        [entry(status=Status.FAILED, ended_at=NOW - HOUR, reason="cancelled", last_actor="ann(1000)")],
        Where.CANCELLED,
        None,
        "cancelled by ann(1000) 2026-11-21T19:00:00Z (1 h ago); no bounce was sent",
    ),
    (
        "held",
        [entry(status=Status.PENDING, pending_reason=PendingReason.HELD, reason="audit", last_actor="ann(1000)")],
        Where.HELD,
        None,
        "held by ann(1000) since 2026-11-21T19:00:00Z (1 h ago): audit; it stays until it is released",
    ),
    (
        "uncertain",
        [entry(status=Status.PENDING, pending_reason=PendingReason.UNCERTAIN, reason="dot: connection lost")],
        Where.UNCERTAIN,
        None,
        "in doubt since 2026-11-21T19:00:00Z (1 h ago): dot: connection lost; it may have been delivered, and "
        "upstream relay holds such mail until somebody decides",
    ),
    (
        "scheduled",
        [entry(status=Status.PENDING, pending_reason=PendingReason.SCHEDULED, next_attempt_at=NOW + HOUR)],
        Where.SCHEDULED,
        NOW + HOUR,
        "scheduled for 2026-11-21T21:00:00Z (in 1 h)",
    ),
    (
        "claimed, not begun",
        [entry(status=Status.SENDING, claimed_by="node:1:2", lease_expires_at=NOW + HOUR)],
        Where.SENDING,
        NOW,
        "claimed by worker node:1:2, about to be sent through relay (attempt 1)",
    ),
    (
        "sending",
        [
            entry(
                status=Status.SENDING,
                claimed_by="node:1:2",
                retry_count=2,
                attempt_started_at=NOW - timedelta(seconds=20),
                lease_expires_at=NOW + HOUR,
            )
        ],
        Where.SENDING,
        NOW,
        "being sent through relay by worker node:1:2 since 2026-11-21T19:59:40Z (20 s ago) (attempt 3)",
    ),
    (
        "lease run out",
        [entry(status=Status.SENDING, claimed_by="node:1:2", lease_expires_at=NOW - timedelta(minutes=2))],
        Where.SENDING,
        NOW,
        "claimed by worker node:1:2, about to be sent through relay; the worker's lease ran out 2026-11-21T19:58:00Z "
        "(2 min ago) and is about to be taken back (attempt 1)",
    ),
    ("due", [], Where.DUE, NOW, "due now, first of its line, waiting for a free connection"),
    (
        "due, others ahead",
        [entry(ahead=12)],
        Where.DUE,
        NOW,
        "due now, waiting for its turn and a free connection: in the line of mailbox "
        "noreply@example.com, 12 entries are ahead",
    ),
    (
        "deferred",
        [
            entry(
                retry_count=3,
                reason="connect: refused",
                next_attempt_at=NOW + timedelta(minutes=200),
            )
        ],
        Where.DEFERRED,
        NOW + timedelta(minutes=200),
        "deferred after attempt 3 of at most 51 (connect: refused); the next attempt is 2026-11-21T23:20:00Z "
        "(in 3 h 20 min)",
    ),
    (
        "postponed",
        [entry(reason="mail: 450 4.2.1 peak limit", next_attempt_at=NOW + HOUR)],
        Where.DEFERRED,
        NOW + HOUR,
        "postponed (mail: 450 4.2.1 peak limit); it goes 2026-11-21T21:00:00Z (in 1 h)",
    ),
    (
        "scheduled, and limited when it comes",
        [
            entry(status=Status.PENDING, pending_reason=PendingReason.SCHEDULED, next_attempt_at=NOW + HOUR, ahead=3),
            held(OWN, MIDNIGHT_BERLIN),
        ],
        Where.SCHEDULED,
        MIDNIGHT_BERLIN,
        "scheduled for 2026-11-21T21:00:00Z (in 1 h); mailbox noreply@example.com may send 50 a day and has sent 50; "
        "the window turns at midnight in Europe/Berlin, 2026-11-21T23:00:00Z (in 3 h); "
        "3 entries are ahead, so it leaves about 2026-11-21T23:00:00Z (in 3 h)",
    ),
    (
        "daily limit",
        [entry(ahead=449), held(OWN, datetime(2026, 11, 29, 23, 0, tzinfo=UTC))],
        Where.LIMITED,
        datetime(2026, 11, 29, 23, 0, tzinfo=UTC),
        "mailbox noreply@example.com may send 50 a day and has sent 50; the window turns at "
        "midnight in Europe/Berlin, 2026-11-21T23:00:00Z (in 3 h); "
        "449 entries are ahead, so it leaves about 2026-11-29T23:00:00Z (in 8 d 3 h)",
    ),
    (
        "releases are spread",
        [
            held(OWN, MIDNIGHT_BERLIN + timedelta(minutes=5)),
            lane(blocked_until=MIDNIGHT_BERLIN + timedelta(minutes=5), blocked_reason="mailbox daily limit"),
        ],
        Where.LIMITED,
        MIDNIGHT_BERLIN + timedelta(minutes=5),
        "mailbox noreply@example.com may send 50 a day and has sent 50; the window turns at "
        "midnight in Europe/Berlin, 2026-11-21T23:00:00Z (in 3 h); "
        "none is ahead, so it leaves about 2026-11-21T23:05:00Z (in 3 h 5 min)",
    ),
    (
        "too many to count",
        [entry(ahead=100_000, ahead_is_capped=True), held(OWN, MIDNIGHT_BERLIN, used=0, unit_limit=100_000)],
        Where.LIMITED,
        MIDNIGHT_BERLIN,
        "mailbox noreply@example.com may send 100,000 a day and has sent 0; the window turns at "
        "midnight in Europe/Berlin, 2026-11-21T23:00:00Z (in 3 h); "
        "more than 100,000 entries are ahead, so it leaves not before "
        "2026-11-21T23:00:00Z (in 3 h)",
    ),
    (
        "further than anybody looks",
        [entry(ahead=90_000), held(OWN, NOW + timedelta(days=366), is_known=False, turns_at=None)],
        Where.LIMITED,
        NOW + timedelta(days=366),
        "mailbox noreply@example.com may send 50 a day and has sent 50; 90,000 entries are ahead, so it leaves "
        "not before 2027-11-22T20:00:00Z (in 366 d)",
    ),
    (
        "a client's limit, which others wait for too, and bulk mail has less of",
        [lane(lane_class=LaneClass.BULK), held(CLIENT, MIDNIGHT_BERLIN + HOUR, sharing=7, used=4_100)],
        Where.LIMITED,
        MIDNIGHT_BERLIN + HOUR,
        "client acme may send 5,000 a day, 1,000 of them kept from bulk mail, and has sent 4,100; the window turns at "
        "midnight in UTC, 2026-11-21T23:00:00Z (in 3 h); 7 other lanes wait for it too; none is ahead, so it leaves "
        "about 2026-11-22T00:00:00Z (in 4 h)",
    ),
    (
        "a provider's quota",
        [held(QUOTA, NOW + HOUR)],
        Where.LIMITED,
        NOW + HOUR,
        "upstream gmail for noreply@example.com allows 2,000 in any 24 hours and has taken 2,000; the next are freed "
        "2026-11-21T21:00:00Z (in 1 h); none is ahead, so it leaves about 2026-11-21T21:00:00Z (in 1 h)",
    ),
    (
        "the hour's share of a mailbox that warms up",
        [held(PACE, NOW + HOUR, growth=Growth(DEFAULT_SCHEDULE, 3, None, 0))],
        Where.LIMITED,
        NOW + HOUR,
        "mailbox noreply@example.com may send 3 an hour and has sent 3; the next hour begins "
        "2026-11-21T21:00:00Z (in 1 h); its limit grows as it warms up; none is ahead, so it leaves about "
        "2026-11-21T21:00:00Z (in 1 h)",
    ),
    (
        "a lane that is called limited and by now has room",
        [lane(blocked_until=NOW + HOUR, blocked_reason="client daily limit")],
        Where.BLOCKED,
        NOW + HOUR,
        "mailbox noreply@example.com is parked until 2026-11-21T21:00:00Z (in 1 h): client daily limit",
    ),
    (
        "never",
        [never(OWN, unit_limit=0, bulk_limit=0)],
        Where.STOPPED,
        None,
        "mailbox noreply@example.com may send 0 a day, so it never leaves",
    ),
    (
        "never in bulk",
        [never(CLIENT, bulk_limit=0), lane(lane_class=LaneClass.BULK)],
        Where.STOPPED,
        None,
        "client acme may send 5,000 a day, and all of them are kept from bulk mail, so it never leaves",
    ),
    (
        "parked by the upstream",
        [lane(blocked_until=NOW + HOUR, blocked_reason="rcpt: 550 5.4.5 daily quota")],
        Where.BLOCKED,
        NOW + HOUR,
        "mailbox noreply@example.com is parked until 2026-11-21T21:00:00Z (in 1 h): rcpt: 550 5.4.5 daily quota",
    ),
    (
        "the latest of two decides, both are named",
        [lane(blocked_until=NOW + HOUR, blocked_reason="quota"), entry(retry_count=1, next_attempt_at=NOW + 2 * HOUR)],
        Where.DEFERRED,
        NOW + 2 * HOUR,
        "deferred after attempt 1 of at most 51; the next attempt is 2026-11-21T22:00:00Z (in 2 h); also mailbox "
        "noreply@example.com is parked until 2026-11-21T21:00:00Z (in 1 h): quota",
    ),
    (
        "everything paused",
        [route(all_paused_at=NOW - HOUR, all_paused_reason="storm")],
        Where.STOPPED,
        None,
        "everything is paused since 2026-11-21T19:00:00Z (1 h ago): storm",
    ),
    (
        "upstream paused",
        [route(upstream_paused_at=NOW - HOUR, upstream_paused_reason="moving")],
        Where.STOPPED,
        None,
        "upstream relay is paused since 2026-11-21T19:00:00Z (1 h ago): moving",
    ),
    ("upstream inactive", [route(upstream_is_active=False)], Where.STOPPED, None, "upstream relay is not active"),
    (
        "mailbox paused",
        [mailbox(status="paused", status_reason="complaints")],
        Where.STOPPED,
        None,
        "mailbox noreply@example.com is paused: complaints",
    ),
    (
        "mailbox suspended",
        [mailbox(status="suspended")],
        Where.STOPPED,
        None,
        "mailbox noreply@example.com is suspended",
    ),
    ("domain suspended", [mailbox(domain_status="suspended")], Where.STOPPED, None, "domain example.com is suspended"),
    ("client suspended", [mailbox(client_status="suspended")], Where.STOPPED, None, "client acme is suspended"),
    (
        "mailbox removed",
        [mailbox(is_removed=True)],
        Where.STOPPED,
        None,
        "mailbox noreply@example.com has been removed",
    ),
    (
        "two things stand in the way",
        [route(all_paused_at=NOW, all_paused_reason="storm"), mailbox(status="paused", status_reason="complaints")],
        Where.STOPPED,
        None,
        "everything is paused since 2026-11-21T20:00:00Z (now): storm; and mailbox noreply@example.com is paused: "
        "complaints",
    ),
]


@pytest.mark.parametrize(
    ("changes", "where", "goes_at", "sentence"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_verdict(changes: list[Change], where: Where, goes_at: datetime | None, sentence: str) -> None:
    facts = Facts(ENTRY, LANE, MAILBOX, ROUTE, LIMITS)
    for change in changes:
        facts = change(facts)
    verdict = explain(facts, NOW)
    assert verdict.sentence == sentence
    assert (verdict.where, verdict.goes_at) == (where, goes_at)


@pytest.mark.parametrize(
    ("changes", "next_step"),
    [
        ([route(all_paused_at=NOW)], "relayd resume everything"),
        ([route(upstream_paused_at=NOW)], "relayd resume upstream relay"),
        ([mailbox(status="paused")], "relayd resume mailbox noreply@example.com"),
        ([never(OWN, unit_limit=0)], "relayd mailbox set noreply@example.com --daily-limit N"),
        (
            [never(OWN, unit_limit=0, growth=Growth(DEFAULT_SCHEDULE, 0, 0, 0))],
            "relayd warmup start noreply@example.com --cap N",
        ),
        ([never(CLIENT, unit_limit=0)], "relayd client set acme --daily-limit N"),
        ([never(QUOTA, unit_limit=0)], "relayd upstream quota gmail --mailbox noreply@example.com --daily N"),
        (
            [never(OWN, bulk_limit=0), lane(lane_class=LaneClass.BULK)],
            "relayd client set acme --bulk-reserve PERCENT",
        ),
        ([entry(status=Status.FAILED)], "relayd queue retry e1 --failed"),
        ([entry(status=Status.PENDING, pending_reason=PendingReason.HELD)], "relayd queue release e1"),
        (
            [route(all_paused_at=NOW), mailbox(status="paused")],
            "relayd resume everything; relayd resume mailbox noreply@example.com",
        ),
        ([], None),
    ],
)
def test_verdict_names_the_next_step(changes: list[Change], next_step: str | None) -> None:
    facts = Facts(ENTRY, LANE, MAILBOX, ROUTE, LIMITS)
    for change in changes:
        facts = change(facts)
    assert explain(facts, NOW).next_step == next_step
