"""`python -m tests.failover`: the drills of failing upstreams, a line for each; exit code 1 if a promise did not hold.

--only load: an upstream dies under load; slow: one message a minute; silent: a host with one silent address.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from relayd.embedded import EmbeddedPostgres
from tests.conftest import FreshDatabase, state_directory_of_its_own, wanted_major
from tests.failover import drill, silent_address, slow

Told = drill.Told | slow.Told | silent_address.Told

DRILLS: dict[str, Callable[[FreshDatabase, Path, argparse.Namespace], Told]] = {
    "load": lambda database, files, options: drill.run(database, files, options.messages, rate=options.rate),
    "slow": lambda database, files, options: slow.run(database, files, real_time=options.real_time),
    "silent": lambda database, files, options: silent_address.run(database, files),
}


def main() -> int:
    """Run the drills, each with a database server of its own; 0 if all went well."""
    options = _options()
    is_well = True
    for name in [options.only] if options.only else DRILLS:
        with (
            state_directory_of_its_own() as state,
            tempfile.TemporaryDirectory(prefix="relayd-failover-") as files,
            EmbeddedPostgres(state, major=wanted_major()) as server,
        ):
            told = DRILLS[name](FreshDatabase(server.dsn, server.password), Path(files), options)
        _write(f"{name}: {told}")
        for promise in told.failed_promises:
            _write(f"{name}: {promise}")
        _write(f"{name}: {'well' if told.is_well else 'NOT WELL'}")
        is_well &= told.is_well
    return 0 if is_well else 1


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.failover", description=__doc__)
    parser.add_argument("--only", choices=DRILLS, help="one drill instead of all")
    parser.add_argument("--messages", type=int, default=10_000, help="of the load")
    parser.add_argument("--rate", type=float, default=300.0, help="of the load: messages a second")
    parser.add_argument("--real-time", action="store_true", help="let each minute of the slow drill pass")
    options = parser.parse_args()
    if not 100 <= options.messages <= 1_000_000 or options.rate <= 0:
        parser.error("from 100 to 1,000,000 messages, at some rate")
    return options


if __name__ == "__main__":
    sys.exit(main())
