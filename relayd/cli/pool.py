"""`relayd pool`."""

from typing import Annotated

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.output import column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import path_of

app = App(name="pool")
member = App(name="member", help="The mailboxes of a pool.")
app.command(member)

_COLUMNS = (
    column("name", whole=True),
    column("client"),
    column("members"),
    column("credentials"),
    column("domains"),
)
_DETAILS = (
    column("id"),
    *_COLUMNS,
    column("may_rewrite_from"),
    column("created_at", "created"),
    column("updated_at", "changed"),
)


@app.command
def add(name: str, /, *, client: str, as_json: AsJson = False, control: Control) -> None:
    """Add a pool: mailboxes that send in each other's place.

    Parameters
    ----------
    client
        Whose it is; all its mailboxes are that client's.
    """
    reply = control.post(path_of("pools"), {"name": name, "client": client})
    next_step = f"put mailboxes into it: relayd pool member add {name} ADDRESS --client {client}"
    output.done(reply, f"pool {name} added", as_json=as_json, next_step=next_step)


@app.command(name="list")
def list_(*, client: str | None = None, as_json: AsJson = False, control: Control) -> None:
    """List the pools.

    Parameters
    ----------
    client
        Only its own.
    """
    reply = control.get(path_of("pools"), {"client": client})
    output.items(reply, _COLUMNS, as_json=as_json, none="no pools yet; add one: relayd pool add NAME --client NAME")


@app.command
def show(name: str, /, *, client: str, as_json: AsJson = False, control: Control) -> None:
    """Show a pool: its mailboxes, and whose mail it sends.

    Parameters
    ----------
    client
        Whose it is.
    """
    output.details(control.get(_path(client, name)), _DETAILS, as_json=as_json)


@app.command(name="set")
def set_(
    name: str,
    /,
    *,
    client: str,
    rewrite_from: Annotated[bool | None, Parameter(negative="--keep-from")] = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Change a pool; what is not given stays.

    Parameters
    ----------
    client
        Whose it is.
    rewrite_from
        Let the sending mailbox's address take the place of header From.
    """
    body = given({"may_rewrite_from": rewrite_from})
    output.done(control.patch(_path(client, name), body), f"pool {name} changed", as_json=as_json)


@app.command
def remove(name: str, /, *, client: str, as_json: AsJson = False, control: Control) -> None:
    """Remove a pool that no credential and no domain uses; its mailboxes stay.

    Parameters
    ----------
    client
        Whose it is.
    """
    output.done(control.delete(_path(client, name)), f"pool {name} removed", as_json=as_json)


@member.command(name="add")
def add_member(name: str, address: str, /, *, client: str, as_json: AsJson = False, control: Control) -> None:
    """Put a mailbox into a pool.

    Parameters
    ----------
    client
        Whose both are.
    """
    reply = control.post(_path(client, name, "members", address), {})
    next_step = (
        f"who sends by it: relayd credential set LOGIN --pool {name}, or relayd domain set DOMAIN --default-pool {name}"
    )
    output.done(reply, f"mailbox {address} is in pool {name}", as_json=as_json, next_step=next_step)


@member.command(name="remove")
def remove_member(name: str, address: str, /, *, client: str, as_json: AsJson = False, control: Control) -> None:
    """Take a mailbox out of a pool; what is queued in it stays there.

    Parameters
    ----------
    client
        Whose both are.
    """
    reply = control.delete(_path(client, name, "members", address))
    output.done(reply, f"mailbox {address} is not in pool {name} any more", as_json=as_json)


def _path(client: str, name: str, *more: str) -> str:
    return path_of("clients", client, "pools", name, *more)
