"""`relayd mailbox`."""

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from relayd.cli import bars, inbox_options, output
from relayd.cli.inbox_options import InboxOptions
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, DailyLimit, LimitWindow, given, limit_of
from relayd.cli.ways import Listed, listed
from relayd.control.client import Reply, path_of

app = App(name="mailbox")

EightBit = Literal["keep", "convert"]
MailClass = Annotated[Literal["transactional", "bulk"] | None, Parameter(name="--class")]


def _limit(row: Row) -> Any:
    return output.limit(row["daily_send_limit"])


def _inbox(inbox: Row | None) -> str:
    """Where bounces and answers are read, and how that goes."""
    if inbox is None:
        return "not read"
    where = f"{inbox['imap_username']} at {inbox['imap_host']}" if inbox["kind"] == "imap" else "Gmail API"
    if inbox["last_error"]:
        return f"{where}, failed {inbox['failures']} times: {inbox['last_error']}"
    return f"{where}, last read {inbox['last_pulled_at'] or 'never yet'}"


_COLUMNS = (
    column("email_address", "address", whole=True),
    column("client"),
    Column("upstream", lambda row: ", ".join(row["upstreams"])),
    column("status"),
    Column("daily limit", _limit),
    column("used"),
    Column("default", lambda row: "default" if row["is_default"] else ""),
)
_DETAILS = (
    column("id"),
    column("email_address", "address"),
    column("display_name"),
    column("client"),
    column("domain"),
    column("upstreams"),
    column("sends_through", "sends through now"),
    column("status"),
    column("status_reason"),
    Column("daily limit", _limit),
    column("used", "used in this window"),
    Column("window", lambda row: output.window(row["limit_window"], row["time_zone"])),
    column("window_ends_at", "window turns"),
    column("is_paced", "paced through the day"),
    column("mail_class", "class of its mail"),
    Column("8-bit bodies", lambda row: "are kept" if row["eight_bit"] == "keep" else "are converted"),
    column("is_default", "default of its domain"),
    Column("reports", lambda row: _inbox(row["inbox"])),
    column("created_at", "created"),
    column("updated_at", "changed"),
)
_FORECAST = (
    column("day", whole=True),
    Column("limit", lambda row: "unlimited" if row["limit"] is None else row["limit"]),
    column("leaves"),
    column("joins", "scheduled"),
    column("waiting"),
    Column("then waits for", lambda row: row["held_by"] or ""),
)


