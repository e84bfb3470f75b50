"""`relayd warmup`."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, given
from relayd.control.client import Reply, path_of

app = App(name="warmup")

Schedule = Annotated[str | None, Parameter(help="Such as 10x5,20x5,75: 10 a day for 5 days, 20 for 5 more, then 75.")]


def _rate(key: str, title: str) -> Column:
    return Column(title, lambda row: "nothing sent" if row[key] is None else f"{row[key]:.2%}")


def _day(row: Row) -> Any:
    return f"{row['stage'] + 1} of {row['stage_days']}" if row["state"] in ("warming", "paused") else row["state"]


_DETAILS = (
    column("email_address", "address", whole=True),
    column("state"),
    Column("day", _day),
    column("daily_send_limit", "today's limit"),
    column("used", "used of it"),
    column("cap", "never more than"),
    column("note", "why it does not go on"),
    column("schedule"),
    Column("days that count", lambda row: "those with mail" if row["used_days_only"] else "all"),
    column("status", "mailbox is"),
    column("started_at", "started"),
    column("paused_at", "paused"),
    column("completed_at", "completed"),
    _rate("bounce_rate", "bounces"),
    _rate("spam_rate", "complaints"),
    _rate("reply_rate", "replies"),
)
_DAYS = (
    column("day", whole=True),
    column("warmup_stage", "stage"),
    column("daily_limit", "limit"),
    column("emails_sent", "sent"),
    column("emails_bounced", "bounced"),
    column("complaints"),
    column("emails_received", "replies"),
)
_PLAN = (column("day"), column("limit"), column("leaves"), column("total"), column("waiting"))


@app.command
def show(address: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Show a mailbox's warm-up and its latest days."""
    reply = control.get(path_of("mailboxes", address, "warmup"))
    output.details(reply, _DETAILS, as_json=as_json)
    if not as_json and reply.data["days"]:
        output.heading("")
        output.items(Reply(reply.text, {"items": reply.data["days"]}), _DAYS, as_json=False, none="")


@app.command
def start(
    address: str,
    /,
    *,
    schedule: Schedule = None,
    cap: int | None = None,
    stage: int | None = None,
    used_days_only: bool | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Let a mailbox's limit grow day by day, or change how it does.

    Parameters
    ----------
    cap
        Never more recipients a day than these.
    stage
        So many days are behind it already.
    used_days_only
        A day counts only if something was sent on it.
    """
    options = {"schedule": schedule, "cap": cap, "stage": stage, "used_days_only": used_days_only}
    _tell(control.post(path_of("mailboxes", address, "warmup", "start"), given(options)), as_json=as_json)


@app.command
def pause(address: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Hold the stage: mail leaves at today's limit until it goes on."""
    _tell(control.post(path_of("mailboxes", address, "warmup", "pause"), {}), as_json=as_json)


@app.command
def resume(address: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Go on; days count from today."""
    _tell(control.post(path_of("mailboxes", address, "warmup", "resume"), {}), as_json=as_json)


@app.command
def restart(address: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """Begin anew, from the first day."""
    _tell(control.post(path_of("mailboxes", address, "warmup", "restart"), {}), as_json=as_json)


@app.command
def complete(address: str, /, *, as_json: AsJson = False, control: Control) -> None:
    """End it, with the limit that its schedule ends in."""
    _tell(control.post(path_of("mailboxes", address, "warmup", "complete"), {}), as_json=as_json)


@app.command
def simulate(
    address: str, /, *, schedule: Schedule = None, days: int = 31, as_json: AsJson = False, control: Control
) -> None:
    """What a schedule would do to the mail that waits now. Changes nothing.

    Parameters
    ----------
    days
        So many from today on.
    """
    query = given({"schedule": schedule, "days": days})
    reply = control.get(path_of("mailboxes", address, "warmup", "simulation"), query)
    output.items(reply, _PLAN, as_json=as_json, none="")
    if not as_json:
        done = reply.data["done_on_day"]
        end = f"is done on day {done}" if done else f"is not done within {days} days"
        output.hint(f"{reply.data['backlog']} recipients wait; that {end}, if nothing new comes and health is good")


def _tell(reply: Reply, *, as_json: bool) -> None:
    warm_up = reply.data
    limit = f"{warm_up['daily_send_limit']} recipients a day now"
    ended = {"completed": f"completed, {limit}", "paused": f"paused at {limit}"}
    text = ended.get(warm_up["state"], f"day {warm_up['stage'] + 1} of {warm_up['stage_days']}, {limit}")
    output.done(reply, f"warm-up of {warm_up['email_address']}: {text}", as_json=as_json)
