"""`relayd resume`."""

from cyclopts import App

from relayd.cli import output
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import Reply, path_of

app = App(name="resume")


@app.command
def everything(*, as_json: AsJson = False, control: Control) -> None:
    """Send again, after `relayd pause everything`. What was paused by itself stays so."""
    _tell(control.post("/v1/resume", {}), "everything", as_json=as_json)


@app.command
def mailbox(address: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Let a mailbox send again."""
    _tell(control.post(path_of("mailboxes", address, "resume"), {}), f"mailbox {address}", as_json=as_json)


@app.command
def upstream(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Hand mail to an upstream again."""
    _tell(control.post(path_of("upstreams", name, "resume"), {}), f"upstream {name}", as_json=as_json)


def _tell(reply: Reply, what: str, *, as_json: bool) -> None:
    text = f"{what} is resumed" if reply.data["changed"] else f"{what} was not paused; nothing was changed"
    output.done(reply, output.readable(text), as_json=as_json)
