"""`relayd client`."""

from typing import Any, Literal

from cyclopts import App

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, Limit, LimitWindow, given, limit_of
from relayd.control.client import path_of

app = App(name="client")

_COLUMNS = (
    column("name", whole=True),
    column("tier"),
    column("status"),
    Column("daily limit", lambda row: output.limit(row["daily_send_limit"])),
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
    column("used", "used in this window"),
    Column("window", lambda row: output.window(row["limit_window"], row["time_zone"])),
    column("turns_at", "window turns"),
    Column("kept from bulk mail", lambda row: f"{row['bulk_reserve_percent']} %"),
    column("bounces", "bounces are told by"),
    Column("suppressed recipients", lambda row: "are refused" if row["suppressed"] == "refuse" else "are dropped"),
    Column("several To or Cc", lambda row: "are refused" if row["repeated_recipients"] == "refuse" else "are joined"),
    Column(
        "others' Sender fields",
        lambda row: "are refused" if row["foreign_senders"] == "refuse" else "are removed",
    ),
    Column("a hard bounce counts", lambda row: _days(row["suppression_days"])),
    column("updated_at", "changed"),
)


def _days(days: int | None) -> str:
    if days is None:
        return "as configured"
    return f"{days} days" if days else "not at all"


@app.command
def add(
    name: str,
    /,
    *,
    tier: str = "Ignition",
    may_send_bounces: bool = False,
    daily_limit: Limit = "none",
    limit_window: LimitWindow | None = None,
    time_zone: str | None = None,
    bulk_reserve: int | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Add a client.

    Parameters
    ----------
    name
        Lower-case letters, digits, dots and hyphens.
    tier
        How much it may have: Ignition, Velocity, Dominance, or one of the configuration's [[tiers]].
    may_send_bounces
        Let its apps send any mail with the null reverse-path <>. Read receipts need no permission.
    daily_limit
        Recipients a day of all its mailboxes together, or none. 0 is never.
    limit_window
        calendar: a day from midnight to midnight; rolling: any 24 hours.
    time_zone
        Its day turns at midnight there, such as Europe/Berlin; by default UTC.
    bulk_reserve
        Percent of each of its limits that bulk mail may not use.
    """
    body = {"name": name, "tier": tier, "may_send_bounces": may_send_bounces, "daily_send_limit": limit_of(daily_limit)}
    reply = control.post(path_of("clients"), {**body, **_limits(limit_window, time_zone, bulk_reserve)})
    step = f"next, the domain it sends from: relayd domain add example.com --client {name}"
    output.done(reply, f"client {name} added", as_json=as_json, next_step=step)


@app.command(name="list")
def list_(*, as_json: AsJson = False, control: Control) -> None:
    """List the clients."""
    reply = control.get(path_of("clients"))
    output.items(reply, _COLUMNS, as_json=as_json, none="no clients yet; add one: relayd client add NAME")


@app.command
def show(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show a client, with what its tier leaves it and what it has used of its limit."""
    output.details(control.get(path_of("clients", name)), _DETAILS, as_json=as_json)


@app.command(name="set")
def set_(
    name: str,
    /,
    *,
    tier: str | None = None,
    status: str | None = None,
    may_send_bounces: bool | None = None,
    daily_limit: Limit | None = None,
    limit_window: LimitWindow | None = None,
    time_zone: str | None = None,
    bulk_reserve: int | None = None,
    bounces: Literal["mail", "event", "both"] | None = None,
    suppressed: Literal["refuse", "drop"] | None = None,
    suppression_days: int | Literal["default"] | None = None,
    repeated_recipients: Literal["refuse", "join"] | None = None,
    foreign_senders: Literal["refuse", "remove"] | None = None,
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
    daily_limit
        Recipients a day of all its mailboxes together, or none. 0 is never.
    limit_window
        calendar: a day from midnight to midnight; rolling: any 24 hours.
    time_zone
        Its day turns at midnight there, such as Europe/Berlin.
    bulk_reserve
        Percent of each of its limits that bulk mail may not use.
    bounces
        What becomes of its mail is told by mail to the reverse-path, as an event (relayd event list), or both.
    suppressed
        refuse a recipient on its suppression list, or take it and drop it.
    suppression_days
        For how long a hard bounce puts an address on that list; 0: not at all; default: as the configuration says.
    repeated_recipients
        refuse a message with several To or Cc fields, or join them into one.
    foreign_senders
        refuse a message whose Sender or Resent-* fields name an address of others, or remove these fields.
    """
    body = given(
        {
            "tier": tier,
            "status": status,
            "may_send_bounces": may_send_bounces,
            "bounces": bounces,
            "suppressed": suppressed,
            "repeated_recipients": repeated_recipients,
            "foreign_senders": foreign_senders,
        }
    )
    if suppression_days is not None:
        body["suppression_days"] = limit_of(suppression_days)
    if daily_limit is not None:
        body["daily_send_limit"] = limit_of(daily_limit)
    reply = control.patch(path_of("clients", name), {**body, **_limits(limit_window, time_zone, bulk_reserve)})
    output.done(reply, f"client {name} changed", as_json=as_json)


@app.command
def remove(name: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Remove a client that has nothing left."""
    output.done(control.delete(path_of("clients", name)), f"client {name} removed", as_json=as_json)


def _limits(window: str | None, time_zone: str | None, bulk_reserve: int | None) -> dict[str, Any]:
    return given({"limit_window": window, "time_zone": time_zone, "bulk_reserve_percent": bulk_reserve})
