"""`relayd serve`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from relayd.daemon import serve

app = App(name="serve", help="Serve mail as the configuration says.")


@app.default
def run(*, config: Annotated[Path, Parameter(help="The configuration file.")]) -> None:
    """Serve until SIGTERM. SIGHUP reloads."""
    serve.run(config)
