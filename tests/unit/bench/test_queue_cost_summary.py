"""Rates, percentiles and ratios."""

import pytest

from bench.queue_cost import summary


def worker(entries, began, ended, claims=(0.001,)):
    return {
        "entries": entries,
        "empty_claims": 1,
        "began": began,
        "ended": ended,
        "latencies": {"claim": list(claims), "start": [], "settle": []},
    }


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0), ([3], 0.99, 3), ([4, 1, 3, 2], 0.5, 2), (range(1, 101), 0.99, 99), (range(1, 201), 0.99, 198)],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values, share, expected):
    assert summary.percentile(list(values), share) == expected


def test_a_trial_lasts_from_the_first_begin_to_the_last_end():
    trial = summary.of_trial(
        [worker(300, 10.0, 12.0), worker(100, 11.0, 14.0)], backend_cpu_seconds=1, server_cpu_seconds=2
    )
    assert (trial["entries"], trial["seconds"], trial["entries_per_second"]) == (400, 4.0, 100.0)
    assert trial["backend_cpu_seconds_per_1000"] == 2.5
    assert trial["server_cpu_seconds_per_1000"] == 5.0
    assert trial["empty_claims"] == 2


def test_a_worker_that_found_nothing_left_does_not_stretch_the_trial():
    trial = summary.of_trial(
        [worker(300, 10.0, 12.0), worker(0, 10.0, 0.0, ())], backend_cpu_seconds=1, server_cpu_seconds=1
    )
    assert trial["seconds"] == 2.0


def test_a_trial_without_entries_has_no_rate():
    trial = summary.of_trial([worker(0, 10.0, 0.0, ())], backend_cpu_seconds=1, server_cpu_seconds=1)
    assert trial["entries_per_second"] == 0


def test_ratios_compare_within_a_round_so_that_a_slow_round_spoils_nothing():
    found = summary.ratios({0: {1: 1000.0, 2: 500.0}, 10_000: {1: 950.0, 2: 500.0}})
    assert found == {0: [1.0, 1.0], 10_000: [0.95, 1.0]}
