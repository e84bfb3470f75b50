"""`relayd doctor`."""

from cyclopts import App

from relayd.cli import output
from relayd.cli.output import column
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import path_of

app = App(name="doctor")

_COLUMNS = (column("upstream", whole=True), column("check"), column("result"), column("what", "what was seen"))


@app.command
def google(name: str | None = None, /, *, as_json: AsJson = False, control: Control) -> int:
    """Look what is wrong with Google upstreams, and what mends it. Sends nothing; the exit code is 1 for a problem.

    Parameters
    ----------
    name
        One upstream; by default all of Google's.
    """
    reply = control.get(path_of("doctor", "google"), {"name": name})
    none = "no Google upstreams; add one: relayd upstream add NAME --provider google_workspace"
    output.items(reply, _COLUMNS, as_json=as_json, none=none)
    problems = [each for each in reply.data["items"] if each["result"] == "problem"]
    if not as_json:
        for each in reply.data["items"]:
            if each["cure"]:
                output.hint(f"{each['upstream']}, {each['check']}: {each['cure']}")
    return 1 if problems else 0
