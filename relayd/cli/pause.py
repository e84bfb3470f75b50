"""`relayd pause`."""

from typing import Annotated

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import Reply, path_of

app = App(name="pause")

Reason = Annotated[str | None, Parameter(help="Shown to whoever asks why mail waits.")]


@app.command
def everything(*, reason: Reason = None, as_json: AsJson = False, control: Control) -> None:
    """Send nothing at all. Mail is still taken, and what is in flight ends."""
    reply = control.post("/v1/pause", given({"reason": reason}))
    _tell(reply, "everything", as_json=as_json)


@app.command
def mailbox(address: str, /, *, reason: Reason = None, as_json: AsJson = False, control: Control) -> None:
    """Send nothing from a mailbox. It still takes mail."""
    reply = control.post(path_of("mailboxes", address, "pause"), given({"reason": reason}))
    _tell(reply, f"mailbox {address}", as_json=as_json)


@app.command
def upstream(name: str, /, *, reason: Reason = None, as_json: AsJson = False, control: Control) -> None:
    """Hand nothing to an upstream."""
    reply = control.post(path_of("upstreams", name, "pause"), given({"reason": reason}))
    _tell(reply, f"upstream {name}", as_json=as_json)


def _tell(reply: Reply, what: str, *, as_json: bool) -> None:
    change = reply.data
    if change["changed"]:
        text = f"{what} is paused ({change['reason']}); what is in flight ends by itself"
    else:
        since = f" since {change['since'][:19]}Z" if change["since"] else ""
        text = f"{what} was paused already{since} ({change['reason'] or 'no reason given'}); nothing was changed"
    output.done(reply, output.readable(text), as_json=as_json, next_step=f"to go on: relayd resume {what}")
