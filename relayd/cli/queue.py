"""`relayd queue`."""

import json
import sys
from datetime import datetime
from typing import Annotated, Any

from cyclopts import App, Parameter

from relayd.cli import entries, output
from relayd.cli.filters import Selected, selecting
from relayd.cli.output import Column, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import ControlClient, Reply, path_of
from relayd.errors import Refusal
from relayd.rules.duration import from_now
from relayd.rules.states import LIVE

app = App(name="queue")

_DONE = {"hold": "held", "release": "released", "retry": "made due now", "cancel": "cancelled"}
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do not ask, however many match.")]
Count = Annotated[int | None, Parameter(help="Do not ask, but only if exactly so many match.")]
Reason = Annotated[str | None, Parameter(help="Why: for the log and for who looks later.")]


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
    return _operate(control, "hold", body, yes=yes, count=count, as_json=as_json)


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
    return _operate(control, "release", body, yes=yes, count=count, as_json=as_json)


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
        Failed and bounced ones too, with a fresh budget of attempts.
    """
    body = {**selecting(ids, filters), **given({"reason": reason}), "failed_too": failed}
    return _operate(control, "retry", body, yes=yes, count=count, as_json=as_json)


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
    return _operate(control, "cancel", body, yes=yes, count=count, as_json=as_json)


def _operate(
    control: ControlClient, verb: str, body: dict[str, Any], *, yes: bool, count: int | None, as_json: bool
) -> int:
    """The exit code: 1 if nothing was done for want of a confirmation."""
    confirmed = given({"any_count": yes or None, "confirm_count": count})
    if body.keys() <= {"reason"}:
        raise Refusal(f"say what to {verb}: ids, or options such as --state queued or --mailbox ADDRESS")
    reply = control.post(path_of("queue", verb), {**body, **confirmed})
    if reply.data["needs_confirmation"]:
        selected = reply.data["selected"]
        if as_json:
            output.write(reply.text)
            return 1
        if not _agreed(verb, selected, reply.data["note"]):
            output.hint("nothing was changed")
            return 1
        body = {**body, "confirm_count": selected}
        reply = control.post(path_of("queue", verb), body)
    done = _finish(control, verb, body, reply)
    if as_json:
        output.write(json.dumps(done))
    else:
        _tell(verb, done)
    return 0


def _finish(control: ControlClient, verb: str, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """The server works for some seconds a request: go on until it says that nothing is left."""
    done: dict[str, Any] = dict(reply.data)
    while done["cursor"]:
        output.hint(f"{done['changed']:,} of {done['selected']:,} {_DONE[verb]} …")
        following = control.post(path_of("queue", verb), {**body, "cursor": done["cursor"]}).data
        done |= {"changed": done["changed"] + following["changed"], "cursor": following["cursor"]}
    return done


def _agreed(verb: str, selected: int, note: str | None) -> bool:
    question = f"{verb} {_entries(selected)}" + (f" ({note})" if note else "") + "?"
    if not sys.stdin.isatty():
        raise Refusal(
            f"{_entries(selected)} match; nothing was changed", hint=f"to {verb} them: --count {selected}, or --yes"
        )
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell(verb: str, done: dict[str, Any]) -> None:
    output.write(f"{_entries(done['changed'])} {_DONE[verb]}")
    for status, many in done["left_alone"].items():
        are, were = ("is", "was") if many == 1 else ("are", "were")
        what = "being sent right now" if status == "sending" else status
        output.write(f"{many:,} {are} {what} and {were} left alone")
    if missed := done["selected"] - done["changed"]:
        output.write(f"{missed:,} could not be {_DONE[verb]}: changed meanwhile, or not in a state for it")
    if done["note"]:
        output.hint(done["note"])


def _entries(many: int) -> str:
    return "1 entry" if many == 1 else f"{many:,} entries"


def _due(row: output.Row, now: datetime) -> str:
    return from_now(entries.instant(row["next_attempt_at"]), now) if row["status"] == "queued" else "-"
