"""Draw the results: `python -m bench.queue_cost.plot`. A program of its own, since it alone needs matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot

from bench.queue_cost import results, summary

_TABLES = ("email_queue", "email_delivery_logs", "messages", "message_bodies", "mailbox_lanes", "email_mailboxes")


def draw(found: dict[str, Any], directory: Path) -> None:
    """`queue-rate.png` and, where growth was measured, `queue-growth.png`."""
    figure, (rate, latency) = pyplot.subplots(1, 2, figsize=(11, 4.2))
    _rates(rate, found["trials"])
    _latencies(latency, found["trials"])
    figure.tight_layout()
    figure.savefig(directory / "queue-rate.png", dpi=110)
    if found.get("growth"):
        figure, (size, claim) = pyplot.subplots(1, 2, figsize=(11, 4.2))
        _growth(size, claim, found["growth"])
        figure.tight_layout()
        figure.savefig(directory / "queue-growth.png", dpi=110)


def _rates(axes: Any, trials: Sequence[dict[str, Any]]) -> None:
    for mailboxes in sorted({trial["mailboxes"] for trial in trials}):
        backlogs, spreads = _spreads(trials, mailboxes, lambda trial: trial["entries_per_second"])
        _line(axes, backlogs, spreads, f"{mailboxes:,} mailboxes")
    axes.set(title="Claimed, started and settled", ylabel="entries a second", ylim=(0, None))
    _backlog_axis(axes)


def _latencies(axes: Any, trials: Sequence[dict[str, Any]]) -> None:
    for mailboxes in sorted({trial["mailboxes"] for trial in trials}):
        for step in summary.STEPS:
            backlogs, spreads = _spreads(trials, mailboxes, _p50_of(step))
            _line(axes, backlogs, spreads, f"{step}, {mailboxes:,} mailboxes")
    axes.set(title="A batch, p50", ylabel="milliseconds", ylim=(0, None))
    _backlog_axis(axes)


def _growth(size: Any, claim: Any, samples: Sequence[dict[str, Any]]) -> None:
    messages = [sample["messages"] for sample in samples]
    for name in _TABLES:
        of_table = [
            sample["tables"][name]["octets"]
            + sum(index["octets"] for index in sample["indexes"].values() if index["on_table"] == name)
            for sample in samples
        ]
        size.plot(messages, [octets / (1 << 20) for octets in of_table], label=name)
    size.set(title="Tables with their indexes", ylabel="MiB", xlabel="messages sent", ylim=(0, None))
    size.legend(fontsize=8)
    for share in ("p50_ms", "p99_ms"):
        claim.plot(
            messages, [sample[share]["claim"] for sample in samples], label=f"claim, {share.removesuffix('_ms')}"
        )
    claim.set(title="A claim", ylabel="milliseconds", xlabel="messages sent", ylim=(0, None))
    claim.legend(fontsize=8)


def _spreads(
    trials: Sequence[dict[str, Any]], mailboxes: int, value: Callable[[dict[str, Any]], float]
) -> tuple[list[int], list[tuple[float, float, float]]]:
    of_mailboxes = [trial for trial in trials if trial["mailboxes"] == mailboxes]
    backlogs = sorted({trial["backlog"] for trial in of_mailboxes})
    return backlogs, [
        summary.spread([value(trial) for trial in of_mailboxes if trial["backlog"] == backlog]) for backlog in backlogs
    ]


def _p50_of(step: str) -> Callable[[dict[str, Any]], float]:
    return lambda trial: float(trial["p50_ms"][step])


def _line(axes: Any, backlogs: list[int], spreads: list[tuple[float, float, float]], label: str) -> None:
    middles = [middle for middle, _, _ in spreads]
    errors = [[m - least for m, least, _ in spreads], [greatest - m for m, _, greatest in spreads]]
    axes.errorbar(backlogs, middles, yerr=errors, marker="o", capsize=3, label=label)


def _backlog_axis(axes: Any) -> None:
    axes.set_xscale("symlog", linthresh=10_000)
    axes.set_xlabel("entries waiting behind exhausted mailboxes")
    axes.legend(fontsize=8)


if __name__ == "__main__":
    pyplot.switch_backend("Agg")
    draw(results.read(), results.FILE.parent)
