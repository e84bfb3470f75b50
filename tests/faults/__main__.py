"""The long trials: `python -m tests.faults [TRIAL…]`, a line for each fault and a verdict for each trial.

What it harms it has started itself, on loopback addresses; every wait has an end. Exit code 1: something was lost,
delivered twice without a doubt, stuck, or took longer than is promised.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from tests.conftest import state_directory_of_its_own, wanted_major
from tests.crash.ledger import Verdict
from tests.faults.crowd import crowdings
from tests.faults.failover import Promotion, promotions
from tests.faults.full_disk import Kind, fillings
from tests.faults.restarts import restarts
from tests.faults.silence import silences
from tests.peers.postgres_pair import Fate
from tests.peers.small_disk import CannotMount

PROMISED_SECONDS = 30.0
"""From a primary's end to mail being accepted by its successor."""

MAIL_BETWEEN = 500

WAYS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

Trial = Callable[[argparse.Namespace, Path, Path, dict[str, Any]], Iterator[Any]]

TRIALS: dict[str, Trial] = {
    "failover": lambda asked, files, state, how: promotions(
        _turns(Fate, asked.promotions), files, state, between=MAIL_BETWEEN, **how
    ),
    "restarts": lambda asked, files, state, how: restarts(_turns(WAYS, asked.restarts), files, state, **how),
    "silence": lambda asked, files, state, how: silences(asked.rounds, files, state, **how),
    "crowd": lambda asked, files, state, how: crowdings(_turns((False, True), asked.rounds), files, state, **how),
    "disk": lambda asked, files, state, how: fillings(_turns(Kind, asked.rounds), files, **how),
}


def main() -> int:
    """Run what was asked for; 0 if all went well."""
    asked = _arguments()
    is_well = True
    for name in asked.trials or TRIALS:
        with state_directory_of_its_own() as state, tempfile.TemporaryDirectory(prefix="relayd-faults-") as files:
            how = {"major": wanted_major(), "rate": asked.rate, "connections": asked.connections}
            try:
                is_well &= _tell(name, TRIALS[name](asked, Path(files), state, how))
            except CannotMount as error:
                _say(f"{name}: skipped, needs a filesystem of its own: {error}")
    return 0 if is_well else 1


def _tell(name: str, found: Iterator[Any]) -> bool:
    is_well, began, slowest, count = True, time.monotonic(), 0.0, 0
    try:
        for each in found:
            if isinstance(each, Verdict):
                is_well &= each.is_clean
                lost = each.count("lost")
                _say(f"{name}: {count} faults, {lost} lost, slowest {slowest:.1f} s; {each}")
            else:
                _say(f"{name}: {each}")
                count += 1
                slowest = max(slowest, each.seconds)
                is_well &= not isinstance(each, Promotion) or each.seconds <= PROMISED_SECONDS
    except AssertionError as error:
        _say(f"{name}: FAILED: {error}\n" + "\n".join(getattr(error, "__notes__", ())))
        is_well = False
    _say(f"{name}: {'well' if is_well else 'NOT WELL'} after {time.monotonic() - began:.0f} s")
    return is_well


def _turns(of: Any, count: int) -> list[Any]:
    return list(islice(cycle(of), count))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}; all of them if none")
    parser.add_argument("--promotions", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6, help="of each other trial")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    parser.add_argument("--connections", type=int, default=16)
    asked = parser.parse_args()
    unknown = set(asked.trials) - set(TRIALS)
    if unknown:
        parser.error(f"no such trial: {', '.join(sorted(unknown))}")
    if not all(1 <= count <= 1000 for count in (asked.promotions, asked.restarts, asked.rounds, asked.connections)):
        parser.error("counts go from 1 to 1000")
    return asked


if __name__ == "__main__":
    sys.exit(main())
