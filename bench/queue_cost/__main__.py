"""`python -m bench.queue_cost`: measure, keep the raw figures, write the page. `draw` writes the page anew.

It starts a Postgres of its own and uses no other. Ctrl-C ends it; what was measured by then is kept.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.queue_cost import backlog, growth, product, report, results, server, trial
from bench.queue_cost.case import LARGEST, SIZES, SPREADS, Case, cases, octets_needed
from relayd.embedded import EmbeddedPostgres
from relayd.errors import RelaydError

_GROWTH_OCTETS_PER_MESSAGE = 8_000
_MOST_ROUNDS = 20
_MOST_MESSAGES = 5_000_000


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    if any("://" in argument or argument.startswith("--dsn") for argument in arguments):
        print("queue_cost measures only a Postgres that it starts itself; it takes no DSN", file=sys.stderr)
        return 2
    options = _parse(arguments)
    if options.command == "draw":
        _write_page(results.read(options.out), options.out)
        return 0
    if not options.out.parent.is_dir():
        print(f"queue_cost: there is no directory {options.out.parent} for --out; make it first", file=sys.stderr)
        return 2
    wanted = _cases(options)
    octets = octets_needed(wanted) + options.growth * _GROWTH_OCTETS_PER_MESSAGE
    found: dict[str, Any] = {"options": _kept(options), "machine": results.machine(), "trials": [], "plans": []}
    try:
        with server.own_server(options.scratch, octets=octets, major=options.postgres) as own:
            asyncio.run(_run(own, options, found))
    except RelaydError as error:
        print(f"queue_cost: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("queue_cost: stopped; what was measured so far is kept, the page is as it was", file=sys.stderr)
        return 130
    _write_page(found, options.out)
    return 0


async def _run(own: EmbeddedPostgres, options: argparse.Namespace, found: dict[str, Any]) -> None:
    connection = await server.connect(own, "relayd")
    try:
        found["postgres"] = await server.described(connection)
    finally:
        await connection.close()

    def keep(kind: str, sample: dict[str, Any]) -> None:
        found.setdefault(kind, []).append(sample)
        results.write(found, options.out)

    # First, while the server is fresh: a case's leavings would be read into the growth.
    if options.growth:
        await growth.grow(
            own,
            messages=options.growth,
            batch=options.batch,
            say=_say,
            keep=lambda sample: keep("growth", sample),
            target=options.migrations,
        )
    if options.rounds:
        upstreams = await trial.prepare(own, _cases(options), _say)
        await trial.measure(
            own,
            upstreams,
            rounds=options.rounds,
            live=options.live,
            batch=options.batch,
            say=_say,
            keep=lambda sample: keep("trials", sample),
        )
        for plan in await trial.explain(own, upstreams, batch=options.batch):
            keep("plans", plan)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.queue_cost", description="What the queue costs in Postgres.")
    parser.add_argument("command", choices=("run", "draw"), nargs="?", default="run")
    parser.add_argument(
        "--waiting", type=_between(0, LARGEST), nargs="+", default=SIZES, help="how many wait, each a case"
    )
    parser.add_argument("--largest", type=_between(0, LARGEST), default=1_000_000, help="most entries that wait")
    parser.add_argument(
        "--mailboxes", type=_between(1, 10_000), nargs="+", default=list(SPREADS), help="exhausted ones, each a series"
    )
    parser.add_argument("--rounds", type=_between(0, _MOST_ROUNDS), default=3, help="0: only the growth")
    parser.add_argument("--live", type=_between(1000, 1_000_000), default=10_000, help="messages drained in a trial")
    parser.add_argument("--batch", type=_between(1, 1000), default=product.BATCH, help="messages wanted a claim")
    parser.add_argument(
        "--growth",
        type=_between(0, _MOST_MESSAGES),
        default=200_000,
        help="messages sent to see the tables grow; 0: none",
    )
    parser.add_argument("--migrations", type=int, default=None, help="last migration applied for the growth; all")
    parser.add_argument("--postgres", type=int, default=None, help="major version of the server's programs")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="where the server's data goes: a disk")
    parser.add_argument("--note", default="", help="what was special about this run, for the page")
    parser.add_argument("--out", type=Path, default=results.FILE, help="the raw figures; the page goes beside them")
    return parser.parse_args(arguments)


def _between(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return parse


def _cases(options: argparse.Namespace) -> list[Case]:
    return cases(options.largest, options.mailboxes, sizes=options.waiting)


def _kept(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "live": options.live,
        "live_mailboxes": backlog.LIVE_MAILBOXES,
        "batch": options.batch,
        "rounds": options.rounds,
        "largest": options.largest,
        "note": options.note,
    }


def _write_page(found: dict[str, Any], out: Path) -> None:
    out.with_suffix(".md").write_text(report.page(found), "utf-8")


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
