"""`relayd suppression`."""

import csv
import sys
from typing import Annotated, Literal

from cyclopts import App, Parameter

from relayd.cli import output, suppression_files
from relayd.cli.output import Column, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import path_of

app = App(name="suppression")

Reason = Annotated[Literal["hard_bounce", "complaint", "manual", "import"] | None, Parameter(name="--reason")]

_SHOWN_BAD = 20
_EXPORTED_AT_ONCE = 5_000
_COLUMNS = (
    column("address", whole=True),
    column("reason"),
    column("created_at", "since"),
    Column("until", lambda row: f"{row['expires_at'][:10]}" if row["expires_at"] else "it is removed"),
    column("detail"),
)


@app.command(name="list")
def list_(
    *,
    client: str,
    reason: Reason = None,
    domain: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """List who gets no more mail from a client, by address.

    Parameters
    ----------
    client
        Whose list.
    reason
        Only for this reason.
    domain
        Only addresses of this domain.
    cursor
        Go on where a list before ended.
    """
    query = {"reason": reason, "domain": domain, "limit": limit, "cursor": cursor}
    reply = control.get(path_of("clients", client, "suppressions"), query)
    output.items(reply, _COLUMNS, as_json=as_json, none=f"nobody is suppressed for client {client}")
    if not as_json and reply.data["cursor"]:
        output.hint(f"there may be more; go on with --cursor {reply.data['cursor']}")


@app.command
def add(
    address: str,
    /,
    *,
    client: str,
    detail: str | None = None,
    days: int | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Let an address get no more mail from a client. What is queued for it goes all the same.

    Parameters
    ----------
    client
        On whose list.
    detail
        Why, for who looks later.
    days
        For how long; by default until it is removed.
    """
    body = {"address": address, **given({"detail": detail, "days": days})}
    reply = control.post(path_of("clients", client, "suppressions"), body)
    step = f"what waits for it already: relayd queue list --recipient {reply.data['address']}"
    output.done(reply, f"{reply.data['address']} is suppressed for client {client}", as_json=as_json, next_step=step)


@app.command
def remove(address: str, /, *, client: str, as_json: AsJson = False, control: Control) -> None:
    """Let an address get mail from a client again.

    Parameters
    ----------
    client
        From whose list.
    """
    reply = control.delete(path_of("clients", client, "suppressions", address))
    output.done(reply, f"{reply.data['address']} is not suppressed for client {client} any more", as_json=as_json)


@app.command(name="import")
def import_(file: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, client: str, control: Control) -> int:
    """Suppress all addresses of a file: one a line, or a CSV as `relayd suppression export` writes it.

    Lines that cannot be used are told and left out; the exit code is then 1. The same file can be given again.

    Parameters
    ----------
    file
        The file, or - for standard input.
    client
        On whose list.
    """
    sums = {"added": 0, "known": 0, "expired": 0}
    bad = 0
    with suppression_files.opened(file) as text:
        for batch in suppression_files.batches(text):
            for problem in batch.bad:
                bad += 1
                if bad <= _SHOWN_BAD:
                    output.hint(f"line {problem.line}: {problem.text}")
            if batch.items:
                reply = control.post(path_of("clients", client, "suppressions", "import"), {"items": batch.items})
                sums = {name: sums[name] + reply.data[name] for name in sums}
    if bad > _SHOWN_BAD:
        output.hint(f"and {bad - _SHOWN_BAD:,} more bad lines")
    output.write(
        f"{sums['added']:,} new, {sums['known']:,} known already, {sums['expired']:,} expired, {bad:,} bad lines"
    )
    return 1 if bad else 0


@app.command
def export(*, client: str, control: Control) -> None:
    """Write a client's list to standard output, as CSV.

    Parameters
    ----------
    client
        Whose list.
    """
    path = path_of("clients", client, "suppressions")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(suppression_files.COLUMNS)
    cursor: str | None = ""
    while cursor is not None:
        data = control.get(path, {"limit": _EXPORTED_AT_ONCE, "cursor": cursor}).data
        for row in data["items"]:
            writer.writerow([row[name] or "" for name in suppression_files.COLUMNS])
        cursor = data["cursor"]
