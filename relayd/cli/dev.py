"""`relayd dev`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from relayd.daemon import dev

app = App(name="dev", help="Try relayd on this machine: embedded Postgres, no login, mail is captured.")

Port = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))]


@app.default
def run(
    *,
    state: Path | None = None,
    smtp_port: Port = 2525,
    http_port: Port = 8025,
    postgres_user: str | None = None,
) -> None:
    """Start, tell what to try, serve until Ctrl-C.

    Parameters
    ----------
    state
        Where everything is kept; by default /var/lib/relayd as root, else $XDG_STATE_HOME/relayd.
    smtp_port
        Port on 127.0.0.1 for SMTP.
    http_port
        Port on 127.0.0.1 for /metrics, /healthz and /readyz.
    postgres_user
        As root: the user that Postgres runs as.
    """
    dev.run(state or dev.default_state(), smtp_port=smtp_port, http_port=http_port, run_as=postgres_user)
