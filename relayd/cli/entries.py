"""How queue entries, their log and what is said of them look in a terminal, at three in the morning."""

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from relayd.cli import output
from relayd.rules.duration import at_time, iso, span_in_words

Row = Mapping[str, Any]
_WIDEST = 120


def instant(value: str) -> datetime:
    """A time as the server sends it."""
    return datetime.fromisoformat(value)


def when(value: str | None, now: datetime) -> str:
    """Exact and relative; a dash where there is none."""
    return at_time(instant(value), now) if value else "-"


def age(value: str, now: datetime) -> str:
    """How long ago."""
    return span_in_words(now - instant(value))


def state(row: Row) -> str:
    """`pending (held)`: the state, with what a pending one waits for."""
    return f"{row['status']} ({row['pending_reason']})" if row["pending_reason"] else str(row["status"])


def one_line(text: str) -> str:
    """Fit for a terminal, and without line ends: a reply of several lines must not look like ours."""
    return output.readable(text).replace("\n", " ")


def paragraph(text: str, *, indent: str = "  ") -> None:
    """Wrapped for a terminal; one line for a pipe."""
    if not sys.stdout.isatty():
        return output.write(indent + one_line(text))
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    wrapped = textwrap.wrap(
        output.readable(text), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    for line in wrapped or [""]:
        output.write(line)


def fields(pairs: Sequence[tuple[str, str | None]], *, indent: str = "  ") -> None:
    """A line a field, those that are None left out."""
    present = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        output.write(f"{indent}{name:<{width}}  {one_line(value)}")


def log(rows: Sequence[Row], *, indent: str = "    ") -> None:
    """A line an event, oldest first."""
    for row in rows:
        line = f"{indent}{iso(instant(row['at']))}  {row['event']:<9}  {_event(row)}"
        output.write(one_line(line).rstrip())


def entry(row: Row, log_rows: Sequence[Row], now: datetime) -> None:
    """One entry, whole."""
    output.heading(f"{row['recipient']}: {state(row)}")
    is_waiting = row["status"] in ("queued", "pending")
    ended = row["sent_at"] or row["failed_at"] or row["bounced_at"]
    fields(
        (
            ("entry", row["entry_id"]),
            ("reason", row["reason"]),
            ("attempts", f"{row['retry_count']} of at most {row['max_retries'] + 1}"),
            ("next", when(row["next_attempt_at"], now) if is_waiting and not row["pending_reason"] else None),
            ("claimed by", row["claimed_by"]),
            ("begun", when(row["attempt_started_at"], now) if row["status"] == "sending" else None),
            ("upstream", row["upstream"]),
            ("id there", row["provider_message_id"]),
            ("ended", when(ended, now) if ended else None),
        )
    )
    log(log_rows)


def of_entry(rows: Sequence[Row], entry_id: str) -> list[Row]:
    """The part of a log that speaks of one entry."""
    return [row for row in rows if row["entry_id"] == entry_id]


def more_entries(shown: int, total: int) -> None:
    """Say that there are others."""
    if total > shown:
        output.hint(f"{total - shown:,} more recipients; --limit shows more, relayd queue list ID lists them")


def _event(row: Row) -> str:
    reply = " ".join(str(part) for part in (row["error_code"], row["enhanced_code"]) if part)
    text = row["text"] or ""
    if row["enhanced_code"]:
        text = text.removeprefix(row["enhanced_code"]).strip()
    parts = (
        f"attempt {row['attempt']}" if row["attempt"] else "",
        f"through {row['upstream']}" if row["upstream"] else "",
        "(late: its lease had been given away)" if row["late"] else "",
        f"{row['stage']}:" if row["stage"] else "",
        reply,
        text,
        f"by {row['actor']}" if row["actor"] else "",
    )
    return " ".join(part for part in parts if part)
