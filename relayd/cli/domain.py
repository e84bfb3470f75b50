"""`relayd domain`."""

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, LimitWindow, given, limit_of
from relayd.control.client import Reply, path_of

app = App(name="domain")


def _limit(row: Row) -> Any:
    by_hand = row["own_daily_limit"] is not None
    return f"{output.limit(row['daily_send_limit'])} ({'set by hand' if by_hand else 'follows its mailboxes'})"


_COLUMNS = (
    column("domain", whole=True),
    column("client"),
    column("status"),
    Column("daily limit", _limit),
    column("default_mailbox"),
    column("default_pool"),
    column("bounce_domain"),
    column("created_at", "created"),
)
_DETAILS = (
    column("id"),
    *_COLUMNS,
    column("used", "used in this window"),
    Column("window", lambda row: output.window(row["limit_window"], row["time_zone"])),
    column("turns_at", "window turns"),
    column("updated_at", "changed"),
    Column("keys", lambda row: [f"{key['selector']} ({key['algorithm']}, {key['status']})" for key in row["keys"]]),
)
_RECORDS = (column("type"), column("name", whole=True), column("priority"), column("value"))


@app.command
def add(domain: str, /, *, client: str, as_json: AsJson = False, control: Control) -> None:
    """Add a sending domain, make its DKIM keys and print what to publish.

    Parameters
    ----------
    client
        Whose it is.
    """
    reply = control.post(path_of("domains"), {"domain": domain, "client": client})
    if as_json:
        return output.write(reply.text)
    name = reply.data["domain"]["domain"]
    output.write(f"domain {name} added\n")
    _print_records(Reply(reply.text, reply.data["records"]))
    output.hint(
        f"publish these records (relayd domain records {name} --zone prints them to paste), "
        f"then: relayd mailbox add noreply@{name}"
    )


@app.command(name="list")
def list_(*, client: str | None = None, as_json: AsJson = False, control: Control) -> None:
    """List the domains.

    Parameters
    ----------
    client
        Only its own.
    """
    reply = control.get(path_of("domains"), {"client": client})
    none = "no domains yet; add one: relayd domain add example.com --client NAME"
    output.items(reply, _COLUMNS, as_json=as_json, none=none)


@app.command
def show(domain: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show a domain, its keys and what it has used of its limit."""
    output.details(control.get(path_of("domains", domain)), _DETAILS, as_json=as_json)


@app.command
def records(
    domain: str,
    /,
    *,
    zone: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Print the SPF, DKIM, DMARC and MX records to publish.

    Parameters
    ----------
    zone
        As lines of a zone file, to paste.
    """
    reply = control.get(path_of("domains", domain, "records"))
    if as_json:
        output.write(reply.text)
    elif zone:
        for line in reply.data["zone"]:
            output.write(line)
        for note in reply.data["notes"]:
            output.hint(note)
    else:
        _print_records(reply)


@app.command(name="set")
def set_(
    domain: str,
    /,
    *,
    status: str | None = None,
    default_mailbox: str | None = None,
    no_default_mailbox: Annotated[bool, Parameter(negative="")] = False,
    daily_limit: int | Literal["auto"] | None = None,
    limit_window: LimitWindow | None = None,
    time_zone: str | None = None,
    default_pool: str | None = None,
    bounce_domain: str | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Change a domain; what is not given stays.

    Parameters
    ----------
    status
        pending, active, or suspended: its mail is refused, and what is queued waits.
    default_mailbox
        The mailbox that sends what names no mailbox of its own.
    no_default_mailbox
        Refuse such mail.
    daily_limit
        Recipients a day of all its mailboxes together; 0 is never. auto: the larger of 50 and its mailboxes' limits.
    limit_window
        calendar: a day from midnight to midnight; rolling: any 24 hours. Of a limit set by hand.
    time_zone
        Its day turns at midnight there, such as Europe/Berlin.
    default_pool
        The pool that sends it, before the default mailbox; none: no pool does.
    bounce_domain
        Where bounces of its mail come back to relayd, such as bounces.example.com; none: to whoever submitted it.
    """
    body = given(
        {
            "status": status,
            "default_mailbox": default_mailbox,
            "limit_window": limit_window,
            "time_zone": time_zone,
        }
    )
    if daily_limit is not None:
        body["own_daily_limit"] = limit_of(daily_limit)
    if no_default_mailbox:
        body["default_mailbox"] = None
    if default_pool is not None:
        body["default_pool"] = None if default_pool == "none" else default_pool
    if bounce_domain is not None:
        body["bounce_domain"] = None if bounce_domain == "none" else bounce_domain
    step = f"next, publish its records: relayd domain records {domain}" if body.get("bounce_domain") else None
    reply = control.patch(path_of("domains", domain), body)
    output.done(reply, f"domain {domain} changed", as_json=as_json, next_step=step)


@app.command
def remove(domain: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Remove a domain that has no mailboxes."""
    output.done(control.delete(path_of("domains", domain)), f"domain {domain} removed", as_json=as_json)


def _print_records(reply: Reply) -> None:
    output.items(reply, _RECORDS, as_json=False, none="nothing to publish")
    for note in reply.data["notes"]:
        output.hint(f"note: {note}")
