"""`relayd limits`."""

from cyclopts import App

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import path_of

app = App(name="limits")


def _bulk(row: Row) -> str:
    return "the same" if row["bulk_limit"] == row["unit_limit"] else output.limit(row["bulk_limit"])


def _window(row: Row) -> str:
    return output.window(row["limit_window"], row["time_zone"], row["kind"].rpartition("_")[2])


_COLUMNS = (
    Column("limit", lambda row: row["kind"].replace("_", " a ")),
    column("whose", whole=True),
    Column("recipients", lambda row: output.limit(row["unit_limit"])),
    Column("of them bulk", _bulk),
    column("used"),
    Column("counted", _window),
    column("turns_at", "turns"),
)


@app.default
def limits(
    *,
    mailbox: str | None = None,
    domain: str | None = None,
    client: str | None = None,
    upstream: str | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """List every limit with what is used of it now and when it turns.

    Parameters
    ----------
    mailbox
        All that this mailbox's mail has to fit.
    domain
        Only the domain's, its mailboxes' and what providers allow them.
    client
        Only the client's own, and those of all that it has.
    upstream
        Only what its provider allows.
    """
    query = {"mailbox": mailbox, "domain": domain, "client": client, "upstream": upstream}
    none = "no limits there; a mailbox's comes with it: relayd mailbox add noreply@example.com --daily-limit 500"
    output.items(control.get(path_of("limits"), query), _COLUMNS, as_json=as_json, none=none)
