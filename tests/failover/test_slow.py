"""The short form of the slow drill."""

from dataclasses import replace
from pathlib import Path

from tests.conftest import FreshDatabase, at_length
from tests.crash.ledger import Verdict
from tests.failover.slow import DEAD, TRICKLE, Step, Told, run

CLOSED = Step(
    phase=DEAD,
    number=1,
    first_works=False,
    breaker="closed",
    is_pause_over=True,
    tries=1,
    went="second",
    seconds=0.1,
    spent=1,
    breaker_after="closed",
)
PAUSE = replace(CLOSED, breaker="open", is_pause_over=False, tries=0, breaker_after="open")
FAILED_PROBE = replace(PAUSE, is_pause_over=True, tries=1)
MISSED_PROBE = replace(PAUSE, is_pause_over=True)
PROBE = replace(FAILED_PROBE, phase=TRICKLE, first_works=True, went="first", breaker_after="closed")
BACK = replace(CLOSED, phase=TRICKLE, first_works=True, went="first")

STEPS = (CLOSED, PAUSE, FAILED_PROBE, PROBE, BACK)
WELL = Told(
    failures=1, steps=STEPS, shown=((1, 1),), opened=(True, True), verdict=Verdict(acknowledged=5, delivered=len(STEPS))
)


@at_length
def test_mail_goes_on_around_a_dead_upstream_and_back_when_it_works(database: FreshDatabase, tmp_path: Path) -> None:
    told = run(database, tmp_path, failures=3, trickle=4)
    assert told.is_well, told.failed_promises
    assert told.verdict.delivered == told.verdict.acknowledged == len(told.steps) >= 15, told


def test_every_broken_promise_of_a_step_is_named() -> None:
    assert WELL.is_well, WELL.failed_promises
    cases = (
        (CLOSED, {"went": None}, "did not arrive"),
        (CLOSED, {"spent": 2}, "spent 2 attempts"),
        (PAUSE, {"tries": 1}, "tried 1 times at first, not 0"),
        (FAILED_PROBE, {"went": None}, "did not arrive"),
        (FAILED_PROBE, {"breaker_after": "half_open"}, "half_open after its probe"),
        (PROBE, {"breaker_after": "open"}, "open after its probe"),
        (BACK, {"went": "second"}, "went through second, not first"),
        (BACK, {"tries": 2}, "tried 2 times"),
    )
    for step, changes, named in cases:
        steps = tuple(replace(each, **changes) if each is step else each for each in STEPS)
        (promise,) = replace(WELL, steps=steps).failed_promises
        assert named in promise


def test_every_other_broken_promise_is_named() -> None:
    cases = (
        ({"shown": ((1, None),)}, "status and upstream list"),
        ({"shown": ()}, "status and upstream list"),
        ({"opened": (True, False)}, "is not open after 1 failures"),
        ({"verdict": Verdict(acknowledged=5, delivered=4)}, "exactly once"),
        ({"verdict": Verdict(acknowledged=5, delivered=5, doubted=1)}, "exactly once"),
        ({"steps": (*STEPS[:3], BACK, BACK)}, "brought the first upstream back"),
    )
    for changes, named in cases:
        (promise,) = replace(WELL, **changes).failed_promises  # type: ignore[arg-type]
        assert named in promise


def test_one_missed_probe_is_bad_luck_and_two_are_a_fault() -> None:
    verdict = Verdict(acknowledged=6, delivered=6)
    assert replace(WELL, steps=(*STEPS, MISSED_PROBE), verdict=verdict).is_well
    verdict = Verdict(acknowledged=7, delivered=7)
    (promise,) = replace(WELL, steps=(*STEPS, MISSED_PROBE, MISSED_PROBE), verdict=verdict).failed_promises
    assert promise == "2 messages after the pause of the breaker did not try the first upstream"
