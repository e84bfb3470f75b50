"""How a command that acts on queue entries asks first, goes on until all is done, and tells what it did."""

import json
import sys
from shlex import quote
from typing import Annotated, Any

from cyclopts import Parameter

from relayd.cli import output
from relayd.cli.parameters import given
from relayd.control.client import ControlClient, Reply, path_of
from relayd.errors import Refusal

_DONE = {
    "hold": "held",
    "release": "released",
    "retry": "made due now",
    "cancel": "cancelled",
    "resolve": "resolved",
}
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do not ask, however many match.")]
Count = Annotated[int | None, Parameter(help="Do not ask, but only if exactly so many match.")]
Reason = Annotated[str | None, Parameter(help="Why: for the log and for who looks later.")]


def operate(
    control: ControlClient,
    verb: str,
    body: dict[str, Any],
    *,
    yes: bool,
    count: int | None,
    as_json: bool,
    path: str | None = None,
) -> int:
    """Ask, act, tell. The exit code: 1 if nothing was done for want of a confirmation.

    `path` is where the control socket does it: that of the verb unless told otherwise.
    """
    path = path or path_of("queue", verb)
    confirmed = given({"any_count": yes or None, "confirm_count": count})
    if body.keys() <= {"reason", "answer"}:
        raise Refusal(f"say what to {verb}: ids, or options such as --state queued or --mailbox ADDRESS")
    reply = control.post(path, {**body, **confirmed})
    if reply.data["needs_confirmation"]:
        if as_json:
            output.write(reply.text)
            return 1
        if not _agreed(verb, reply.data):
            output.hint("nothing was changed")
            return 1
        body = {**body, "confirm_count": reply.data["selected"]}
        if reply.data.get("suppressed_count"):
            body["suppressed_too"] = True
        reply = control.post(path, body)
    done = _finish(control, path, verb, body, reply)
    if as_json:
        output.write(json.dumps(done))
    else:
        _tell(verb, done)
    return 0


def _finish(control: ControlClient, path: str, verb: str, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """The server works for some seconds a request: go on until it says that nothing is left."""
    done: dict[str, Any] = dict(reply.data)
    while done["cursor"]:
        output.hint(f"{done['changed']:,} of {done['selected']:,} {_DONE[verb]} …")
        following = control.post(path, {**body, "cursor": done["cursor"]}).data
        done |= {"changed": done["changed"] + following["changed"], "cursor": following["cursor"]}
    return done


def _agreed(verb: str, data: dict[str, Any]) -> bool:
    """Ask on a terminal. Without one, raise Refusal with what to do."""
    selected, suppressed = data["selected"], data.get("suppressed_count", 0)
    notes = [data["note"]] if data["note"] else []
    if suppressed:
        _name_suppressed(data)
        notes.append(f"{suppressed:,} to a suppressed address")
    question = f"{verb} {_entries(selected)}" + (f" ({'; '.join(notes)})" if notes else "") + "?"
    if not sys.stdin.isatty():
        if suppressed:
            first = data["suppressed"][0]
            lift = f"relayd suppression remove {quote(first['recipient'])} --client {first['client']}"
            raise Refusal(
                f"{_entries(suppressed)} would go to a suppressed address; nothing was changed",
                hint=f"to write to it again: {lift}; to {verb} all the same: --yes",
            )
        raise Refusal(
            f"{_entries(selected)} match; nothing was changed", hint=f"to {verb} them: --count {selected}, or --yes"
        )
    return _asked(question)


def agreed(what: str, *, yes: bool) -> bool:
    """Ask before `what` (an imperative) is done. Without a terminal or --yes raise Refusal."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Refusal("nothing was changed: this needs your consent", hint=f"to {what}: --yes")
    if _asked(f"{what}?"):
        return True
    output.hint("nothing was changed")
    return False


def _asked(question: str) -> bool:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _name_suppressed(data: dict[str, Any]) -> None:
    for each in data["suppressed"]:
        until = f"until {each['expires_at']}" if each["expires_at"] else "until it is removed from the list"
        reason = each["reason"].replace("_", " ")
        line = f"{each['recipient']} is suppressed for client {each['client']} {until}: {reason}"
        output.hint(output.readable(line))
    if more := data["suppressed_count"] - len(data["suppressed"]):
        output.hint(f"and {more:,} more")


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
