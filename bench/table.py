"""RESULTS.md: what was measured, on what, as tables. Drawn from the raw results alone."""

from collections.abc import Iterable, Iterator, Sequence

from bench.load import Load, Trial
from bench.names import BASELINE, NAMES, RELAYD_RSA
from bench.results import Results
from bench.summary import Range, figures_of, range_of, ratio, row_of

FILE = "RESULTS.md"
_INTRODUCTION = """\
# relayd beside Postfix

Made by `make bench`, drawn anew by `make bench ARGS=--draw`. All of it, load generator and sink included, ran on the
one machine below, over loopback, in one run: the systems took turns at each load, each started afresh and warmed up.
Figures are medians of the rounds, their least and most in brackets. Mail is kept durably before the 250 by all of
them: Postfix syncs its queue file, relayd commits to its own Postgres (`fsync` and `synchronous_commit` on).

- *Last 250*: messages a second until the load generator, Postfix's `smtp-source`, had its last reply.
- *Last arrival*: messages a second until the last message was at the sink, Postfix's `smtp-sink`; this is the figure
  that is compared. All messages of a trial arrived, once each.
- *CPU*: seconds a thousand messages, of the system with all its processes, those that ended too; relayd's Postgres
  and Postfix's milter included. *Load* is what generator and sink used beside it.
- *Memory*: the peak of the proportional set sizes of all its processes together.
"""


def render(results: Results) -> str:
    """The whole document."""
    parts = [_INTRODUCTION]
    if results.is_short:
        parts.append("**A short run**: one round and few messages; good for a look, not for a claim.\n")
    parts.append(_machine(results))
    everybody = [load for load in results.loads() if load.generator == "smtp-source"]
    if everybody:
        parts.append(_overview(results.trials, everybody))
        parts += [_load(results.trials, load) for load in everybody]
        parts.append(_processes(results.trials, everybody))
    own = [load for load in results.loads() if load.generator != "smtp-source" and load.rate is None]
    if own:
        parts.append(_login(results.trials, own))
    parts += [_latency(results.trials, load) for load in results.loads() if load.rate is not None]
    parts.append(_failures(results.trials))
    return "\n".join(part for part in parts if part)


def title_of(load: Load) -> str:
    """In words."""
    sessions = "reused connections" if load.is_reused else "a new connection each"
    pace = f"{load.rate:.0f} a second" if load.rate else f"{load.connections} at once"
    return f"{load.octets // 1024} KB, {sessions}, {pace}"


def _machine(results: Results) -> str:
    signed = [(f"{NAMES[name]}", f"signatures seen: {found}") for name, found in results.signatures.items()]
    rows = [("Date", results.date), *results.machine.items(), *signed]
    return "## Machine and versions\n\n" + _table(("", ""), rows)


def _overview(trials: Sequence[Trial], loads: Sequence[Load]) -> str:
    systems = _systems(trials, loads)
    rows = []
    for load in loads:
        baseline = row_of(trials, BASELINE, load)
        cells = [_ratio(ratio(row_of(trials, system, load), baseline)) for system in systems]
        rows.append((title_of(load), *cells))
    return (
        "## Last arrival, as a multiple of Postfix without signing\n\n"
        + _table(("", *(NAMES[system] for system in systems)), rows)
        + "\n![The same as a plot](results.svg)\n"
    )


def _load(trials: Sequence[Trial], load: Load) -> str:
    baseline = row_of(trials, BASELINE, load)
    rows = []
    for system in _systems(trials, [load]):
        row = row_of(trials, system, load)
        if row is None:
            rows.append((NAMES[system], "failed", "", "", "", "", ""))
            continue
        rows.append(
            (
                NAMES[system],
                _rate(row.replied),
                _rate(row.arrived),
                _ratio(ratio(row, baseline)),
                _cpu(row.cpu) + _parts(row.cpu_by_part),
                f"{row.cpu_others.get('source', 0) + row.cpu_others.get('sink', 0):.2f}",
                f"{row.peak_pss_octets / 1024**2:.0f} MB",
            )
        )
    columns = ("", "Last 250, /s", "Last arrival, /s", "Ratio", "CPU, s per 1000", "Load, s per 1000", "Memory")
    return f"## {title_of(load)}\n\n{load.count} messages a trial.\n\n" + _table(columns, rows)


