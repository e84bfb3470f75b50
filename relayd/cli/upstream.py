"""`relayd upstream`."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from relayd.cli import output, quota
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import path_of
from relayd.errors import RelaydError

app = App(name="upstream")
app.command(quota.quota)


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """What can be said of an upstream when it is added and later.

    Attributes
    ----------
    host
        Where smtp_relay connects.
    port
        By default 587 with starttls, 465 with implicit, 25 with none.
    tls
        By default starttls.
    ca_file
        Trust these certificates (a path on the server) instead of the system's.
    password_file
        A file with the password in it, or - for standard input.
    allow_plaintext_auth
        Permit the password to cross the network without TLS.
    ehlo_name
        The name that relayd greets with; by default its host name.
    source_address
        The local address to connect from.
    max_connections
        At once, from each node.
    max_recipients
        In one transaction.
    on_uncertain
        What to do when nobody can know whether a message was taken: send it again, or hold it.
    directory
        The Maildir that capture delivers into, on the server.
    """

    host: str | None = None
    port: int | None = None
    tls: Literal["none", "starttls", "implicit"] | None = None
    verify_certificate: bool | None = None
    ca_file: str | None = None
    username: str | None = None
    password_file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    auth_mechanism: Literal["PLAIN", "LOGIN"] | None = None
    allow_plaintext_auth: bool | None = None
    ehlo_name: str | None = None
    source_address: str | None = None
    max_connections: int | None = None
    max_recipients: int | None = None
    max_messages_per_connection: int | None = None
    on_uncertain: Literal["retry", "hold"] | None = None
    directory: str | None = None
    sender_address: str | None = None
    sender_name: str | None = None


def _place(row: Row) -> str:
    return str(row["directory"]) if row["provider"] == "capture" else f"{row['host']}:{row['port']}"


def _state(row: Row) -> str:
    return "paused" if row["paused_at"] else "active" if row["is_active"] else "inactive"


_COLUMNS = (
    column("name", whole=True),
    column("provider"),
    Column("to", _place),
    column("tls"),
    column("username"),
    Column("client", lambda row: row["client"] or "all"),
    Column("state", _state),
)
_DETAILS = (
    column("id"),
    *_COLUMNS,
    column("verify_certificate"),
    column("ca_file"),
    column("has_password"),
    column("auth_mechanism"),
    column("allow_plaintext_auth"),
    column("ehlo_name"),
    column("source_address"),
    column("max_connections"),
    column("max_recipients"),
    column("max_messages_per_connection"),
    column("on_uncertain"),
    column("sender_address"),
    column("sender_name"),
    column("paused_reason"),
    column("created_at", "created"),
    column("updated_at", "changed"),
)


@app.command
def add(
    name: str,
    /,
    *,
    provider: Literal["smtp_relay", "capture", "google_workspace", "sendgrid"],
    client: str | None = None,
    options: Options | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Add an upstream.

    Parameters
    ----------
    provider
        smtp_relay hands mail to a server; capture keeps it in a Maildir. The others are not supported yet.
    client
        Only this client's mailboxes may use it.
    """
    body = {"name": name, "provider": provider, **given({"client": client}), **_body(options)}
    reply = control.post(path_of("upstreams"), body)
    step = f"next, who sends through it: relayd mailbox add noreply@example.com --upstream {name}"
    output.done(reply, f"upstream {name} added", as_json=as_json, next_step=step)


@app.command(name="list")
def list_(*, client: str | None = None, as_json: AsJson = False, control: Control) -> None:
    """List the upstreams.

    Parameters
    ----------
    client
        Only those that it may use.
    """
    reply = control.get(path_of("upstreams"), {"client": client})
    none = "no upstreams yet; add one: relayd upstream add NAME --provider smtp_relay --host HOST"
    output.items(reply, _COLUMNS, as_json=as_json, none=none)


@app.command
def show(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show an upstream; never its password."""
    output.details(control.get(path_of("upstreams", name)), _DETAILS, as_json=as_json)


@app.command(name="set")
def set_(
    name: str,
    /,
    *,
    options: Options | None = None,
    no_login: Annotated[bool, Parameter(negative="")] = False,
    active: Annotated[bool | None, Parameter(negative="--inactive")] = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Change an upstream; what is not given stays.

    Parameters
    ----------
    no_login
        Forget its username and password.
    active
        An inactive upstream takes no mail; what is queued for it waits.
    """
    body = _body(options) | given({"is_active": active})
    if no_login:
        body |= {"username": None, "password": None}
    output.done(control.patch(path_of("upstreams", name), body), f"upstream {name} changed", as_json=as_json)


@app.command
def remove(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Remove an upstream that no mailbox sends through."""
    output.done(control.delete(path_of("upstreams", name)), f"upstream {name} removed", as_json=as_json)


def _body(options: Options | None) -> dict[str, Any]:
    body = given(asdict(options)) if options else {}
    password_file = body.pop("password_file", None)
    if password_file is not None:
        body["password"] = _password(password_file)
    return body


def _password(file: str) -> str:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RelaydError(f"cannot read the password from {file}: {reason}") from None
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise RelaydError(f"there is no password in {file}")
    return password
