"""Figures out of what was measured: rates, percentiles, medians with their ranges, ratios. Pure."""

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median
from typing import Any

STEPS = ("claim", "start", "settle")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (above 0, to 1) of them do not exceed; 0 for none."""
    if not values:
        return 0.0
    return sorted(values)[ceil(share * len(values)) - 1]


def of_trial(
    workers: Sequence[Mapping[str, Any]], *, backend_cpu_seconds: float, server_cpu_seconds: float
) -> dict[str, Any]:
    """One trial out of what its workers measured at the same time."""
    entries = sum(each["entries"] for each in workers)
    busy = [each for each in workers if each["entries"]]
    seconds = max(each["ended"] for each in busy) - min(each["began"] for each in busy) if busy else 0.0
    latencies = {step: [value for each in workers for value in each["latencies"][step]] for step in STEPS}
    return {
        "entries": entries,
        "seconds": seconds,
        "entries_per_second": entries / seconds if seconds else 0.0,
        "empty_claims": sum(each["empty_claims"] for each in workers),
        "batches": len(latencies["claim"]),
        "p50_ms": {step: percentile(values, 0.5) * 1000 for step, values in latencies.items()},
        "p99_ms": {step: percentile(values, 0.99) * 1000 for step, values in latencies.items()},
        # Of one worker's time: the steps take turns in it.
        "busy_seconds": {step: sum(values) for step, values in latencies.items()},
        "backend_cpu_seconds_per_1000": backend_cpu_seconds * 1000 / entries if entries else 0.0,
        "server_cpu_seconds_per_1000": server_cpu_seconds * 1000 / entries if entries else 0.0,
    }


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least, greatest."""
    return median(values), min(values), max(values)


def ratios(rates: Mapping[int, Mapping[int, float]]) -> dict[int, list[float]]:
    """Rates by backlog and round, each against the empty queue of its own round: what drifts falls out."""
    empty = rates[0]
    return {
        backlog: [rate / empty[number] for number, rate in by_round.items() if empty.get(number)]
        for backlog, by_round in rates.items()
    }
