"""`relayd event`."""

from typing import Annotated

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import path_of

app = App(name="event")

Kinds = Annotated[list[str] | None, Parameter(name="--kind", negative="", consume_multiple=False)]


def _about(row: Row) -> str:
    payload = row["payload"]
    said = (payload.get(name) for name in ("status", "diagnostic", "because", "reason"))
    return " ".join(each for each in said if isinstance(each, str))


_COLUMNS = (
    column("id", whole=True),
    column("created_at", "time", whole=True),
    column("kind"),
    column("recipient", whole=True),
    column("queue_id", "queue id", whole=True),
    Column("about", _about),
)


@app.command(name="list")
def list_(
    *,
    client: str,
    after: int = 0,
    kinds: Kinds = None,
    limit: int = 100,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """What became of a client's mail, the oldest first: bounced, delayed, relayed, suppressed and so on.

    Parameters
    ----------
    client
        Whose mail.
    after
        Only what came after the event with this id: a program gives the last one that it has read.
    kinds
        Only of this kind; may be repeated.
    limit
        So many at most.
    """
    reply = control.get(path_of("events"), {"client": client, "after": after, "kinds": kinds, "limit": limit})
    none = f"nothing after {after}; bounces become events by: relayd client set {client} --bounces event"
    output.items(reply, _COLUMNS, as_json=as_json, none=none)
    if not as_json and len(reply.data["items"]) == limit:
        output.hint(f"there may be more; go on with --after {reply.data['last']}")