@app.command
def add(
    address: str,
    /,
    *,
    upstream: str | None = None,
    upstreams: Listed | None = None,
    allow_misaligned: Annotated[bool, Parameter(negative="")] = False,
    display_name: str | None = None,
    daily_limit: DailyLimit = 10,
    time_zone: str | None = None,
    limit_window: LimitWindow | None = None,
    paced: bool = False,
    mail_class: MailClass = None,
    eight_bit: EightBit | None = None,
    default: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Add a sending account to a domain.

    Parameters
    ----------
    upstream
        Where its mail goes next; may be left out where there is only one.
    upstreams
        Several: a,b in order, each when those before it do not work; a=70,b=30 by weight.
    allow_misaligned
        Go on through an upstream even if DNS says that receivers would not take the mail for the domain's own.
    daily_limit
        Recipients a day, or unlimited. 0 is never.
    time_zone
        Its day turns at midnight there, such as Europe/Berlin; by default UTC.
    limit_window
        calendar: a day from midnight to midnight; rolling: any 24 hours.
    paced
        No more in an hour than the day's share.
    mail_class
        Of mail of which neither the message nor its login says; by default transactional.
    eight_bit
        keep 8-bit bodies as they are, the default, or convert them to ASCII for servers without 8BITMIME.
    default
        Let it send what in its domain names no mailbox of its own.
    """
    options = {"upstream": upstream, "display_name": display_name, "time_zone": time_zone}
    limits = {"daily_send_limit": limit_of(daily_limit), "is_paced": paced}
    counting = {"limit_window": limit_window, "mail_class": mail_class, "eight_bit": eight_bit}
    body = {"email_address": address, "is_default": default, **limits, **given(options | counting)}
    body |= given({"upstreams": listed(upstreams), "allow_misaligned": allow_misaligned or None})
    reply = control.post(path_of("mailboxes"), body)
    step = f"next, a login for an app: relayd credential add LOGIN --client {reply.data['client']} --sender {address}"
    limit = _limit(reply.data)
    pace = "without a daily limit" if limit == "unlimited" else f"for {limit} recipients a day (--daily-limit)"
    output.done(reply, f"mailbox {reply.data['email_address']} added, {pace}", as_json=as_json, next_step=step)


@app.command(name="list")
def list_(
    *,
    client: str | None = None,
    domain: str | None = None,
    upstream: str | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """List the mailboxes, with what each has used of its limit."""
    reply = control.get(path_of("mailboxes"), {"client": client, "domain": domain, "upstream": upstream})
    none = "no such mailboxes; add one: relayd mailbox add noreply@example.com"
    output.items(reply, _COLUMNS, as_json=as_json, none=none)


@app.command
def show(address: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show a mailbox."""
    output.details(control.get(path_of("mailboxes", address)), _DETAILS, as_json=as_json)


@app.command(name="set")
def set_(
    address: str,
    /,
    *,
    upstream: str | None = None,
    upstreams: Listed | None = None,
    allow_misaligned: Annotated[bool | None, Parameter(negative="--keep-aligned")] = None,
    display_name: str | None = None,
    daily_limit: DailyLimit | None = None,
    time_zone: str | None = None,
    limit_window: LimitWindow | None = None,
    paced: bool | None = None,
    mail_class: MailClass = None,
    eight_bit: EightBit | None = None,
    default: bool | None = None,
    status: str | None = None,
    reason: str | None = None,
    inbox: InboxOptions | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Change a mailbox; what is not given stays.

    Parameters
    ----------
    upstreams
        Several: a,b in order, each when those before it do not work; a=70,b=30 by weight.
    allow_misaligned
        Go on through an upstream even if DNS says that receivers would not take the mail for the domain's own.
    display_name
        An empty one takes it away.
    daily_limit
        Recipients a day, or unlimited. 0 is never.
    limit_window
        calendar: a day from midnight to midnight; rolling: any 24 hours.
    paced
        No more in an hour than the day's share.
    mail_class
        Of mail of which neither the message nor its login says.
    eight_bit
        keep 8-bit bodies as they are, or convert them to ASCII for servers without 8BITMIME.
    status
        active, paused (mail is taken and waits) or suspended (mail is refused).
    reason
        Why, for whoever looks later.
    """
    body = given(
        {
            "upstream": upstream,
            "upstreams": listed(upstreams),
            "allow_misaligned": allow_misaligned,
            "time_zone": time_zone,
            "limit_window": limit_window,
            "is_paced": paced,
            "mail_class": mail_class,
            "eight_bit": eight_bit,
            "is_default": default,
            "status": status,
            "status_reason": reason,
        }
    )
    if display_name is not None:
        body["display_name"] = display_name or None
    if daily_limit is not None:
        body["daily_send_limit"] = limit_of(daily_limit)
    read = inbox_options.body(inbox)
    if read:
        reply = _set_inbox(control, address, read)
    if body or not read:
        reply = control.patch(path_of("mailboxes", address), body)
    step = f"how that goes: relayd mailbox show {address}" if read.get("kind") != "none" and read else None
    output.done(reply, f"mailbox {address} changed", as_json=as_json, next_step=step)


def _set_inbox(control: Control, address: str, body: dict[str, Any]) -> Reply:
    path = path_of("mailboxes", address, "inbox")
    return control.delete(path) if body.get("kind") == "none" else control.patch(path, body)


@app.command
def forecast(address: str, /, *, days: int = 14, as_json: AsJson = False, control: Control) -> None:
    """Show the coming days: what its limits let go of the mail that waits. Changes nothing.

    Parameters
    ----------
    days
        So many from today on.
    """
    reply = control.get(path_of("mailboxes", address, "forecast"), {"days": days})
    output.items(reply, [*_FORECAST, bars.column(reply.data["items"])], as_json=as_json, none="")
    if as_json:
        return
    data = reply.data
    more = "at least " if data["is_earliest"] else ""
    scheduled = f", {data['scheduled']:,} are scheduled" if data["scheduled"] else ""
    end = f"the last leave on {data['done_on']}" if data["done_on"] else f"not all leave within {days} days"
    if not data["backlog"] and not data["scheduled"]:
        end = "nothing has to leave"
    output.hint(f"{more}{data['backlog']:,} recipients wait{scheduled}; {end}, if nothing new comes and health is good")
    if data["held"]:
        output.hint(f"nothing leaves now; first: relayd mailbox show {address} tells what stops it")


@app.command
def remove(address: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Remove a mailbox that has no mail left to send."""
    output.done(control.delete(path_of("mailboxes", address)), f"mailbox {address} removed", as_json=as_json)
