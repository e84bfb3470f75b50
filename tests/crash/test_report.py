"""What `make crash` calls well, and what it does not."""

import pytest

from tests.crash import report
from tests.crash.__main__ import main
from tests.crash.kills import Series
from tests.crash.ledger import Verdict
from tests.crash.seeded import SEEDED


def _verdict(**faults: list[str]) -> Verdict:
    verdict = Verdict(acknowledged=1)
    verdict.faults.update(faults)
    return verdict


def test_a_seed_must_be_caught_by_its_own_fault_and_its_run_be_clean_without_it() -> None:
    seeded = SEEDED[0]
    assert seeded.caught_by == "lost"
    assert report.seed(seeded, _verdict(), _verdict(lost=["it"]))[1]
    assert not report.seed(seeded, _verdict(), _verdict())[1]
    assert not report.seed(seeded, _verdict(), _verdict(stuck=["it"]))[1]
    assert not report.seed(seeded, _verdict(lost=["it"]), _verdict(lost=["it"]))[1]


@pytest.mark.parametrize(
    ("series", "problem"),
    [
        (Series("claimed", "worker", 2, 2, _verdict(), 1.0), None),
        (Series("claimed", "worker", 2, 2, _verdict(lost=["it"]), 1.0), "lost: it"),
        (Series("claimed", "worker", 2, 1, _verdict(), 1.0), "only 1 of 2 took place"),
        (Series("claimed", "worker", 2, 2, Verdict(), 1.0), "nothing was acknowledged: there was no load"),
        (Series("SIGTERM", "supervisor", 2, 2, _verdict(), 1.0, ("too slow",)), "too slow"),
    ],
)
def test_a_series_says_what_is_wrong_with_it(series: Series, problem: str | None) -> None:
    assert series.problems == ([problem] if problem else [])


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["--kills", "0"], ["--kills", "100000"], ["--failpoint", "nowhere"]]
)
def test_what_cannot_be_run_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
