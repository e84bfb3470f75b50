"""The page that says what was measured, out of the raw results. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.queue_cost import summary

Results = Mapping[str, Any]

_INTRO = """# What limits cost, and what a crowd

Made by `make bench-limits`; the figures are in [LIMITS.json](LIMITS.json), and `python -m bench.limits draw` makes this
page of them anew. {machine}. PostgreSQL {version}, embedded, durable, on a disk.

*Load* is that of the machine's last minute, the trial's own included.
"""
_LATENCY = """## Beside exhausted mailboxes

`relayd serve` with two workers. {mailboxes:,} mailboxes of {clients} clients, two domains each; all but {live} have
sent their day's limit, and the entries of the first column wait behind them. The {live} others submit {rate:g}
messages of 4 KB a second in all, for {seconds:g} seconds, by SMTP with a login; counted is the time from the 250 to the
arrival at the sink, in seconds.
"""
_PLANS = """### What a claim reads

EXPLAIN (ANALYZE, BUFFERS) of the two statements of a claim, over 2,000 live entries, in turn; medians, and the range in
brackets. Rows are those that scans read, filtered ones too.
"""
_TURN = """## The window turns for all of them at once

Midnight comes for every exhausted mailbox, each with its limit for the new day; their releases are spread over
`delivery.release_spread_seconds`. The others go on as before. *Load* here is that at the end of the trial; *most* is
what one mailbox sent at most.
"""
_FAIRNESS = """## Fairness

An upstream with 20 connections answers a message after {sink_seconds:g} s. *Many*: one client has {busy_entries:,} due
in {busy_mailboxes:,} mailboxes without limits, another one mailbox that submits a message a second. *Deep*: one mailbox
has {entries:,} due, ten others of its client and ten of another submit a message a second each. Without turns of
clients: the same claim, which takes the lanes that waited longest, whosever they are. What had not arrived in the end
is counted with the time it had waited.
"""
_RATES = """## Rate with budgets in force

Claim, start and settle, as in [QUEUE.md](QUEUE.md), {drained:,} messages over 100 mailboxes a trial. *Five*: the day of
the mailbox, and of its domain, its client and its provider, and the provider's hour, the last four shared by all
mailboxes; no limit binds. Rounds interleaved; medians, the range in brackets, ratios within a round; claim and
settle at p50.
"""
_DELIVERY = """### And in the daemon

`relayd serve` with that many workers starts with {drained:,} messages of 1 KB due, of 100 mailboxes; the sink notes
each arrival, the first and the last tenth left out. Budgets, rounds and ratios as above.
"""
_CHORES = """## Chores

