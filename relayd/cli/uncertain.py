"""`relayd queue uncertain`."""

from datetime import datetime
from typing import Annotated, Literal

from cyclopts import App, Parameter

from relayd.cli import entries, output
from relayd.cli.filters import Selected, selecting
from relayd.cli.operating import Count, Reason, Yes, operate
from relayd.cli.output import Column, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import path_of
from relayd.rules.duration import from_now

app = App(name="uncertain", help="Entries in doubt: sent or not, nobody knows.")


@app.command(name="list")
def list_(
    *ids: str,
    filters: Selected = None,
    limit: int = 50,
    cursor: str | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """List what is in doubt, the oldest first, and when relayd itself looks for it at the upstream.

    Parameters
    ----------
    ids
        Queue ids, or entries'.
    cursor
        Go on where a list before ended.
    """
    reply = control.get(path_of("queue", "uncertain"), {**selecting(ids, filters), "limit": limit, "cursor": cursor})
    now = entries.instant(reply.data["now"])
    columns = (
        column("entry_id", "id", whole=True),
        Column("age", lambda row: entries.age(row["created_at"], now)),
        column("upstream"),
        column("recipient", whole=True),
        Column("next look", lambda row: _look(row, now)),
        column("reason"),
    )
    output.items(reply, columns, as_json=as_json, none="nothing is in doubt")
    if as_json:
        return
    if any(row["look_at"] is None for row in reply.data["items"]):
        output.hint("who knows, or decides: relayd queue uncertain resolve ID --as sent|retry|failed")
    if reply.data["more"]:
        output.hint(f"{reply.data['more']:,} more; go on with --cursor {reply.data['cursor']}")


@app.command
def resolve(
    *ids: str,
    as_: Annotated[Literal["sent", "retry", "failed"], Parameter(name="--as")],
    filters: Selected = None,
    yes: Yes = False,
    count: Count = None,
    reason: Reason = None,
    as_json: AsJson = False,
    control: Control,
) -> int:
    """Say what became of entries in doubt, or decide it.

    Parameters
    ----------
    ids
        Queue ids, or entries'. Without any, the options below choose; --state pending means all that are in doubt.
    as_
        sent: they arrived, and that is all. retry: send them (again), at once. failed: give up and tell the sender.
    """
    body = {**selecting(ids, filters), **given({"reason": reason}), "answer": as_}
    path = path_of("queue", "uncertain", "resolve")
    return operate(control, "resolve", body, yes=yes, count=count, as_json=as_json, path=path)


def _look(row: output.Row, now: datetime) -> str:
    return from_now(entries.instant(row["look_at"]), now) if row["look_at"] else "-"
