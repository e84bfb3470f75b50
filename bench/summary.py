"""Arithmetic over trials: medians and ranges over the rounds, ratios, percentiles. Pure."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.load import Figures, Latency, Load, Trial
from bench.timing import Timing


@dataclass(frozen=True, slots=True)
class Range:
    """A median, and the least and most of the values that it is the median of."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Row:
    """One system under one load, over the rounds. CPU is in seconds a thousand messages."""

    replied: Range  # messages a second until the last 250
    arrived: Range  # messages a second until the last arrival
    cpu: Range
    cpu_by_part: dict[str, float]
    cpu_by_process: dict[str, float]
    cpu_others: dict[str, float]
    peak_pss_octets: float


def range_of(values: Sequence[float]) -> Range:
    """Of one value or more."""
    return Range(median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the least of the values that `percent` of them do not exceed. One value or more."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def latency_of(timings: Sequence[Timing]) -> Latency:
    """In milliseconds."""
    sessions = [(timing.replied_at - timing.due_at) * 1000 for timing in timings]
    dots = [timing.dot_seconds * 1000 for timing in timings]
    return Latency(percentile(sessions, 50), percentile(sessions, 99), percentile(dots, 50), percentile(dots, 99))


def figures_of(trials: Iterable[Trial], system: str, load: Load) -> list[Figures]:
    """Those of the trials that did not fail, in the order of the rounds."""
    return [each.figures for each in trials if each.system == system and each.load == load and each.figures]


def row_of(trials: Iterable[Trial], system: str, load: Load) -> Row | None:
    """None where every trial failed or none was made."""
    figures = figures_of(trials, system, load)
    if not figures:
        return None
    thousands = load.count / 1000
    return Row(
        replied=range_of([load.count / each.replied_seconds for each in figures]),
        arrived=range_of([load.count / each.arrived_seconds for each in figures]),
        cpu=range_of([sum(each.cpu_by_part.values()) / thousands for each in figures]),
        cpu_by_part=_medians(figures, lambda each: each.cpu_by_part, thousands),
        cpu_by_process=_medians(figures, lambda each: each.cpu_by_process, thousands),
        cpu_others=_medians(figures, lambda each: each.cpu_others, thousands),
        peak_pss_octets=max(each.peak_pss_octets for each in figures),
    )


def ratio(row: Row | None, baseline: Row | None) -> float | None:
    """Of the medians to the last arrival; None where one of them is missing."""
    return row.arrived.median / baseline.arrived.median if row and baseline else None


def _medians(
    figures: Sequence[Figures], part: Callable[[Figures], dict[str, float]], divisor: float
) -> dict[str, float]:
    names = dict.fromkeys(name for each in figures for name in part(each))
    return {name: median(part(each).get(name, 0.0) for each in figures) / divisor for name in names}
