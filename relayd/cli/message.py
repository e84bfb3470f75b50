"""`relayd message`."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from relayd.cli import entries, output
from relayd.cli.output import Column, Row, column
from relayd.cli.parameters import AsJson, Control
from relayd.cli.times import since_when
from relayd.control.client import path_of
from relayd.errors import RelaydError

app = App(name="message")


def _states(row: Row) -> str:
    return ", ".join(f"{many:,} {state}" for state, many in row["states"].items())


_COLUMNS = (
    column("queue_id", whole=True),
    column("created_at", "accepted"),
    column("header_from", "from"),
    Column("recipients", _states),
    column("subject"),
)


@app.command
def find(
    *,
    recipient: str | None = None,
    sender: str | None = None,
    subject: str | None = None,
    message_id: str | None = None,
    since: str | None = None,
    until: str | None = None,
    state: str | None = None,
    limit: int = 50,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Find messages, newest first. What is given must all hold.

    Parameters
    ----------
    recipient
        To this address, or to @domain.
    sender
        Header From or reverse-path; an address or @domain.
    subject
        A part of it, in any case.
    message_id
        The Message-ID header, with angle brackets or without.
    since
        A time (2026-11-21T08:00) or how long ago (12h, 7d).
    until
        As since.
    state
        At least one recipient is in it.
    """
    now = datetime.now().astimezone()
    query = {
        "recipient": recipient,
        "sender": sender,
        "subject": subject,
        "message_id": message_id,
        "since": since_when(since, now).isoformat() if since else None,
        "until": since_when(until, now).isoformat() if until else None,
        "state": state,
        "limit": limit,
    }
    reply = control.get(path_of("messages"), query)
    output.items(reply, _COLUMNS, as_json=as_json, none="no such messages")
    if as_json:
        return
    if reply.data["more"]:
        output.hint(f"there are more than {limit}; --limit shows more")
    if reply.data["note"]:
        output.hint(reply.data["note"])


@app.command
def show(some_id: str, /, *, limit: int = 100, as_json: AsJson = False, control: Control) -> None:
    """Show a message, its recipients and everything that happened to them.

    Parameters
    ----------
    some_id
        A queue id, or an entry's.
    limit
        So many recipients at most.
    """
    reply = control.get(path_of("messages", some_id), {"limit": limit})
    if as_json:
        return output.write(reply.text)
    data, now = reply.data, entries.instant(reply.data["now"])
    message = data["message"]
    by = f" as {message['credential']}" if message["credential"] else ""
    output.heading(f"message {message['queue_id']}: {message['subject'] or '(no subject)'}")
    entries.fields(
        (
            ("from", message["header_from"]),
            ("mailbox", f"{message['mailbox']} of client {message['client']}"),
            ("reverse-path", f"<{message['reverse_path']}>"),
            ("Message-ID", message["message_id_header"]),
            ("accepted", f"{entries.when(message['created_at'], now)} from {message['helo']} ({message['peer']}){by}"),
            ("origin", message["origin"]),
            ("speaks of" if message["origin"] == "dsn" else "repeats", message["parent_id"]),
            ("size", f"{message['size_octets']:,} bytes"),
            ("recipients", _states(message)),
        )
    )
    for row in data["entries"]:
        output.write("")
        entries.entry(row, entries.of_entry(data["log"], row["entry_id"]), now)
    entries.more_entries(len(data["entries"]), data["total"])


@app.command
def export(
    some_id: str,
    /,
    *,
    to: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    control: Control,
) -> None:
    """Write a message's stored bytes, exactly, to a file or to stdout.

    Parameters
    ----------
    some_id
        A queue id, or an entry's.
    to
        A file that does not exist yet.
    """
    content = control.get_octets(path_of("messages", some_id, "content"))
    if to is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    try:
        with to.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise RelaydError(f"cannot write {to}: {error.strerror}") from None
    output.hint(f"{len(content):,} bytes written to {to}")


@app.command
def resend(
    some_id: str,
    /,
    *,
    recipient: Annotated[list[str], Parameter(negative="")] | None = None,
    as_json: AsJson = False,
    control: Control,
) -> None:
    """Send a message again: the same bytes under a new queue id.

    Parameters
    ----------
    some_id
        A queue id, or an entry's.
    recipient
        Only to this one of its recipients; may be repeated. By default to all of them.
    """
    reply = control.post(path_of("messages", some_id, "resend"), {"recipients": recipient or []})
    to = ", ".join(reply.data["recipients"][:5]) + (", …" if len(reply.data["recipients"]) > 5 else "")
    step = f"to follow it: relayd explain {reply.data['queue_id']}"
    output.done(reply, f"queued as {reply.data['queue_id']} for {to}", as_json=as_json, next_step=step)
