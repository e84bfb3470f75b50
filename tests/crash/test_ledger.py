"""The ledger sees each kind of fault, and none where there is none."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from tests.crash.journal import Handed
from tests.crash.ledger import compare
from tests.crash.message import compose, digest
from tests.crash.recorder import Delivered
from tests.crash.snapshot import Entry, Snapshot, Usage

SENDER = "app@example.com"
QUEUE_ID, BOUNCE_ID = UUID(int=1), UUID(int=2)
HANDED = Handed(7, SENDER, "m7@example.net", 250, str(QUEUE_ID), True)
ARRIVAL = Delivered(
    SENDER, "m7@example.net", str(QUEUE_ID), 7, digest(compose(7, SENDER, "m7@example.net", 600)), at=1000.0
)
ENTRY = Entry(
    entry_id=UUID(int=3),
    queue_id=QUEUE_ID,
    recipient="m7@example.net",
    status="sent",
    is_stuck=False,
    mailbox=SENDER,
    reverse_path=SENDER,
    origin="submission",
    parent_id=None,
    events=("queued", "sending", "sent"),
    doubts=0,
)
FAILED = replace(ENTRY, status="bounced", events=("queued", "sending", "bounced"))
BOUNCE = replace(
    ENTRY,
    entry_id=UUID(int=4),
    queue_id=BOUNCE_ID,
    recipient=SENDER,
    origin="dsn",
    reverse_path="",
    parent_id=QUEUE_ID,
)
BOUNCE_ARRIVAL = Delivered("", SENDER, str(BOUNCE_ID), None, "", at=1000.0)
USAGE = Usage(SENDER, used=1, limit=None, window_began_at=0.0)
UNCERTAIN = replace(ENTRY, events=("queued", "sending", "uncertain", "sending", "sent"), doubts=1)


def database(*entries: Entry, usage: Usage = USAGE) -> Snapshot:
    return Snapshot(entries, (usage,))


def test_what_arrived_once_is_no_fault() -> None:
    verdict = compare([HANDED], [ARRIVAL], database(ENTRY), nobody_died=True, nothing_lapsed=True)
    assert verdict.is_clean, str(verdict)
    assert (verdict.acknowledged, verdict.delivered) == (1, 1)


def test_a_failure_with_its_bounce_is_no_fault() -> None:
    verdict = compare([HANDED], [BOUNCE_ARRIVAL], database(FAILED, BOUNCE), nobody_died=True)
    assert verdict.is_clean, str(verdict)
    assert (verdict.bounced, verdict.delivered) == (1, 0)


def test_what_waits_in_the_queue_is_not_lost() -> None:
    verdict = compare([HANDED], [], database(replace(ENTRY, status="queued", events=("queued",))))
    assert verdict.is_clean, str(verdict)
    assert verdict.queued == 1


def test_a_duplicate_with_a_doubt_is_counted_apart() -> None:
    verdict = compare([HANDED], [ARRIVAL, ARRIVAL], database(UNCERTAIN, usage=replace(USAGE, used=2)))
    assert verdict.is_clean, str(verdict)
    assert (verdict.doubted, verdict.doubts) == (1, 1)


def test_what_was_never_answered_may_be_delivered_and_may_be_missing() -> None:
    unanswered = replace(HANDED, code=0, queue_id=None)
    assert compare([unanswered], [ARRIVAL], database(ENTRY)).is_clean
    assert compare([unanswered], [], database(usage=replace(USAGE, used=0))).is_clean


FAULTS: list[tuple[str, Callable[[], object]]] = [
    ("lost", lambda: compare([HANDED], [], database())),
    ("lost", lambda: compare([HANDED], [], database(ENTRY))),
    ("lost", lambda: compare([HANDED], [], database(replace(FAILED, events=("queued", "sending"))))),
    ("lost", lambda: compare([HANDED], [], database(FAILED, BOUNCE))),
    ("duplicate", lambda: compare([HANDED], [ARRIVAL, ARRIVAL], database(ENTRY))),
    ("duplicate", lambda: compare([HANDED], [ARRIVAL] * 3, database(UNCERTAIN))),
    ("unstarted", lambda: compare([HANDED], [ARRIVAL], database(replace(ENTRY, events=("queued",))))),
    ("stuck", lambda: compare([HANDED], [], database(replace(ENTRY, status="queued", is_stuck=True)))),
    ("corrupt", lambda: compare([HANDED], [replace(ARRIVAL, digest="other")], database(ENTRY))),
    ("corrupt", lambda: compare([HANDED], [replace(ARRIVAL, reverse_path="x@example.com")], database(ENTRY))),
    ("stranger", lambda: compare([], [ARRIVAL], database())),
    ("stranger", lambda: compare([], [BOUNCE_ARRIVAL], database())),
    ("stranger", lambda: compare([replace(HANDED, code=0, was_ended=False)], [ARRIVAL], database(ENTRY))),
    ("bounce", lambda: compare([HANDED], [], database(FAILED))),
    ("bounce", lambda: compare([HANDED], [], database(FAILED, BOUNCE, replace(BOUNCE, queue_id=UUID(int=9))))),
    ("bounce", lambda: compare([HANDED], [ARRIVAL], database(ENTRY, BOUNCE))),
    ("usage", lambda: compare([HANDED], [ARRIVAL], database(ENTRY, usage=replace(USAGE, used=0)))),
    ("limit", lambda: compare([HANDED], [ARRIVAL], database(ENTRY, usage=replace(USAGE, limit=0)))),
    (
        "needless doubt",
        lambda: compare([HANDED], [ARRIVAL], database(UNCERTAIN), nobody_died=True, nothing_lapsed=True),
    ),
    (
        "unlogged",
        lambda: compare([HANDED], [ARRIVAL, ARRIVAL], database(UNCERTAIN), nobody_died=True),
    ),
]


@pytest.mark.parametrize(("kind", "look"), FAULTS, ids=[f"{kind}-{number}" for number, (kind, _) in enumerate(FAULTS)])
def test_a_fault_is_seen(kind: str, look: Callable[[], object]) -> None:
    assert look().count(kind) == 1  # type: ignore[attr-defined]


def test_a_day_that_is_over_is_not_held_against_the_new_window() -> None:
    new_day = replace(USAGE, used=0, window_began_at=5000.0)
    assert compare([HANDED], [ARRIVAL], database(ENTRY, usage=new_day)).is_clean
