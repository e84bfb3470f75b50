"""`relayd queue`."""

from datetime import datetime
from typing import Annotated

from cyclopts import App, Parameter

from relayd.cli import entries, output, uncertain
from relayd.cli.filters import Selected, selecting
from relayd.cli.operating import Count, Reason, Yes, operate
from relayd.cli.output import Column, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import path_of
from relayd.rules.duration import from_now
from relayd.rules.states import LIVE

app = App(name="queue")
app.command(uncertain.app)


@app.command(name="list")
def list_(
    *ids: str,
    filters: Selected = None,
    limit: int = 50,
    cursor: str | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """List queue entries, oldest first: those that are not settled, unless a state or an id is asked for.

    Parameters
    ----------
    ids
        Queue ids, or entries'.
    cursor
        Go on where a list before ended.
    """
    reply = control.get(path_of("queue"), {**selecting(ids, filters), "limit": limit, "cursor": cursor})
    now = entries.instant(reply.data["now"])
    columns = (
        column("entry_id", "id", whole=True),
        Column("age", lambda row: entries.age(row["created_at"], now)),
        Column("state", entries.state),
        column("mailbox"),
        column("recipient", whole=True),
        Column("due", lambda row: _due(row, now)),
        column("reason"),
    )
    output.items(reply, columns, as_json=as_json, none="no such entries")
    if as_json:
        return
    if reply.data["note"]:
        output.hint(reply.data["note"])
    if any(row["status"] in LIVE for row in reply.data["items"]):
        output.hint("why one waits, and when it goes: relayd explain ID")
    if reply.data["more"]:
        output.hint(f"{reply.data['more']:,} more; go on with --cursor {reply.data['cursor']}")


@app.command
def show(some_id: str, /, *, limit: int = 100, as_json: AsJson = False, control: Control) -> None:
    """Show a message's entries, or one entry, with everything that happened to them.

    Parameters
    ----------
    some_id
        A queue id, or an entry's.
    limit
        So many recipients at most.
    """
    reply = control.get(path_of("queue", some_id), {"limit": limit})
    if as_json:
        return output.write(reply.text)
    data, now = reply.data, entries.instant(reply.data["now"])
    first = data["entries"][0]
    output.heading(f"message {data['queue_id']}: {first['subject'] or '(no subject)'}")
    entries.fields(
        (
            ("mailbox", f"{first['mailbox']} of client {first['client']}"),
            ("reverse-path", f"<{first['reverse_path']}>"),
            ("size", f"{first['size_octets']:,} bytes"),
            ("accepted", entries.when(first["created_at"], now)),
        )
    )
    for row in data["entries"]:
        output.write("")
        entries.entry(row, entries.of_entry(data["log"], row["entry_id"]), now)
    entries.more_entries(len(data["entries"]), data["total"])
    if any(row["status"] in LIVE for row in data["entries"]):
        output.hint(f"why it waits, and when it goes: relayd explain {some_id}")


@app.command
def hold(
    *ids: str,
    filters: Selected = None,
    yes: Yes = False,
    count: Count = None,
    reason: Reason = None,
    as_json: AsJson = False,
    control: Control,
) -> int:
    """Keep queued entries until they are released.

    Parameters
    ----------
    ids
        Queue ids, or entries'. Without any, the options below choose.
    """
    body = {**selecting(ids, filters), **given({"reason": reason})}
    return operate(control, "hold", body, yes=yes, count=count, as_json=as_json)


@app.command
def release(
    *ids: str,
    filters: Selected = None,
    yes: Yes = False,
    count: Count = None,
    reason: Reason = None,
    as_json: AsJson = False,
    control: Control,
) -> int:
    """Let held entries go, and those in doubt go again: they are due at once.

    Parameters
    ----------
    ids
        Queue ids, or entries'; scheduled ones go at once, too. Without any, the options below choose.
    """
    body = {**selecting(ids, filters), **given({"reason": reason})}
    return operate(control, "release", body, yes=yes, count=count, as_json=as_json)


@app.command
def retry(
    *ids: str,
    filters: Selected = None,
    failed: Annotated[bool, Parameter(negative="")] = False,
    yes: Yes = False,
    count: Count = None,
    reason: Reason = None,
    as_json: AsJson = False,
    control: Control,
) -> int:
    """Try queued entries now instead of later.

    Parameters
    ----------
    ids
        Queue ids, or entries'. Without any, the options below choose.
    failed
        Failed and bounced ones too, with a fresh budget of attempts. Asks first if a recipient is suppressed.
    """
    body = {**selecting(ids, filters), **given({"reason": reason}), "failed_too": failed, "suppressed_too": yes}
    return operate(control, "retry", body, yes=yes, count=count, as_json=as_json)


@app.command
def cancel(
    *ids: str,
    filters: Selected = None,
    yes: Yes = False,
    count: Count = None,
    reason: Reason = None,
    as_json: AsJson = False,
    control: Control,
) -> int:
    """Give up what waits. No bounce is sent.

    Parameters
    ----------
    ids
        Queue ids, or entries'. Without any, the options below choose.
    """
    body = {**selecting(ids, filters), **given({"reason": reason})}
    return operate(control, "cancel", body, yes=yes, count=count, as_json=as_json)


def _due(row: output.Row, now: datetime) -> str:
    return from_now(entries.instant(row["next_attempt_at"]), now) if row["status"] == "queued" else "-"
