"""`relayd explain`."""

from cyclopts import App

from relayd.cli import entries, output
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import path_of

app = App(name="explain")


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
    for row in data["entries"]:
        output.write("")
        output.heading(f"{row['recipient']}: {row['where']}")
        entries.paragraph(row["sentence"])
        if row["goes_at"] and row["where"] not in ("due", "sending"):
            entries.paragraph(f"goes: about {entries.when(row['goes_at'], now)}")
        if row["next_step"]:
            entries.paragraph(f"next: {row['next_step']}")
        entries.log(row["log"])
    entries.more_entries(len(data["entries"]), data["total"])
