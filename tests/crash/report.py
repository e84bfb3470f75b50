"""What is printed of a run: a table of the series, a line for each seed, and what was wrong."""

from collections.abc import Iterator

from tests.crash.kills import Series
from tests.crash.ledger import Verdict
from tests.crash.seeded import Seeded

_COLUMNS = (
    ("failpoint", 22),
    ("victim", 11),
    ("kills", 6),
    ("acknowledged", 13),
    ("delivered", 10),
    ("bounced", 8),
    ("lost", 5),
    ("dup+doubt", 10),
    ("dup", 4),
    ("other", 6),
    ("seconds", 8),
)


def heading() -> str:
    """The names of the columns. `other` counts faults of every other kind."""
    return _row([name for name, _ in _COLUMNS])


def row(series: Series) -> str:
    """One series."""
    verdict = series.verdict
    return _row(
        [
            series.failpoint,
            series.victim,
            series.kills,
            verdict.acknowledged,
            verdict.delivered,
            verdict.bounced,
            verdict.count("lost"),
            verdict.doubted,
            verdict.count("duplicate"),
            sum(map(len, verdict.faults.values())) - verdict.count("lost") - verdict.count("duplicate"),
            f"{series.seconds:.0f}",
        ]
    )


def total(every: list[Series]) -> str:
    """The sums."""
    verdict = Verdict()
    for series in every:
        verdict.acknowledged += series.verdict.acknowledged
        verdict.delivered += series.verdict.delivered
        verdict.bounced += series.verdict.bounced
        verdict.doubted += series.verdict.doubted
        for kind, what in series.verdict.faults.items():
            verdict.faults[kind] += what
    kills, seconds = sum(series.kills for series in every), sum(series.seconds for series in every)
    return row(Series("total", "", kills, kills, verdict, seconds))


def problems(series: Series) -> Iterator[str]:
    """What was wrong with it, a line each."""
    yield from (f"FAULT {series.failpoint} {series.victim}: {each}" for each in series.problems)


def seed(seeded: Seeded, unseeded: Verdict, planted: Verdict) -> tuple[str, bool]:
    """One seed: whether it was caught, by what, and whether the run without it was clean."""
    caught = planted.count(seeded.caught_by)
    first = next(iter(planted.faults.get(seeded.caught_by, [])), "")
    parts = [f"seed {seeded.seed}:"]
    parts.append(f"caught by {caught} x {seeded.caught_by} ({first})" if caught else f"NOT CAUGHT: {planted}")
    if not unseeded.is_clean:
        parts.append(f"FAULT without the seed: {unseeded}")
    return " ".join(parts), bool(caught) and unseeded.is_clean


def _row(cells: list[object]) -> str:
    first, second, *numbers = zip(cells, (width for _, width in _COLUMNS), strict=True)
    words = "".join(f"{cell!s:<{width}}" for cell, width in (first, second))
    return words + "".join(f"{cell!s:>{width}}" for cell, width in numbers)
