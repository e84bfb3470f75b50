"""`relayd config`."""

from pathlib import Path

from cyclopts import App

from relayd.cli import output
from relayd.daemon import serve

app = App(name="config", help="Look at a configuration file.")


@app.command
def check(file: Path, /) -> None:
    """Say everything that is wrong with a configuration file, and change nothing."""
    settings, _ = serve.read(file)
    for warning in settings.warnings():
        output.hint(f"warning: {warning}")
    output.write(f"{file}: good")
