"""Raw results survive being written."""

from pathlib import Path

import pytest

from bench import results
from bench.errors import BenchError
from bench.load import Figures, Latency, Load, Trial
from bench.results import Results

LOAD = Load(4096, is_reused=False, connections=50, count=100)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    figures = Figures(1.5, 2.25, {"postfix": 1.0}, {"postfix: smtpd": 0.5}, {"sink": 0.25}, 1 << 20)
    timed = Load(4096, is_reused=False, connections=0, count=9, generator="plain", rate=50.5)
    trials = [
        Trial("postfix", 0, LOAD, figures),
        Trial("relayd", 1, LOAD, None, "stuck"),
        Trial("relayd-rsa", 2, timed, Figures(1.0, 1.0, latency=Latency(1.0, 2.0, 0.5, 0.75))),
    ]
    written = Results("2026-01-01", False, {"CPU": "Some"}, {"relayd": "RSA-2048"}, trials)
    results.save(written, tmp_path)
    assert results.load(tmp_path) == written


def test_without_results_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="measure first"):
        results.load(tmp_path)
