"""`relayd explain`."""

from collections.abc import Sequence
from datetime import datetime

from cyclopts import App

from relayd.cli import entries, output
from relayd.cli.entries import Row
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import path_of

app = App(name="explain")

_WAITING = ("queued", "pending")


@app.default
def explain(some_id: str, /, *, limit: int = 20, as_json: AsJson = False, control: Control) -> None:
    """Say where a message is, why it waits, when it goes, and what was tried.

    Parameters
    ----------
    some_id
        A queue id (the 250 had it), or an entry's.
    limit
        So many recipients at most.
    """
    reply = control.get(path_of("explain", some_id), {"limit": limit})
    if as_json:
        return output.write(reply.text)
    data, now = reply.data, entries.instant(reply.data["now"])
    output.heading(f"message {data['queue_id']}: {data['subject'] or '(no subject)'}")
    output.write(
        output.readable(
            f"  from {data['mailbox']}, {data['size_octets']:,} bytes, accepted {entries.when(data['created_at'], now)}"
        )
    )
    limits: list[Row] = []
    for row in data["entries"]:
        output.write("")
        waits = row["goes_at"] and row["where"] not in ("due", "sending")
        about = "not before" if row["is_earliest"] else "about"
        goes = f", goes {about} {entries.when(row['goes_at'], now)}" if waits else ""
        output.heading(f"{row['recipient']}: {row['where']}{goes}")
        entries.paragraph(row["sentence"])
        if row["next_step"]:
            entries.paragraph(f"next: {row['next_step']}")
        if row["status"] in _WAITING and row["budgets"] != limits:
            # Recipients of a message mostly share them: once is enough.
            limits = row["budgets"]
            _limits(limits, now)
        entries.log(row["log"])
    entries.more_entries(len(data["entries"]), data["total"])


def _limits(budgets: Sequence[Row], now: datetime) -> None:
    """A line a budget: how much of it is used, when there is more; the one that is waited for is marked."""
    width = max((len(budget["name"]) for budget in budgets), default=0)
    for budget in budgets:
        mark = ">" if budget["binds"] else " "
        limit = "no limit" if budget["unit_limit"] is None else f"of {budget['unit_limit']:,} {budget['window']}"
        bulk = budget["bulk_limit"]
        kept = "" if bulk in (None, budget["unit_limit"]) else f", {bulk:,} of them for bulk mail"
        turns = f", {'frees' if budget['is_rolling'] else 'turns'} {entries.when(budget['turns_at'], now)}"
        line = (
            f"  {mark} {budget['name']:<{width}}  {budget['used']:,} {limit}{kept}{turns if budget['turns_at'] else ''}"
        )
        output.write(entries.one_line(line))
