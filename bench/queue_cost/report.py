"""The page that says what was measured, out of the raw results. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.queue_cost import summary

Results = Mapping[str, Any]

_INTRO = """# What the queue costs

Made by `make bench-queue`; the figures are in [QUEUE.json](QUEUE.json), and `python -m bench.queue_cost draw` makes
this page of them anew. {machine}. {postgres}.

Two workers, each a process with one connection and a worker's settings, claim, start and settle, in turn, the same live
mail: {live} messages of one recipient over {live_mailboxes} mailboxes with budget, {batch} wanted a claim, which is
what two workers ask of an upstream with the default 20 connections. No mail is sent: this is what Postgres and the
calls to it cost. Behind that wait the entries of the first column, in mailboxes that have sent their day's limit.
{rounds} rounds, cases interleaved; medians, and the range in brackets. Of one round and the next
rates differ by a third: the CPU seconds, of the two backends alone, move less.
"""


def page(results: Results) -> str:
    """The whole of it."""
    trials = results["trials"]
    parts = [_intro(results), "![rate by backlog](queue-rate.png)\n"]
    for mailboxes in sorted({trial["mailboxes"] for trial in trials}):
        of_spread = [trial for trial in trials if trial["mailboxes"] == mailboxes]
        parts += [f"## Behind {mailboxes:,} exhausted mailbox{'es' if mailboxes > 1 else ''}\n"]
        parts += ["\n".join(table(of_spread)) + "\n" for table in (_rates, _latencies, _costs)]
    if results["plans"]:
        parts += ["## What a claim reads\n", _PLANS, "\n".join(_plans(results["plans"])) + "\n"]
    if results.get("growth"):
        parts += _growth(results["growth"])
    return "\n".join(parts)


def _intro(results: Results) -> str:
    machine, postgres, options = results["machine"], results["postgres"], results["options"]
    settings = ", ".join(f"{name} {value}" for name, value in postgres.items() if name != "version")
    intro = _INTRO.format(
        machine=f"{machine['cores']} cores of an {machine['cpu']}, {machine['memory_gib']} GiB, Linux"
        f" {machine['kernel']}, Python {machine['python']}",
        postgres=f"PostgreSQL {postgres['version']}, embedded, on a disk: {settings}",
        live=f"{options['live']:,}",
        live_mailboxes=options["live_mailboxes"],
        batch=options["batch"],
        rounds=options["rounds"],
    )
    return intro + (f"\n{options['note']}\n" if options["note"] else "")


def _rates(trials: Sequence[Results]) -> Iterator[str]:
    yield "| waiting | entries a second | against empty, by round | backends' CPU s / 1000 | against empty |"
    yield "|---:|---:|---:|---:|---:|"
    rate = summary.ratios(_by_round(trials, "entries_per_second"))
    cpu = summary.ratios(_by_round(trials, "backend_cpu_seconds_per_1000"))
    for backlog, found in _by_backlog(trials):
        yield (
            f"| {backlog:,} | {_range([trial['entries_per_second'] for trial in found], 0)}"
            f" | {_range(rate[backlog], 2)} | {_range([t['backend_cpu_seconds_per_1000'] for t in found], 3)}"
            f" | {_range(cpu[backlog], 2)} |"
        )


def _latencies(trials: Sequence[Results]) -> Iterator[str]:
    yield "| waiting | claim p50 | claim p99 | start p50 | start p99 | settle p50 | settle p99 |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for backlog, found in _by_backlog(trials):
        cells = [
            _range([trial[share][step] for trial in found], 1)
            for step in summary.STEPS
            for share in ("p50_ms", "p99_ms")
        ]
        yield f"| {backlog:,} | {' | '.join(cells)} |"
    yield "\nMilliseconds for a batch, its commit included."


def _costs(trials: Sequence[Results]) -> Iterator[str]:
    yield "| waiting | log, octets | whole pages in the log | blocks touched | blocks read |"
    yield "|---:|---:|---:|---:|---:|"
    for backlog, found in _by_backlog(trials):
        counted = [trial["per_entry"] for trial in found]
        cells = [
            _range([each[name] for each in counted], digits)
            for name, digits in (("wal_octets", 0), ("wal_full_pages", 2), ("blocks_touched", 0), ("blocks_read", 2))
        ]
        yield f"| {backlog:,} | {' | '.join(cells)} |"
    yield "\nFor an entry, from claim to settle, as Postgres counts."


_PLANS = """By EXPLAIN (ANALYZE, BUFFERS) of the two statements of a claim, 2,000 live entries in the queue. Rows are
those that scans read, filtered ones too.
"""


def _plans(plans: Sequence[Results]) -> Iterator[str]:
    yield "| waiting | mailboxes | statement | rows | buffers | largest scan |"
    yield "|---:|---:|---|---:|---:|---|"
    for plan in plans:
        scan = max(plan["scans"], key=lambda each: each["buffers"], default=None)
        largest = f"{scan['on']}: {scan['rows']} rows, {scan['buffers']} buffers" if scan else ""
        yield (
            f"| {plan['backlog']:,} | {plan['mailboxes']:,} | {plan['step']} | {plan['rows_read']} | {plan['buffers']}"
            f" | {largest} |"
        )


def _growth(samples: Sequence[Results]) -> Iterator[str]:
    quarters = [samples[max(0, len(samples) * part // 4 - 1)] for part in range(1, 5)]
    yield f"## Growth over {samples[-1]['messages']:,} messages\n"
    yield "Enqueued, drained and pruned a step at a time; a few steps' messages are kept.\n"
    yield "![size of the tables and claim latency](queue-growth.png)\n"
    heads = [f"after {sample['messages']:,}" for sample in quarters]
    yield "\n".join(
        [
            f"| MiB | {' | '.join(heads)} |",
            f"|---|{'---:|' * len(heads)}",
            *_sizes(quarters, "tables"),
            *_sizes(quarters, "indexes"),
            f"| claim p50 / p99, ms | {' | '.join(_claim_ms(sample) for sample in quarters)} |",
            f"| entries a second | {' | '.join(format(s['entries_per_second'], '.0f') for s in quarters)} |",
        ]
    )
    yield "\n" + "\n".join(_updates(samples[-1]["tables"])) + "\n"


def _sizes(samples: Sequence[Results], kind: str) -> Iterator[str]:
    for name in samples[-1][kind]:
        sizes = [sample[kind][name]["octets"] / (1 << 20) for sample in samples]
        if max(sizes) >= 1 or kind == "tables":
            yield f"| {name} | {' | '.join(f'{size:.1f}' for size in sizes)} |"


def _updates(tables: Mapping[str, Results]) -> Iterator[str]:
    yield "| table | updates | of them HOT | dead rows at the end | autovacuums |"
    yield "|---|---:|---:|---:|---:|"
    for name, table in tables.items():
        share = f"{table['hot_updates'] / table['updates']:.0%}" if table["updates"] else ""
        yield f"| {name} | {table['updates']:,} | {share} | {table['dead']:,} | {table['autovacuums']} |"


def _claim_ms(sample: Results) -> str:
    return f"{sample['p50_ms']['claim']:.1f} / {sample['p99_ms']['claim']:.1f}"


def _by_backlog(trials: Sequence[Results]) -> list[tuple[int, list[Results]]]:
    backlogs = sorted({trial["backlog"] for trial in trials})
    return [(backlog, [trial for trial in trials if trial["backlog"] == backlog]) for backlog in backlogs]


def _by_round(trials: Sequence[Results], key: str) -> dict[int, dict[int, float]]:
    return {backlog: {trial["round"]: trial[key] for trial in found} for backlog, found in _by_backlog(trials)}


def _range(values: Sequence[float], digits: int) -> str:
    middle, least, greatest = summary.spread(values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f}–{greatest:,.{digits}f})"
