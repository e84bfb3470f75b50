"""What the command line may ask for, checked."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.errors import BenchError
from bench.loopback import loopback
from bench.names import NAMES

HERE = Path(__file__).parent
_MOST_MESSAGES = 100_000
_MOST_ROUNDS = 20
_MOST_CONNECTIONS = 100  # relayd's limit for one address, and Postfix's for one service
_MOST_OCTETS = 10_000_000
_LEAST_OCTETS = 1024
_MOST_RATE = 5000


@dataclass(frozen=True, slots=True)
class Options:
    """Empty or None: as the plan has it. `results`: where they are written, None: nowhere, they are shown."""

    short: bool = False
    draw: bool = False
    only: tuple[str, ...] = ()
    rounds: int | None = None
    count: int | None = None
    octets: tuple[int, ...] = ()
    connections: tuple[int, ...] = ()
    sessions: Literal["new", "reused"] | None = None
    rate: tuple[int, ...] = ()
    address: str = "127.0.0.1"
    directory: Path = Path("/var/tmp")
    results: Path | None = None


def parse(arguments: Sequence[str]) -> Options:
    """Raises BenchError; argparse itself ends the program where an option is unknown."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure relayd beside Postfix on loopback.")
    add = parser.add_argument
    add("--short", action="store_true", help="one round, 50 connections, fewer messages: under six minutes")
    add("--draw", action="store_true", help="measure nothing: make table and plot anew from the raw results")
    add("--only", action="append", choices=list(NAMES), default=[], metavar="NAME", help=f"of {', '.join(NAMES)}")
    add("--rounds", type=int, help="how often everything is measured (3)")
    add("--count", type=int, help="messages of 4 KB a trial; of larger ones half as many (4500)")
    add("--octets", type=int, action="append", default=[], help="size of the message (4096 and 102400)")
    add("--connections", type=int, action="append", default=[], help="at once (20 and 50)")
    add("--sessions", choices=("new", "reused"), help="a connection for each message, or for many (both)")
    add("--rate", type=int, action="append", default=[], help="only the latency of the 250, at so many a second")
    add("--address", default="127.0.0.1", help="loopback address on which everything happens")
    add("--directory", type=Path, default=Path("/var/tmp"), help="on a real disk; the run's files are made below it")
    add("--results", type=Path, help="directory for the results; by default only a whole run is kept, in bench/")
    found = parser.parse_args(arguments)
    for name, value, least, most in (
        ("--rounds", found.rounds, 1, _MOST_ROUNDS),
        ("--count", found.count, 1, _MOST_MESSAGES),
        *(("--octets", octets, _LEAST_OCTETS, _MOST_OCTETS) for octets in found.octets),
        *(("--rate", rate, 1, _MOST_RATE) for rate in found.rate),
        *(("--connections", connections, 1, _MOST_CONNECTIONS) for connections in found.connections),
    ):
        if value is not None and not least <= value <= most:
            raise BenchError(f"{name} {value}: must be from {least} to {most}")
    loopback(found.address)
    for name in ("only", "octets", "connections", "rate"):
        setattr(found, name, tuple(getattr(found, name)))
    options = Options(**vars(found))
    is_whole = options == Options(address=options.address, directory=options.directory, draw=options.draw)
    return replace(options, results=options.results or (HERE if is_whole else None))
