"""`relayd upstream test`."""

from typing import Annotated

from cyclopts import Parameter

from relayd.cli import output
from relayd.cli.output import Row
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import path_of

_FAILED = 1
_INDENT = " " * 28
# How often it says what it waits for.
_LOOK_SECONDS = 5.0
_AWAITED = {
    "dns": "the name has not been looked up yet",
    "tcp": "no address has taken the connection yet",
    "greeting": "the server has not greeted yet",
    "other addresses": "it works, but not every address has answered yet",
    "data": "the server has not said yet whether it takes the message",
}


def try_out(
    name: str,
    /,
    *,
    to: str,
    sender: Annotated[str | None, Parameter(name="--from")] = None,
    send: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    control: Control,
) -> int:
    """Try an upstream: look up, connect, TLS, EHLO, login, MAIL, RCPT; each with its time, result and cure.

    Parameters
    ----------
    to
        A recipient that the upstream should take mail for.
    sender
        Who sends; by default the upstream's own sender, or one of its mailboxes.
    send
        Send a small message, too. It is not queued and counts against no limit of relayd's.
    """
    asked = {"to": to, "send": send, "wait_seconds": _LOOK_SECONDS, **given({"sender": sender})}
    reply = control.post(path_of("upstreams", name, "test"), asked)
    while not reply.data["is_finished"]:
        if waiting := reply.data["waiting"]:
            what = _AWAITED.get(waiting["step"], f"step {waiting['step']} has not ended yet")
            output.hint(f"{what}, after {waiting['seconds']:.0f} s …")
        reply = control.get(path_of("upstreams", name, "test", reply.data["trial"]), {"wait_seconds": _LOOK_SECONDS})
    if as_json:
        output.write(reply.text)
    else:
        for step in reply.data["steps"]:
            _print(step)
        for step in reply.data["steps"]:
            if step["warning"]:
                output.hint(f"mind: {step['warning']}")
        if reply.data["is_ok"]:
            output.hint(f"upstream {name} works" if send else f"upstream {name} works; --send sends a small message")
    return 0 if reply.data["is_ok"] else _FAILED


def _print(step: Row) -> None:
    state = "FAILED" if not step["is_ok"] else "WARN" if step["warning"] else "ok"
    output.write(f"{step['name']:<9}  {state:<6}  {step['seconds']:>6.3f} s  {output.readable(step['result'])}")
    for detail in step["details"]:
        output.write(_INDENT + output.readable(detail))
    if step["warning"]:
        output.write(f"{_INDENT}!! {output.readable(step['warning'])}")
    if step["cure"]:
        output.write(f"{_INDENT}-> {output.readable(step['cure'])}")
