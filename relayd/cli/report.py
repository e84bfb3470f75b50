"""`relayd report`."""

import sys
from typing import Any, Literal

from cyclopts import App

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import path_of

app = App(name="report")


def _kind(row: Row) -> Any:
    return row["kind"] or ""


_COLUMNS = (
    column("received_at", "came", whole=True),
    column("id", whole=True),
    column("client"),
    column("source", "by"),
    Column("taken for", _kind),
    column("status"),
    Column("detail", lambda row: row["error"] or row["detail"] or ""),
)
_DETAILS = (
    column("id"),
    column("client"),
    column("source", "came by"),
    column("mailbox", "inbox of"),
    column("forward_path", "to"),
    column("reverse_path", "from"),
    column("peer"),
    column("size_octets", "octets"),
    Column("taken for", _kind),
    column("status"),
    column("detail"),
    column("error"),
    column("queue_id", "message"),
    column("entry_id", "entry"),
    column("received_at", "came"),
    column("settled_at", "settled"),
)


@app.command(name="list")
def list_(
    *,
    client: str | None = None,
    status: Literal["new", "matched", "unmatched", "ignored"] | None = None,
    kind: Literal["bounce", "delay", "complaint", "reply", "auto_reply", "unrecognised"] | None = None,
    about: str | None = None,
    limit: int = 50,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """List bounces, complaints and answers that came back, the newest first.

    Parameters
    ----------
    status
        new: not read yet; matched with a message; unmatched; ignored: nothing that counts.
    kind
        What they were taken for.
    about
        Only those of this message or entry.
    """
    query = {"client": client, "status": status, "kind": kind, "about": about, "limit": limit}
    none = "nothing of the kind came back; where it comes in: relayd domain set D --bounce-domain bounces.D"
    output.items(control.get(path_of("reports"), query), _COLUMNS, as_json=as_json, none=none)


@app.command
def show(report: str, /, *, raw: bool = False, as_json: AsJson = False, control: Control) -> None:
    """Show one, and what it was taken for.

    Parameters
    ----------
    raw
        As it came, byte for byte.
    """
    if raw:
        sys.stdout.buffer.write(control.get_octets(path_of("reports", report, "content")))
        sys.stdout.buffer.flush()
        return
    output.details(control.get(path_of("reports", report)), _DETAILS, as_json=as_json)


@app.command
def retry(report: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Have one read again that was not matched."""
    reply = control.post(path_of("reports", report, "retry"), {})
    step = f"see what becomes of it: relayd report show {report}"
    output.done(reply, f"report {report} is read again", as_json=as_json, next_step=step)
