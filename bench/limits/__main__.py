"""`python -m bench.limits`: measure, keep the raw figures, write the page. `draw` writes the page anew.

It starts a Postgres of its own and uses no other. Ctrl-C ends it; what was measured by then is kept.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import process
from bench.errors import BenchError
from bench.limits import chores, crowd, delivery, fairness, rates, report
from bench.limits.bench import Bench
from bench.queue_cost import results, server
from relayd.embedded import EmbeddedPostgres
from relayd.errors import RelaydError

FILE = Path(__file__).parents[1] / "LIMITS.json"

# Measured over a loaded case: message, body, entry, log row, their indexes, and the write-ahead log meanwhile.
_OCTETS_PER_ENTRY = 5_000
_PARTS: Mapping[str, Callable[[Bench, argparse.Namespace], Awaitable[None]]] = {
    "crowd": crowd.measure,
    "fairness": fairness.measure,
    "rates": rates.measure,
    "delivery": delivery.measure,
    "chores": chores.measure,
}


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    options = parse(arguments)
    if options.command == "draw":
        _write_page(results.read(options.out), options.out)
        return 0
    if not options.out.parent.is_dir():
        print(f"limits: there is no directory {options.out.parent} for --out; make it first", file=sys.stderr)
        return 2
    if options.live >= options.mailboxes:
        print("limits: --live must be less than --mailboxes; the rest are the exhausted ones", file=sys.stderr)
        return 2
    found: dict[str, Any] = {"machine": results.machine()}
    if options.out.exists():
        # A part that is not measured now keeps the figures that it has.
        found = results.read(options.out) | found
    found["options"] = found.get("options", {}) | _kept(options)
    try:
        octets = 3 * options.entries * _OCTETS_PER_ENTRY
        with server.own_server(options.scratch, octets=octets, major=options.postgres) as own:
            asyncio.run(_run(own, options, found))
    except (RelaydError, BenchError) as error:
        print(f"limits: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("limits: stopped; what was measured so far is kept, the page is as it was", file=sys.stderr)
        return 130
    finally:
        process.sweep()
    _write_page(found, options.out)
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Ends the program where an option is unknown or out of its bounds."""
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description="What limits and a crowd cost.")
    add = parser.add_argument
    add("command", choices=("run", "draw"), nargs="?", default="run")
    add("--parts", choices=tuple(_PARTS), nargs="+", default=tuple(_PARTS), help="which to measure")
    add("--mailboxes", type=_between(2, 10_000), default=10_000, help="all of them")
    add("--live", type=_between(1, 1_000), default=100, help="those of them that have budget")
    add("--clients", type=_between(1, 100), default=20, help="whose they are, two domains each")
    add("--entries", type=_between(1, 10_000_000), default=1_000_000, help="that wait")
    add("--limit", type=_between(1, 1_000), default=10, help="a day, of each of the exhausted")
    add("--rate", type=_between(1, 500), default=50, help="messages a second")
    add("--seconds", type=_between(1, 600), default=60, help="of each trial of latency")
    add("--rounds", type=_between(0, 20), default=2, help="of latency; 0: only plans and the turn")
    add("--explains", type=_between(0, 50), default=5, help="how often plans and chores are run; 0: not")
    add("--spread", type=_between(1, 3600), default=300, help="release_spread_seconds when the window turns")
    add("--turn-seconds", type=_between(0, 600), default=60, help="watched after the spread; 0: no turn at all")
    add("--busy-mailboxes", type=_between(1, 10_000), default=5_000, help="of the client that saturates the upstream")
    add("--busy-entries", type=_between(1, 10_000_000), default=300_000, help="that it has due")
    add("--sink-seconds", type=float, default=0.2, help="that the slow upstream takes for a message")
    add("--warm-seconds", type=float, default=10.0, help="of saturation before it is measured")
    add("--patience", type=float, default=60.0, help="seconds to wait for what has not arrived")
    add("--workers", type=_between(1, 16), nargs="+", default=(2, 4), help="that claim and settle")
    add("--rate-rounds", type=_between(1, 20), default=3, help="of the rate")
    add("--drained", type=_between(1, 1_000_000), default=5_000, help="messages in a trial of the rate")
    add("--postgres", type=int, default=None, help="major version of the server's programs")
    add("--scratch", type=Path, default=Path("/var/tmp"), help="where the server's data goes: a disk")
    add("--note", default="", help="what was special about this run, for the page")
    add("--out", type=Path, default=FILE, help="the raw figures; the page goes beside them")
    return parser.parse_args(arguments)


async def _run(own: EmbeddedPostgres, options: argparse.Namespace, found: dict[str, Any]) -> None:
    connection = await server.connect(own, "relayd")
    try:
        found["postgres"] = await server.described(connection)
    finally:
        await connection.close()
    fresh: set[str] = set()

    def keep(kind: str, sample: dict[str, Any]) -> None:
        if kind not in fresh:
            fresh.add(kind)
            found[kind] = []
        found[kind].append(sample)
        results.write(found, options.out)

    with tempfile.TemporaryDirectory(prefix="limits-", dir=options.scratch) as directory:
        bench = Bench(own, Path(directory), _say, keep)
        for part in options.parts:
            await _PARTS[part](bench, options)


def _between(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return parse


def _kept(options: argparse.Namespace) -> dict[str, Any]:
    left_out = {"command", "parts", "scratch", "out", "postgres"}
    return {name: value for name, value in vars(options).items() if name not in left_out}


def _write_page(found: dict[str, Any], out: Path) -> None:
    out.with_suffix(".md").write_text(report.page(found), "utf-8")


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
