"""`python -m tests.crash`: every kill, the SIGTERM drill and the seeded bugs; the exit code says whether all was well.

It starts and stops everything that it needs by itself, on loopback addresses and in directories of its own.
"""

import argparse
import multiprocessing
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from tests.crash import kills, report
from tests.crash.drill import sigterm
from tests.crash.kills import FAILPOINTS, Series, Victim
from tests.crash.ledger import Verdict
from tests.crash.seeded import SEEDED, run_seed
from tests.crash.shortages import shortages

PARTS = ("seeds", "failpoints", "random", "sigterm", "shortages")
MOST = 1000
# Little enough to be reached.
LIMIT_A_KILL = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if nothing was lost, doubled unannounced or otherwise wrong, and every seed was caught."""
    options = _options(arguments)
    print(f"dice: {options.seed}", flush=True)
    context = multiprocessing.get_context("spawn")
    # A process of its own for each: whoever starts a Postgres must do so from its main thread.
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:

        def begin(work: Callable[..., Any], *args: Any) -> "Future[Any]":
            return pool.submit(work, *args)

        seeds = range(len(SEEDED)) if "seeds" in options.parts else range(0)
        planted = [(SEEDED[number], begin(run_seed, number)) for number in seeds]
        series = [begin(work, *args) for work, *args in _series(options)]
        seeds_are_well = all([_report_seed(each, future) for each, future in planted])
        return 0 if _report_series(series) and seeds_are_well else 1


def _series(options: argparse.Namespace) -> list[tuple[Any, ...]]:
    wanted: list[tuple[Any, ...]] = []
    if "failpoints" in options.parts:
        for failpoint in options.failpoint or FAILPOINTS:
            for victim in options.victim or list(Victim):
                dice = random.Random(f"{options.seed} {failpoint} {victim}")
                wanted.append((kills.at_failpoint, failpoint, victim, options.kills, dice))
    if "random" in options.parts:
        wanted.append((kills.at_random, options.random, random.Random(f"{options.seed} random")))
        fewer, dice = max(1, options.random // 4), random.Random(f"{options.seed} limit")
        wanted.append((kills.at_random, fewer, dice, str(fewer * LIMIT_A_KILL)))
    if "sigterm" in options.parts:
        wanted.append((sigterm, options.sigterms, random.Random(f"{options.seed} sigterm")))
    if "shortages" in options.parts:
        dice = random.Random(f"{options.seed} shortages")
        wanted.append((shortages, options.shortage_kills, options.failed_starts, dice))
    return wanted


def _report_seed(each: Any, future: "Future[tuple[Verdict, Verdict]]") -> bool:
    try:
        line, is_well = report.seed(each, *future.result())
    except Exception as error:
        line, is_well = f"seed {each.seed}: FAULT, its run broke: {error}", False
    print(line, flush=True)
    return is_well


def _report_series(futures: Sequence["Future[Series]"]) -> bool:
    if not futures:
        return True
    print(report.heading(), flush=True)
    done: list[Series] = []
    is_well = True
    for future in futures:
        try:
            series = future.result()
        except Exception as error:
            print(f"FAULT a run broke: {error}", flush=True)
            is_well = False
            continue
        done.append(series)
        is_well &= not series.problems
        print("\n".join([report.row(series), *series.notes, *report.problems(series)]), flush=True)
    print(report.total(done), flush=True)
    return is_well


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"which to run, of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--failpoint", action="append", choices=FAILPOINTS, help="only this one; may be repeated")
    parser.add_argument("--victim", action="append", type=Victim, choices=list(Victim), help="only this one")
    parser.add_argument("--kills", type=_count, default=20, help="at each failpoint, of each victim (20)")
    parser.add_argument(
        "--random",
        type=_count,
        default=200,
        help="kills of anybody at any moment (200), and a quarter as many with a daily limit",
    )
    parser.add_argument("--sigterms", type=_count, default=100, help="in the SIGTERM drill (100)")
    parser.add_argument("--shortage-kills", type=_count, default=300, help="of workers, among shortages (300)")
    parser.add_argument("--failed-starts", type=_count, default=100, help="of those, followed by a failed start (100)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the dice, to repeat a run")
    parser.add_argument("--jobs", type=_count, default=2, help="nodes at once (2)")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    if not options.parts:
        options.parts = ["failpoints"] if options.failpoint or options.victim else list(PARTS)
    return options


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"from 1 to {MOST}")
    return number


if __name__ == "__main__":
    sys.exit(main())
