"""`relayd secrets`."""

import json
from typing import Annotated, Any

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import ControlClient, path_of

app = App(name="secrets", help="Sealed values as a whole: passwords, tokens, keys.")

_SUMMED = ("resealed", "current", "changing", "closed")


def _use(row: Row) -> str:
    if row["is_current"]:
        return "seals and opens"
    return "opens" if row["is_loaded"] else "NOT LOADED"


def _may_go(row: Row) -> str:
    return "no" if row["is_current"] or row["values"] else "yes"


_KEYS = (column("id", "key", whole=True), Column("here it", _use), column("values"), Column("may be removed", _may_go))


@app.command
def status(*, as_json: AsJson = False, control: Control) -> int:
    """Say under which keys secrets are sealed, and which keys each node has.

    Exit code 1 if some are sealed with a key that this node does not have.
    """
    reply = control.get(path_of("secrets"))
    if as_json:
        output.write(reply.text)
    else:
        _tell_status(reply.data)
    return 1 if _closed(reply.data) else 0


@app.command
def rotate(
    *,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    anyway: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    control: Control,
) -> int:
    """Seal every secret anew with the current key. Safe to repeat, and to interrupt.

    Exit code 1 if some cannot be opened with any key; they are listed, and stay as they are.

    Parameters
    ----------
    dry_run
        Change nothing; say what would be done, and what cannot be opened.
    anyway
        Even though a node that runs lacks the key. Its mail waits until it has it.
    """
    done = _rotate(control, {"dry_run": dry_run, "anyway": anyway})
    if as_json:
        output.write(json.dumps(done))
    else:
        _tell_rotation(done)
        if not dry_run:
            _tell_status(control.get(path_of("secrets")).data)
    return 1 if done["closed"] or done["changing"] else 0


def _rotate(control: ControlClient, body: dict[str, Any]) -> dict[str, Any]:
    """The server works for some seconds a request: go on until it says that nothing is left."""
    done: dict[str, Any] = control.post(path_of("secrets", "rotate"), body).data
    while done["cursor"]:
        output.hint(f"{done['resealed']:,} sealed anew …")
        following = control.post(path_of("secrets", "rotate"), {**body, "cursor": done["cursor"]}).data
        done |= {name: done[name] + following[name] for name in _SUMMED} | {"cursor": following["cursor"]}
    return done


def _tell_rotation(done: dict[str, Any]) -> None:
    verb = "would be sealed" if done["dry_run"] else "sealed"
    output.write(f"{done['resealed']:,} {verb} anew with key {done['key']}, {done['current']:,} were already")
    if done["changing"]:
        output.write(f"{done['changing']:,} changed all the while: rotate again")
    for each in done["closed"]:
        output.write(f"cannot be opened: {each['label']}: {each['reason']}")
    if done["closed"]:
        output.hint("add the key that they name to seal.older_key_files and reload; if it is lost, set them anew")


def _tell_status(data: Row) -> None:
    output.table(data["keys"], _KEYS)
    for node in data["nodes"]:
        older = [key for key in node["opening_keys"] if key != node["sealing_key"]]
        also = f", also opens {', '.join(older)}" if older else ""
        output.write(f"node {node['name']} seals with {node['sealing_key']}{also}")
    if data["silent_nodes"]:
        output.write(f"{data['silent_nodes']} more of an older version, which cannot say which keys they have")
    for place in data["places"]:
        if place["key"] is None:
            output.write(f"{place['column']}: {place['values']:,} that are no sealed values")
    if _closed(data):
        output.hint("relayd secrets rotate --dry-run lists what cannot be opened")
    elif any(not key["is_current"] and key["values"] for key in data["keys"]):
        output.hint("to seal them anew with the current key: relayd secrets rotate")
    elif any(not key["is_current"] for key in data["keys"]):
        output.hint("nothing needs the older keys: take them out of seal.older_key_files, on every node, and reload")


def _closed(data: Row) -> bool:
    unloaded = any(key["values"] and not key["is_loaded"] for key in data["keys"])
    return unloaded or any(place["key"] is None for place in data["places"])
