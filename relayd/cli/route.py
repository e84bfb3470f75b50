"""`relayd route`."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.cli.ways import Listed, listed
from relayd.control.client import Reply, path_of

app = App(name="route")

Sender = Annotated[str | None, Parameter(name="--from")]


def _share(row: Row) -> str:
    return "in order" if row["share"] is None else f"{row['share']:.0%}"


def _state(row: Row) -> str:
    if not row["breaker_reason"]:
        return str(row["state"])
    again = f", tried again {row['retry_at'][:10]} {row['retry_at'][11:19]}Z" if row["retry_at"] else ""
    return f"{row['state']}{again}: {row['breaker_reason']}"


_COLUMNS = (
    column("name", whole=True),
    Column("client", lambda row: row["client"] or "all"),
    column("mailbox"),
    column("recipient_domain"),
    column("header_from", "from"),
    column("upstreams"),
    column("position"),
)
_DETAILS = (
    column("id"),
    *_COLUMNS,
    column("allow_misaligned"),
    column("created_at", "created"),
    column("updated_at", "changed"),
)
_TESTED = (
    column("name", "upstream", whole=True),
    Column("share", _share),
    column("goes_through", "now through"),
    Column("state", _state),
    Column("aligned", lambda row: "not known" if row["aligned"] is None else row["aligned"]),
    column("why"),
)


@app.command
def add(
    name: str,
    /,
    *,
    upstreams: Listed,
    client: str | None = None,
    mailbox: str | None = None,
    recipient_domain: str | None = None,
    sender: Sender = None,
    position: int | None = None,
    allow_misaligned: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Add a route: mail that fits all that is said here goes through these upstreams, what waits too.

    Parameters
    ----------
    upstreams
        a,b in order, each when those before it do not work; a=70,b=30 by weight.
    client
        Only this client's mail; by default everybody's.
    mailbox
        Only mail of this mailbox.
    recipient_domain
        Only mail to this domain; *.example.com is all below it.
    sender
        Only mail whose header From is this address, or in this domain.
    position
        Routes of a mailbox are asked first, then the others; among them lower ones first. By default behind all.
    allow_misaligned
        Go on through an upstream even if DNS says that receivers would not take the mail for the domain's own.
    """
    said = {
        "client": client,
        "mailbox": mailbox,
        "recipient_domain": recipient_domain,
        "header_from": sender,
        "position": position,
        "allow_misaligned": allow_misaligned or None,
    }
    reply = control.post(path_of("routes"), {"name": name, "upstreams": listed(upstreams), **given(said)})
    step = f"see which way mail goes: relayd route test --from {mailbox or 'ADDRESS'} --to ADDRESS"
    output.done(reply, f"route {name} added", as_json=as_json, next_step=step)


@app.command(name="list")
def list_(*, client: str | None = None, as_json: AsJson = False, control: Control) -> None:
    """List the routes, in the order in which they are asked.

    Parameters
    ----------
    client
        Those that its mail may take.
    """
    reply = control.get(path_of("routes"), {"client": client})
    none = (
        "no routes: mail goes as its mailbox says; add one: relayd route add NAME --recipient-domain D --upstreams a,b"
    )
    output.items(reply, _COLUMNS, as_json=as_json, none=none)


@app.command
def show(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show a route."""
    output.details(control.get(path_of("routes", name)), _DETAILS, as_json=as_json)


@app.command(name="set")
def set_(
    name: str,
    /,
    *,
    upstreams: Listed | None = None,
    recipient_domain: str | None = None,
    sender: Sender = None,
    position: int | None = None,
    allow_misaligned: Annotated[bool | None, Parameter(negative="--keep-aligned")] = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Change a route; what is not given stays, what waits follows.

    Parameters
    ----------
    upstreams
        a,b in order, each when those before it do not work; a=70,b=30 by weight.
    recipient_domain
        An empty one takes it away.
    sender
        An empty one takes it away.
    position
        Routes of a mailbox are asked first, then the others; among them lower ones first.
    allow_misaligned
        Go on through an upstream even if DNS says that receivers would not take the mail for the domain's own.
    """
    body: dict[str, Any] = given(
        {"upstreams": listed(upstreams), "position": position, "allow_misaligned": allow_misaligned}
    )
    if recipient_domain is not None:
        body["recipient_domain"] = recipient_domain or None
    if sender is not None:
        body["header_from"] = sender or None
    output.done(control.patch(path_of("routes", name), body), f"route {name} changed", as_json=as_json)


@app.command
def remove(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Remove a route; what waits goes as its mailbox says."""
    output.done(control.delete(path_of("routes", name)), f"route {name} removed", as_json=as_json)


@app.command(name="test")
def which(
    *,
    sender: Annotated[str, Parameter(name="--from")],
    to: str,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Say which way a message would go now, and why. Sends nothing.

    Parameters
    ----------
    sender
        Its header From.
    to
        Its recipient.
    """
    reply = control.get(path_of("route-test"), {"header_from": sender, "recipient": to})
    if not as_json:
        data = reply.data
        chosen = f"route {data['route']}" if data["route"] else "no route"
        output.heading(f"mailbox {data['mailbox']}, {chosen}: {data['why']}")
    tested = Reply(text=reply.text, data={"items": reply.data["upstreams"]})
    output.items(tested, _TESTED, as_json=as_json, none="")
