"""`relayd status`."""

from datetime import datetime

from cyclopts import App

from relayd.cli import entries, output
from relayd.cli.output import Row
from relayd.cli.parameters import AsJson, Control
from relayd.control.client import path_of

app = App(name="status")


@app.default
def status(*, as_json: AsJson = False, control: Control) -> int:
    """Say how relayd stands: queue, the last 24 hours, what is blocked or paused. Exit code 1 without a database."""
    reply = control.get(path_of("status"))
    if as_json:
        output.write(reply.text)
    else:
        _tell(reply.data)
    return 0 if reply.data["queue"] else 1


def _tell(data: Row) -> None:
    workers = "" if data["workers"] is None else f", {_many(data['workers'], 'worker')}"
    output.heading(f"relayd {data['version']} on {data['node']}{workers}")
    queue = data["queue"]
    if queue is None:
        return entries.fields((("database", data["database"]),))
    now = entries.instant(queue["now"])
    if queue["paused_at"]:
        output.heading(f"EVERYTHING IS PAUSED since {entries.when(queue['paused_at'], now)}: {queue['paused_reason']}")
        output.hint("to go on: relayd resume everything")
    entries.fields(
        (
            ("database", data["database"]),
            ("queue", _depth(queue, now)),
            ("24 hours" if queue["day"]["is_whole"] else f"since {queue['day']['since'][11:19]}Z", _day(queue["day"])),
            *(("blocked", f"{_many(each['lanes'], 'line')}: {each['reason']}") for each in queue["blocked"]),
            *(("upstream", _upstream(each, now)) for each in queue["upstreams"]),
        )
    )


def _depth(queue: Row, now: datetime) -> str:
    oldest = f" (the oldest for {entries.age(queue['oldest_queued_at'], now)})" if queue["oldest_queued_at"] else ""
    return f"{queue['queued']:,} queued{oldest}, {queue['sending']:,} sending, {queue['pending']:,} pending"


def _day(day: Row) -> str:
    always = ("accepted", "sent", "deferred", "failed")
    seldom = ("bounced", "postponed", "uncertain")
    names = [*always, *(name for name in seldom if day[name])]
    return ", ".join(f"{day[name]:,} {name}" for name in names)


def _upstream(upstream: Row, now: datetime) -> str:
    text = f"{upstream['name']} ({upstream['provider']}): {upstream['in_flight']:,} in flight"
    if upstream["paused_at"]:
        text += f", paused since {entries.when(upstream['paused_at'], now)}: {upstream['paused_reason']}"
    if upstream["breaker"] != "closed":
        again = upstream["breaker_retry_at"]
        text += f", does not work: {upstream['breaker_reason']}"
        text += f"; tried again {entries.when(again, now)}" if again else ", until its breaker is closed"
    elif upstream["consecutive_failures"]:
        since = entries.when(upstream["last_failed_at"], now)
        text += f", its last {_many(upstream['consecutive_failures'], 'attempt')} failed, the latest {since}:"
        text += f" {upstream['last_failure']} (relayd upstream test {upstream['name']})"
    return text if upstream["is_active"] else f"{text}, not active"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
