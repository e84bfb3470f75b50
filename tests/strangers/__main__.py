"""What an honest app notices of strangers: `python -m tests.strangers [--seconds 60] [--only KIND]`.

Exits with 1 if a message is lost, the app's p99 more than doubles, or a phase's log reaches a megabyte.
"""

import argparse
import sys

from relayd.embedded import EmbeddedPostgres
from tests.conftest import state_directory_of_its_own, wanted_major
from tests.peers.sink import Sink
from tests.strangers.app import RATE
from tests.strangers.drill import KINDS, drill, make_house

LOG_OCTETS = 1_000_000


def main() -> int:
    """Run the drill and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase")
    parser.add_argument("--only", choices=KINDS, action="append", help="this kind of load alone")
    options = parser.parse_args()
    with (
        state_directory_of_its_own() as state,
        EmbeddedPostgres(state, durable=False, major=wanted_major()) as server,
        Sink() as sink,
    ):
        house = make_house(server.dsn, server.password)
        try:
            house.migrate()
            house.start()
            phases, lost = drill(house, sink, options.seconds, tuple(options.only or KINDS))
        finally:
            house.close()
    alone = phases[0].percentile(0.99)
    print(f"{'load':8} {'messages':>8} {'failed':>6} {'p50 ms':>8} {'p99 ms':>8} {'times alone':>11} {'log KB':>7}")
    is_good = not lost
    for each in phases:
        p50, p99 = each.percentile(0.5), each.percentile(0.99)
        is_good = is_good and p99 <= 2 * alone and each.log_octets < LOG_OCTETS and not each.failed
        print(
            f"{each.kind:8} {len(each.seconds):8} {each.failed:6} {p50 * 1000:8.1f} {p99 * 1000:8.1f} "
            f"{p99 / alone:11.2f} {each.log_octets / 1000:7.0f}"
        )
    print(f"{RATE:g} messages a second; lost: {lost}; {'as promised' if is_good else 'NOT as promised'}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
