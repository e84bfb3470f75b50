"""`relayd config`."""

from pathlib import Path

from cyclopts import App

from relayd.cli import output
from relayd.daemon import serve

app = App(name="config", help="Look at a configuration file.")


@app.command
def check(file: Path, /) -> None:
    """Say everything that is wrong with a configuration file, and change nothing."""
    serve.read(file)
    output.write(f"{file}: good")
