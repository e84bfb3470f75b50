"""`python -m bench`: measure, keep the results, draw them. Ends what it started, however it ends itself."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from bench import machine, packages, results, table
from bench.errors import BenchError
from bench.guard import guarded
from bench.load import Load, Trial
from bench.loopback import free_port
from bench.names import NAMES, RELAYD_RSA
from bench.options import HERE, Options, parse
from bench.plan import Plan, make_plan
from bench.proof import prove
from bench.results import Results
from bench.summary import row_of
from bench.system import System
from bench.systems import make_systems
from bench.trial import Bench, run_trial
from relayd.errors import RelaydError

_LEAST_SHOWN = 0.01


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 when something failed, 130 when it was told to end."""
    try:
        options = parse(arguments)
        if options.draw:
            _keep(results.load(options.results or HERE), options)
            return 0
        if os.geteuid() != 0:
            raise BenchError("Postfix needs root to start, and so does the bench")
        packages.install_missing()
        description = machine.describe(options.directory)
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    return guarded(lambda directory: _measure(options, description, directory), options.directory)


def _measure(options: Options, description: dict[str, str], directory: Path) -> int:
    plan = make_plan(options)
    bench = Bench(directory, options.address, free_port(options.address))
    systems = make_systems(directory, bench.address, bench.sink_port)
    try:
        signatures = {name: prove(bench, name, systems[name]) for name in plan.systems}
        trials = list(_trials(bench, systems, plan))
        _keep(Results(results.today(), options.short, description, signatures, trials), options)
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    return 1 if any(trial.failure for trial in trials) else 0


def _trials(bench: Bench, systems: Mapping[str, System], plan: Plan) -> Iterator[Trial]:
    made = []
    for number, name, load in plan.turns():
        made.append(_try(bench, systems[name], name, number, load))
        yield made[-1]
    for rate in plan.rates:
        for number, name, load in plan.latency_turns(rate):
            yield _try(bench, systems[name], name, number, load)
    reference = plan.reference()
    row = row_of(made, RELAYD_RSA, reference) if reference else None
    for number, name, load in plan.latency_turns(row.arrived.median / 2) if row and plan.has_latency else ():
        yield _try(bench, systems[name], name, number, load)


def _try(bench: Bench, system: System, name: str, number: int, load: Load) -> Trial:
    """A failed trial is a result too, and the others go on."""
    print(f"round {number + 1}: {NAMES[name]}: {table.title_of(load)}: ", end="", flush=True)
    try:
        figures = run_trial(bench, system, load)
    except (BenchError, RelaydError, OSError) as error:
        print(f"FAILED: {error}", flush=True)
        system.discard()
        return Trial(name, number, load, None, bench.without_paths(str(error)))
    trial = Trial(name, number, load, figures)
    print(_line(trial), flush=True)
    return trial


def _line(trial: Trial) -> str:
    row = row_of([trial], trial.system, trial.load)
    assert row and trial.figures
    thousands = trial.load.count / 1000
    others = {name: seconds / thousands for name, seconds in trial.figures.cpu_others.items()}
    shares = {**row.cpu_by_part, **row.cpu_by_process, **others}
    used = ", ".join(f"{name} {seconds:.2f}" for name, seconds in shares.items() if seconds >= _LEAST_SHOWN)
    latency = trial.figures.latency
    reply = f"; 250 after p50 {latency.session_p50:.1f} ms, p99 {latency.session_p99:.1f} ms" if latency else ""
    rates = f"{row.replied.median:.0f}/s to the last 250, {row.arrived.median:.0f}/s to the last arrival"
    return f"{rates}; CPU s per 1000: {used}; {row.peak_pss_octets / 1024**2:.0f} MB{reply}"


def _keep(found: Results, options: Options) -> None:
    if options.results is None:
        return
    if not options.draw:
        results.save(found, options.results)
        # As rounded there: drawing anew makes the same files.
        found = results.load(options.results)
    (options.results / table.FILE).write_text(table.render(found))
    if options.rate:
        return  # a table says it all
    # Optional: whoever only wants figures has no need of matplotlib.
    if find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed here; `make bench ARGS=--draw` draws it")
        return
    plot = import_module("bench.plot")
    plot.draw(found, options.results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