{mailboxes:,} mailboxes, 30 days of `warmup_stats` each, up to 100,000 entries waiting behind exhausted ones. The first
run finds everything to do (every mailbox's rates are new, one mailbox in a hundred is paused), the others nothing.
"""


def page(results: Results) -> str:
    """The whole of it: a section for each part that was measured."""
    options = results["options"]
    machine, postgres = results["machine"], results["postgres"]
    on = f"{machine['cores']} cores of an {machine['cpu']}, {machine['memory_gib']} GiB, Linux {machine['kernel']}"
    parts = [
        _INTRO.format(machine=on, version=postgres["version"]),
        *([f"{options['note']}\n"] * bool(options["note"])),
    ]
    for kind, intro, lines in (
        ("latency", _LATENCY, _latencies),
        ("plans", _PLANS, _plans),
        ("turn", _TURN, _turns),
        ("release", "", _release),
        ("fairness", _FAIRNESS, _fairness),
        ("rates", _RATES, _rates),
        ("delivery", _DELIVERY, _delivery),
        ("chores", _CHORES, _chores),
    ):
        if samples := results.get(kind):
            parts += [intro.format(**options)] * bool(intro)
            parts.append("\n".join(lines(samples)) + "\n")
    return "\n".join(parts)


def _latencies(trials: Sequence[Results]) -> Iterator[str]:
    yield "| waiting | round | messages | p50 | p95 | p99 | max | not arrived | load |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for trial in sorted(trials, key=lambda each: (each["waiting"], each["round"])):
        yield f"| {trial['waiting']:,} | {trial['round']} | {trial['messages']:,} | {_seconds(trial)} |"


def _plans(plans: Sequence[Results]) -> Iterator[str]:
    yield "| statement | waiting | rows | buffers | ms |"
    yield "|---|---:|---:|---:|---:|"
    for step, waiting in dict.fromkeys(sorted((plan["step"], plan["waiting"]) for plan in plans)):
        found = [plan for plan in plans if (plan["step"], plan["waiting"]) == (step, waiting)]
        cells = [_range([plan[name] for plan in found], 0) for name in ("rows_read", "buffers")]
        yield f"| {step} | {waiting:,} | {' | '.join(cells)} | {_range([p['milliseconds'] for p in found], 1)} |"


def _turns(samples: Sequence[Results]) -> Iterator[str]:
    yield "| waiting | limit | spread | after the turn, s | released | others | p50 | p95 | p99 | max | late | load |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for each in samples:
        span = f"{each['begins']:.0f} to {each['begins'] + each['seconds']:.0f}"
        yield f"| {_terms(each)} | {span} | {each['released']:,} | {each['messages']:,} | {_seconds(each)} |"


def _release(found: Sequence[Results]) -> Iterator[str]:
    yield "| waiting | limit | spread | mailboxes | began, by fifths of it | later | early | last | sent | most |"
    yield "|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|"
    for each in found:
        *within, after = each["begun_by_slice"]
        slices = ", ".join(f"{count:,}" for count in within)
        yield (
            f"| {_terms(each)} | {each['mailboxes']:,} | {slices} | {after:,} | {each['too_early']:,}"
            f" | {each['last_began']:.0f} s | {each['messages']:,} | {each['most_of_one']} |"
        )


def _terms(sample: Results) -> str:
    return f"{sample['entries']:,} | {sample['limit']} | {sample['spread']:g} s"


def _fairness(trials: Sequence[Results]) -> Iterator[str]:
    yield "| scene | claim | client | messages | p50 | p95 | p99 | max | not arrived | load | taken of all |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for trial in trials:
        claim = "without turns" if trial["is_turnless"] else "as it is"
        yield (
            f"| {trial['scene']} | {claim} | {trial['client']} | {trial['messages']:,} | {_seconds(trial)}"
            f" | {trial['taken']:,} |"
        )


def _rates(trials: Sequence[Results]) -> Iterator[str]:
    yield "| budgets | workers | entries a second | against none | claim, ms | settle, ms | empty claims | load |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    none = {(each["workers"], each["round"]): each["entries_per_second"] for each in trials if each["case"] == "none"}
    for workers, case in dict.fromkeys((each["workers"], each["case"]) for each in trials):
        found = [each for each in trials if (each["workers"], each["case"]) == (workers, case)]
        ratios = [
            each["entries_per_second"] / none[workers, each["round"]]
            for each in found
            if none.get((workers, each["round"]))
        ]
        yield (
            f"| {case} | {workers} | {_range([each['entries_per_second'] for each in found], 0)}"
            f" | {_range(ratios, 2)} | {_range([each['p50_ms']['claim'] for each in found], 1)}"
            f" | {_range([each['p50_ms']['settle'] for each in found], 1)}"
            f" | {_range([each['empty_claims'] for each in found], 0)}"
            f" | {_range([each['load'] for each in found], 1)} |"
        )


def _delivery(trials: Sequence[Results]) -> Iterator[str]:
    yield "| budgets | workers | delivered a second | against none | load |"
    yield "|---|---:|---:|---:|---:|"
    none = {(each["workers"], each["round"]): each["messages_per_second"] for each in trials if each["case"] == "none"}
    for workers, case in dict.fromkeys(sorted((each["workers"], each["case"]) for each in trials)):
        found = [each for each in trials if (each["workers"], each["case"]) == (workers, case)]
        ratios = [each["messages_per_second"] / none[workers, each["round"]] for each in found]
        yield (
            f"| {case} | {workers} | {_range([each['messages_per_second'] for each in found], 0)}"
            f" | {_range(ratios, 2)} | {_range([each['load'] for each in found], 1)} |"
        )


def _chores(samples: Sequence[Results]) -> Iterator[str]:
    yield "| chore | first, s | afterwards, s |"
    yield "|---|---:|---:|"
    for name in dict.fromkeys(each["chore"] for each in samples):
        first, *others = [each["seconds"] for each in samples if each["chore"] == name]
        yield f"| {name} | {first:.3f} | {_range(others, 3) if others else ''} |"


def _seconds(trial: Results) -> str:
    percentiles = " | ".join(f"{trial[name]:.3f}" for name in ("p50", "p95", "p99", "max"))
    return f"{percentiles} | {trial['missing']} | {trial['load']:.1f}"


def _range(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    middle, least, greatest = summary.spread(values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f}–{greatest:,.{digits}f})"
