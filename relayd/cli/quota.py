"""`relayd upstream quota`."""

from typing import Annotated

from cyclopts import Parameter

from relayd.cli import output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control, Limit, LimitWindow, given, limit_of
from relayd.control.client import path_of
from relayd.errors import RelaydError


def _use(span: str, row: Row) -> str:
    limit, used = row[f"{span}_limit"], row[f"{span}_used"]
    return "unlimited" if limit is None else f"{used} of {limit}"


_COLUMNS = (
    Column("of", lambda row: row["mailbox"] or f"all of {row['upstream']}", whole=True),
    Column("a day", lambda row: _use("daily", row)),
    column("daily_turns_at", "day turns"),
    Column("an hour", lambda row: _use("hourly", row)),
    column("hourly_turns_at", "hour turns"),
    Column("counted", lambda row: output.window(row["limit_window"], row["time_zone"])),
    Column("kept from bulk", lambda row: f"{row['bulk_reserve_percent']} %"),
)


def quota(
    name: str,
    /,
    *,
    mailbox: str | None = None,
    daily: Limit | None = None,
    hourly: Limit | None = None,
    limit_window: LimitWindow | None = None,
    time_zone: str | None = None,
    bulk_reserve: int | None = None,
    remove: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Say what the provider of an upstream allows, or show it; what is not given stays.

    Parameters
    ----------
    mailbox
        What it allows this mailbox. Without it, the upstream as a whole.
    daily
        Recipients a day, or none. 0 is never.
    hourly
        Recipients an hour, or none. 0 is never.
    limit_window
        rolling: any 24 hours, the default; calendar: a day from midnight to midnight.
    time_zone
        Its calendar's day turns at midnight there, such as America/Los_Angeles; by default UTC.
    bulk_reserve
        Percent that bulk mail may not use.
    remove
        Forget it: nothing of the provider's limits is looked at.
    """
    path = path_of("upstreams", name, "quotas")
    body = given({"limit_window": limit_window, "time_zone": time_zone, "bulk_reserve_percent": bulk_reserve})
    for field, limit in (("daily_limit", daily), ("hourly_limit", hourly)):
        if limit is not None:
            body[field] = limit_of(limit)
    whose = given({"mailbox": mailbox})
    if remove and body:
        raise RelaydError("--remove takes the quota away; it goes with --mailbox alone")
    if remove:
        reply = control.delete(path_of("upstreams", name, "quotas", *([mailbox] if mailbox else [])))
        output.done(reply, f"quota of {reply.data['name']} removed", as_json=as_json)
    elif body or mailbox:
        reply = control.patch(path, {**whose, **body})
        text = f"quota of {reply.data['mailbox'] or f'upstream {name}'} set"
        output.done(reply, text, as_json=as_json, next_step=f"its use: relayd upstream quota {name}")
    else:
        none = f"none is set; say what the provider allows: relayd upstream quota {name} --daily 10000"
        output.items(control.get(path), _COLUMNS, as_json=as_json, none=none)
