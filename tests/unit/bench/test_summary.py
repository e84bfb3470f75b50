"""Medians, ranges, ratios and percentiles, and the table that is made of them."""

import pytest

from bench.generator import Timing
from bench.load import Figures, Latency, Load, Trial
from bench.results import Results
from bench.summary import Range, latency_of, percentile, range_of, ratio, row_of
from bench.table import render

LOAD = Load(4096, is_reused=False, connections=50, count=2000)


def trial(system: str, seconds: float, *, number: int = 0, cpu: float = 4.0, failure: str | None = None) -> Trial:
    figures = Figures(
        replied_seconds=seconds / 2,
        arrived_seconds=seconds,
        cpu_by_part={"main": cpu / 4, "signer": cpu * 3 / 4},
        cpu_by_process={"main: smtpd": cpu / 4},
        cpu_others={"source": 1.0, "sink": 0.5, "bench": 0.1},
        peak_pss_octets=number << 20,
    )
    return Trial(system, number, LOAD, None if failure else figures, failure)


THREE = [trial("postfix", 2.0, cpu=2.0), trial("postfix", 5.0, number=1), trial("postfix", 4.0, number=2, cpu=8.0)]


@pytest.mark.parametrize(
    ("values", "expected"), [([3], Range(3, 3, 3)), ([5, 1, 3], Range(3, 1, 5)), ([1, 2], Range(1.5, 1, 2))]
)
def test_range_is_median_least_and_most(values: list[float], expected: Range) -> None:
    assert range_of(values) == expected


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (0.5, 1), (1.5, 2)])
def test_percentile_is_of_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_latency_counts_from_when_a_message_was_due() -> None:
    timings = [Timing(due_at=10.0, replied_at=10.0 + seconds, dot_seconds=0.001) for seconds in (0.25, 0.5, 2.0)]
    assert latency_of(timings) == Latency(session_p50=500, session_p99=2000, dot_p50=1, dot_p99=1)


def test_row_is_over_the_rounds_and_by_the_thousand_messages() -> None:
    row = row_of(THREE, "postfix", LOAD)
    assert row
    assert row.arrived == Range(500, 400, 1000)
    assert row.replied == Range(1000, 800, 2000)
    assert row.cpu == Range(2, 1, 4)
    assert row.cpu_by_part == {"main": 0.5, "signer": 1.5}
    assert row.cpu_others["source"] == 0.5
    assert row.peak_pss_octets == 2 << 20


def test_a_failed_trial_is_left_out_of_the_medians() -> None:
    failed = trial("postfix", 1.0, failure="stuck")
    assert row_of([*THREE, failed], "postfix", LOAD) == row_of(THREE, "postfix", LOAD)
    assert row_of([failed], "postfix", LOAD) is None


def test_ratio_is_of_the_last_arrivals() -> None:
    relayd, postfix = row_of([trial("relayd", 2.0)], "relayd", LOAD), row_of(THREE, "postfix", LOAD)
    assert ratio(relayd, postfix) == 2.0
    assert ratio(relayd, None) is None


def test_table_shows_figures_ratios_and_why_a_trial_failed() -> None:
    trials = [*THREE, trial("relayd", 2.0), trial("postfix-rspamd", 1.0, failure="stuck: 3 of 2000 | had arrived")]
    text = render(Results("2026-01-01", True, {"CPU": "Some, 2 cores"}, {"relayd": "Ed25519 + RSA-2048"}, trials))
    assert "| Postfix, no signing | 1000 (800–2000) | 500 (400–1000) | 1.00 | 2.00 (1.00–4.00):" in text
    assert "| relayd, RSA-2048 + Ed25519 | 2000 | 1000 | 2.00 |" in text
    assert "stuck: 3 of 2000 / had arrived" in text
    assert "A short run" in text
    assert "| CPU | Some, 2 cores |" in text
