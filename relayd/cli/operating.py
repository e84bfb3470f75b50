"""How a command that acts on queue entries asks first, goes on until all is done, and tells what it did."""

import json
import sys
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
        selected = reply.data["selected"]
        if as_json:
            output.write(reply.text)
            return 1
        if not _agreed(verb, selected, reply.data.get("suppressed", 0), reply.data["note"]):
            output.hint("nothing was changed")
            return 1
        body = {**body, "confirm_count": selected}
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


def _agreed(verb: str, selected: int, suppressed: int, note: str | None) -> bool:
    warning = _warning(selected, suppressed)
    question = f"{warning}{verb} {_entries(selected)}" + (f" ({note})" if note else "") + "?"
    if not sys.stdin.isatty():
        raise Refusal(
            f"{warning}{_entries(selected)} match; nothing was changed",
            hint=f"to {verb} them: --count {selected}, or --yes",
        )
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _warning(selected: int, suppressed: int) -> str:
    if not suppressed:
        return ""
    which = "its address is" if selected == 1 else f"the addresses of {suppressed:,} are"
    return f"{which} suppressed (relayd suppression list), and a retry sends there all the same; "


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
