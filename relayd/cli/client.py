"""`relayd client`."""

from cyclopts import App

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import path_of

app = App(name="client")

_COLUMNS = (
    column("name", whole=True),
    column("tier"),
    column("status"),
    column("may_send_bounces", "bounces"),
    column("created_at", "created"),
)


def _share(noun: str, title: str) -> Column:
    def shown(row: Row) -> str:
        share = row[noun]
        if share is None:
            return "the tier is not configured"
        return f"{share['count']} of {share['limit']}" if share["limit"] is not None else f"{share['count']}, no limit"

    return Column(title, shown)


_DETAILS = (
    column("id"),
    *_COLUMNS,
    _share("domains", "domains"),
    _share("mailboxes", "mailboxes"),
    _share("dedicated_ips", "dedicated IPs"),
    column("updated_at", "changed"),
)


@app.command
def add(
    name: str, /, *, tier: str = "Ignition", may_send_bounces: bool = False, as_json: AsJson = False, control: Control
) -> None:
    """Add a client.

    Parameters
    ----------
    name
        Lower-case letters, digits, dots and hyphens.
    tier
        How much it may have: Ignition, Velocity, Dominance, or one of the configuration's [[tiers]].
    may_send_bounces
        Let its apps use the null reverse-path.
    """
    reply = control.post(path_of("clients"), {"name": name, "tier": tier, "may_send_bounces": may_send_bounces})
    step = f"next, the domain it sends from: relayd domain add example.com --client {name}"
    output.done(reply, f"client {name} added", as_json=as_json, next_step=step)


@app.command(name="list")
def list_(*, as_json: AsJson = False, control: Control) -> None:
    """List the clients."""
    reply = control.get(path_of("clients"))
    output.items(reply, _COLUMNS, as_json=as_json, none="no clients yet; add one: relayd client add NAME")


@app.command
def show(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show a client."""
    output.details(control.get(path_of("clients", name)), _DETAILS, as_json=as_json)


@app.command(name="set")
def set_(
    name: str,
    /,
    *,
    tier: str | None = None,
    status: str | None = None,
    may_send_bounces: bool | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Change a client; what is not given stays.

    Parameters
    ----------
    tier
        One that allows what the client has now.
    status
        active, or suspended: its mail is refused, and what is queued waits.
    """
    changes = {"tier": tier, "status": status, "may_send_bounces": may_send_bounces}
    reply = control.patch(path_of("clients", name), given(changes))
    output.done(reply, f"client {name} changed", as_json=as_json)


@app.command
def remove(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Remove a client that has nothing left."""
    output.done(control.delete(path_of("clients", name)), f"client {name} removed", as_json=as_json)
