"""`python -m tests.ledger`: the race and the random histories, at length; the exit code says whether all was well.

It starts and stops its own Postgres. Everything follows from --seed: --history shows one history again.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.conftest import FreshDatabase
from tests.ledger.bugs import BUGS
from tests.ledger.history import Told
from tests.ledger.race import KINDS, Round, Size, racing
from tests.ledger.runs import catch, histories, postgres

PARTS = ("race", "histories", "seeds")
FULL = Size(processes=4, claimers=200, connections=15, limit=500)
EVENTS = 800  # of a history
# Parts that the histories are dealt out in: each says how far it is when it is done.
PARCELS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if no limit was passed, no unit and no entry lost, and every planted bug was caught."""
    options = _options(arguments)
    print(f"seed: {options.seed}", flush=True)
    if options.history:
        return min(_report([histories([options.history], options.events, options.bug)]), 1)
    faults = _race(options.rounds) if "race" in options.parts else 0
    # A process of its own for each: whoever starts a Postgres must do so from its main thread.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        if "histories" in options.parts:
            seeds = [f"{options.seed}-{number}" for number in range(-(-options.total // options.events))]
            parts = [
                pool.submit(histories, seeds[start::PARCELS], options.events, options.bug) for start in range(PARCELS)
            ]
            faults += _report(part.result() for part in parts)
        if "seeds" in options.parts:
            caught = {bug: pool.submit(catch, bug, options.seed, options.events) for bug in BUGS}
            faults += sum(_report_bug(bug, future.result()) for bug, future in caught.items())
    return min(faults, 1)


def _race(rounds: int) -> int:
    async def race(database: FreshDatabase) -> int:
        faults = 0
        print("\nround  kind             limit answered sending  used  bulk   of", flush=True)
        async with racing(database, FULL) as race:
            for number in range(rounds):
                faults += _report_round(await race.round(number))
            caught = None
            for number in range(rounds, rounds + len(KINDS)):
                told = await race.round(number, bug="naive-claim")
                if told.used > told.limit:
                    caught = told
                    break
        faults += _report_bug("naive-claim, in the race", caught)
        return faults

    with postgres() as database:
        return asyncio.run(race(database))


def _report_round(told: Round) -> int:
    line = f"{told.number:5}  {told.kind:16} {told.limit:5} {told.answered:8} {told.sending:7} {told.used:5}"
    print(f"{line} {told.bulk:5} {told.bulk_limit:4}{'' if told.is_well else '  FAULT'}", flush=True)
    for error in told.errors[:5]:
        print(f"    {error}", flush=True)
    return int(not told.is_well)


def _report(parts: Iterable[list[Told]]) -> int:
    print("\nhistories    events   entries   counted    faults", flush=True)
    done: list[Told] = []
    for part in parts:
        done += part
        faults = [each for each in done if each.fault]
        totals = [sum(getattr(each, name) for each in done) for name in ("events", "submitted", "replies")]
        print(f"{len(done):9} " + "".join(f"{each:10}" for each in (*totals, len(faults))), flush=True)
        for each in part:
            if each.fault:
                print(f"FAULT --history {each.seed}: {each.fault}", flush=True)
    return sum(each.fault is not None for each in done)


def _report_bug(bug: str, caught: Told | Round | None) -> int:
    match caught:
        case None:
            print(f"seed {bug}: FAULT, it was not caught", flush=True)
        case Round():
            print(f"seed {bug}: caught, {caught.used} of {caught.limit} in a round of {caught.kind}", flush=True)
        case Told():
            what = (caught.fault or "").splitlines()[0]
            print(f"seed {bug}: caught by {caught.seed}, {what}", flush=True)
    return int(caught is None)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.ledger", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"which to run, of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=100, help="of the race (100)")
    parser.add_argument("--total", type=int, default=100_000, help="events of all histories together (100,000)")
    parser.add_argument("--events", type=int, default=EVENTS, help=f"of one history ({EVENTS})")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="of the dice, to repeat a run")
    parser.add_argument(
        "--history", metavar="SEED", help="only this one, as a fault names it; fewer --events cut it short"
    )
    parser.add_argument("--bug", choices=BUGS, help="plant it in the histories")
    parser.add_argument("--jobs", type=int, default=2, help="histories at once (2)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    options.parts = options.parts or list(PARTS)
    return options


if __name__ == "__main__":
    sys.exit(main())
