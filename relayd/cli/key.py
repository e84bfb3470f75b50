"""`relayd key`."""

from cyclopts import App

from relayd.cli import output
from relayd.seal import new_key

app = App(name="key", help="Sealing keys.")


@app.command
def new() -> None:
    """Print a new sealing key. Keep it in a file of mode 0600 that `seal.key_file` names, and a copy elsewhere."""
    output.write(new_key())
