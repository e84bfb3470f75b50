"""The short form of `make crash`: the most telling deaths, and the bugs that show at once."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import at_length
from tests.crash.drill import sigterm
from tests.crash.kills import Victim, at_failpoint
from tests.crash.scene import ROOT
from tests.crash.seeded import SEEDED, Seeded
from tests.crash.seeds.bugs import BUGS
from tests.crash.shortages import shortages

QUICK = {"acknowledge-before-commit", "refund-doubts"}
SEEDS = Path(__file__).with_name("seeds")


@pytest.mark.parametrize(
    ("failpoint", "victim"),
    [
        ("enqueue-sent", Victim.WORKER),
        pytest.param("upstream-dot-after", Victim.SUPERVISOR, marks=at_length),
        pytest.param("settle-bounce-sent", Victim.POSTGRES, marks=at_length),
    ],
)
def test_whoever_dies_nothing_acknowledged_is_lost(failpoint: str, victim: Victim) -> None:
    series = at_failpoint(failpoint, victim, 2, random.Random(failpoint))
    assert series.problems == []
    assert series.verdict.queued == 0


@at_length
def test_sigterm_leaves_nothing_lost_doubled_or_in_doubt() -> None:
    series = sigterm(1, random.Random(2))
    assert series.problems == []
    assert series.verdict.doubts == series.verdict.queued == 0


@at_length
def test_workers_that_cannot_start_serve_again_when_they_can() -> None:
    series = shortages(12, 9, random.Random(3))
    assert series.problems == []
    assert series.verdict.queued == 0


@pytest.mark.parametrize("seeded", [each for each in SEEDED if each.seed in QUICK], ids=lambda seeded: seeded.seed)
@at_length
def test_a_seeded_bug_is_caught(seeded: Seeded) -> None:
    assert seeded.seeded().count(seeded.caught_by) > 0


def test_every_bug_has_its_run() -> None:
    assert {each.seed for each in SEEDED} == set(BUGS)


def test_every_bug_fits_the_code_as_it_is() -> None:
    plant_all = "from tests.crash.seeds.bugs import BUGS\nfor plant in BUGS.values(): plant()\nprint('planted')"
    result = _python(plant_all)
    assert result.stdout == "planted\n", result.stderr


def test_a_seed_that_cannot_be_planted_stops_the_process() -> None:
    result = _python("print('on')", RELAYD_SEED="a-bug-that-is-none")
    assert (result.stdout, result.returncode) == ("", 1)
    assert "cannot be planted" in result.stderr


def _python(program: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = f"{SEEDS}{os.pathsep}{ROOT}"
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
        timeout=60,
    )
