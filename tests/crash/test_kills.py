"""The short form of `make crash`: the most telling deaths, and the bugs that show at once."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.drill import sigterm
from tests.crash.kills import Victim, at_failpoint
from tests.crash.scene import ROOT
from tests.crash.seeded import SEEDED, Seeded
from tests.crash.seeds.bugs import BUGS

QUICK = {"acknowledge-before-commit", "no-wait-for-the-disk", "refund-doubts", "bounce-on-its-own"}
SEEDS = Path(__file__).with_name("seeds")


@pytest.mark.parametrize(
    ("failpoint", "victim"),
    [
        ("enqueue-sent", Victim.WORKER),
        ("upstream-dot-after", Victim.SUPERVISOR),
        ("settle-bounce-sent", Victim.POSTGRES),
    ],
)
def test_whoever_dies_nothing_acknowledged_is_lost(failpoint: str, victim: Victim) -> None:
    series = at_failpoint(failpoint, victim, 2, random.Random(failpoint))
    assert series.problems == []
    assert series.verdict.queued == 0


def test_sigterm_leaves_nothing_lost_doubled_or_in_doubt() -> None:
    series = sigterm(2, random.Random(2))
    assert series.problems == []
    assert series.verdict.doubts == series.verdict.queued == 0


@pytest.mark.parametrize("seeded", [each for each in SEEDED if each.seed in QUICK], ids=lambda seeded: seeded.seed)
def test_a_seeded_bug_is_caught(seeded: Seeded) -> None:
    assert seeded.seeded().count(seeded.caught_by) > 0


def test_every_bug_has_its_run() -> None:
    assert {each.seed for each in SEEDED} == set(BUGS)


@pytest.mark.parametrize("seed", [*BUGS, "a-bug-that-is-none"])
def test_a_seed_fits_the_code_or_says_so_and_stops(seed: str) -> None:
    environment = {**os.environ, "RELAYD_SEED": seed, "PYTHONPATH": f"{SEEDS}{os.pathsep}{ROOT}"}
    result = subprocess.run([sys.executable, "-c", "print('on')"], capture_output=True, text=True, env=environment)
    if seed in BUGS:
        assert result.stdout == "on\n", result.stderr
    else:
        assert (result.stdout, result.returncode) == ("", 1)
        assert "cannot be planted" in result.stderr
