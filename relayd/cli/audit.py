"""`relayd audit`."""

import json
from datetime import UTC, datetime
from typing import Any

from cyclopts import App

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control
from relayd.cli.times import since_when
from relayd.control.client import path_of

app = App(name="audit")

_SHOWN = 60


def _changes(row: Row) -> list[str]:
    if row["action"] == "insert":
        return []
    return [f"{change['column']}: {_short(change['before'])} -> {_short(change['after'])}" for change in row["changes"]]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


_COLUMNS = (
    column("created_at", "time", whole=True),
    column("actor"),
    column("action"),
    column("table"),
    column("row", whole=True),
    Column("changes", _changes),
)


@app.command(name="list")
def list_(
    *,
    table: str | None = None,
    row: str | None = None,
    actor: str | None = None,
    since: str | None = None,
    limit: int = 50,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Who changed what, the newest first. Secrets are masked.

    Parameters
    ----------
    table
        Only of this noun (client, domain, mailbox, upstream, credential, key) or table.
    row
        Only of the thing with this name.
    actor
        Only by this user.
    since
        Only after this time, or not longer ago than this: 2026-11-21T08:00, 90m, 12h, 7d.
    """
    when = since_when(since, datetime.now(UTC)).isoformat() if since else None
    query = {"table": table, "row": row, "actor": actor, "since": when, "limit": limit}
    reply = control.get(path_of("audit"), query)
    output.items(reply, _COLUMNS, as_json=as_json, none="nothing that matches was changed")
