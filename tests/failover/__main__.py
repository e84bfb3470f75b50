"""`python -m tests.failover [--messages N] [--rate N]`: the drill at length; exit code 1 if anything was lost."""

import argparse
import sys
import tempfile
from pathlib import Path

from relayd.embedded import EmbeddedPostgres
from tests.conftest import FreshDatabase, state_directory_of_its_own, wanted_major
from tests.failover.drill import run

PROMISED_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.failover", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=300.0, help="messages a second")
    asked = parser.parse_args()
    if not 100 <= asked.messages <= 1_000_000 or asked.rate <= 0:
        parser.error("from 100 to 1,000,000 messages, at some rate")
    with (
        state_directory_of_its_own() as state,
        tempfile.TemporaryDirectory(prefix="relayd-failover-") as files,
        EmbeddedPostgres(state, major=wanted_major()) as server,
    ):
        told = run(FreshDatabase(server.dsn, server.password), Path(files), asked.messages, rate=asked.rate)
    is_well = told.is_well and told.idle_seconds <= PROMISED_SECONDS
    sys.stdout.write(f"failover: {told}\nfailover: {'well' if is_well else 'NOT WELL'}\n")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