def _processes(trials: Sequence[Trial], loads: Sequence[Load]) -> str:
    """Where the CPU goes, at the load that is hardest for all: small messages, a connection each."""
    hardest = [load for load in loads if not load.is_reused]
    if not hardest:
        return ""
    load = max(hardest, key=lambda load: (-load.octets, load.connections))
    rows = []
    for system in _systems(trials, [load]):
        row = row_of(trials, system, load)
        if row:
            used = (f"{name} {seconds:.2f}" for name, seconds in row.cpu_by_process.items() if seconds >= 0.01)
            rows.append((NAMES[system], ", ".join(used)))
    columns = ("", "CPU seconds per 1000 messages")
    return f"## Which processes use the CPU\n\n{title_of(load)}. *ended*: short-lived ones.\n\n" + _table(columns, rows)


def _login(trials: Sequence[Trial], loads: Sequence[Load]) -> str:
    rows = []
    for load in loads:
        if row := row_of(trials, RELAYD_RSA, load):
            secured = "STARTTLS + AUTH" if load.generator == "tls+auth" else "without TLS or login"
            load_cpu = f"{row.cpu_others.get('source', 0):.2f}"
            rows.append(
                (f"{title_of(load)}, {secured}", _rate(row.replied), _rate(row.arrived), _cpu(row.cpu), load_cpu)
            )
    columns = ("", "Last 250, /s", "Last arrival, /s", "CPU, s per 1000", "Generator, s per 1000")
    return (
        f"## {NAMES[RELAYD_RSA]}, with STARTTLS and AUTH\n\nsmtp-source speaks neither, so both come from the bench's"
        " own generator, in Python, which uses much of the two cores itself: compare these with each other alone.\n\n"
        + _table(columns, rows)
    )


def _latency(trials: Sequence[Trial], load: Load) -> str:
    rows = []
    for system in (BASELINE, RELAYD_RSA):
        seen = [each.latency for each in figures_of(trials, system, load) if each.latency]
        if seen:
            columns = zip(
                *((each.session_p50, each.session_p99, each.dot_p50, each.dot_p99) for each in seen), strict=True
            )
            rows.append((NAMES[system], *(_milliseconds(range_of(column)) for column in columns)))
    return (
        f"## Latency of the 250 at {load.rate:.0f} messages a second\n\n4 KB, a new connection each; in a whole run"
        " half of what relayd (RSA-2048) carries of these. Messages are due at fixed times, whatever became of those"
        " before. Milliseconds. *Session*: from when a message is due, before connecting, to its 250. *Dot*: from"
        " writing it to its 250.\n\n" + _table(("", "Session p50", "Session p99", "Dot p50", "Dot p99"), rows)
    )


def _failures(trials: Sequence[Trial]) -> str:
    rows = [(NAMES[each.system], title_of(each.load), each.failure) for each in trials if each.failure]
    return "## Failed trials\n\n" + _table(("", "Load", "Reason"), rows) if rows else ""


def _systems(trials: Iterable[Trial], loads: Sequence[Load]) -> list[str]:
    tried = {trial.system for trial in trials if trial.load in loads}
    return [system for system in NAMES if system in tried]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        yield f"| {' | '.join(columns)} |"
        yield "|---" * len(columns) + "|"
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"

    return "\n".join(lines()) + "\n"


def _rate(value: Range) -> str:
    return _range(value, ".0f")


def _cpu(value: Range) -> str:
    return _range(value, ".2f")


def _milliseconds(value: Range) -> str:
    return _range(value, ".1f")


def _range(value: Range, form: str) -> str:
    if value.least == value.most:
        # One round: there is no range.
        return f"{value.median:{form}}"
    return f"{value.median:{form}} ({value.least:{form}}–{value.most:{form}})"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _parts(parts: dict[str, float]) -> str:
    shares = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    return f": {shares}" if len(parts) > 1 else ""
