"""`relayd reload`."""

from cyclopts import App

from relayd.cli import output
from relayd.cli.parameters import AsJson, Control

app = App(name="reload")

# New workers have a minute to start, and old ones finish the session that they are in.
TIMEOUT_SECONDS = 180.0


@app.default
def reload(*, as_json: AsJson = False, control: Control) -> None:
    """Take the configuration file anew. Waits until the new settings are in force; exit code 1 if they are refused."""
    reply = control.post("/v1/reload", {}, timeout_seconds=TIMEOUT_SECONDS)
    changed, needs_restart = reply.data["changed"], reply.data["needs_restart"]
    text = f"reloaded; changed: {', '.join(changed)}" if changed else "reloaded; no setting changed"
    if needs_restart:
        text += f"\nnot reloaded, needs a restart: {', '.join(needs_restart)}"
    output.done(reply, output.readable(text), as_json=as_json)
