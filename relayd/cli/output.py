"""What commands print: tables for people, plain columns for pipes, the server's own JSON for scripts.

Text from mail or from the database may hold anything; what a terminal would obey is shown as an escape.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relayd.control.client import Reply

Row = Mapping[str, Any]

_NARROWEST = 8


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or a line of a detail page. `whole` values are never wrapped: ids, addresses."""

    title: str
    value: Callable[[Row], Any]
    whole: bool = False


def column(key: str, title: str | None = None, *, whole: bool = False) -> Column:
    """The column of one field, as the server sends it."""
    return Column(title or key.replace("_", " "), lambda row: _by_key(key, row[key]), whole)


def items(reply: Reply, columns: Sequence[Column], *, as_json: bool, none: str) -> None:
    """A listing, or `none` on stderr when it is empty: where to start."""
    if as_json:
        return write(reply.text)
    if not reply.data["items"]:
        return hint(none)
    table(reply.data["items"], columns)


def table(items: Sequence[Row], columns: Sequence[Column]) -> None:
    """Rows for people."""
    rows = [[readable(each.value(row)) for each in columns] for row in items]
    if sys.stdout.isatty():
        _rich_table(columns, rows)
    else:
        _plain_table(columns, rows)


def details(reply: Reply, columns: Sequence[Column], *, as_json: bool) -> None:
    """One thing, a line a field."""
    if as_json:
        return write(reply.text)
    width = max(len(each.title) for each in columns)
    for each in columns:
        write(f"{each.title:<{width}}  {readable(each.value(reply.data))}")


def done(reply: Reply, text: str, *, as_json: bool, next_step: str | None = None) -> None:
    """What a command that changed something says, and what to do next."""
    if as_json:
        return write(reply.text)
    write(text)
    for warning in reply.data.get("warnings", ()):
        hint(f"warning: {warning}")
    if next_step:
        hint(next_step)


def write(line: str) -> None:
    """One line on stdout."""
    sys.stdout.write(line + "\n")


def heading(line: str) -> None:
    """A line that the eye finds first."""
    text = readable(line).replace("\n", " ")
    write(f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text)


def hint(text: str) -> None:
    """A next step, on stderr so that a pipe does not get it."""
    sys.stdout.flush()
    sys.stderr.write(readable(text) + "\n")


def fail(message: str, next_step: str | None, *, code: int) -> int:
    """Say what went wrong. Returns `code`."""
    sys.stderr.write(f"relayd: {readable(message)}\n")
    if next_step:
        sys.stderr.write(f"  {readable(next_step)}\n")
    return code


def readable(value: Any) -> str:
    """Fit for a terminal: nothing in it that a terminal would obey."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(readable(each) for each in value) or "-"
        case _:
            return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in str(value))


def limit(units: int | None) -> str:
    """A limit in recipients."""
    return "unlimited" if units is None else str(units)


def window(kind: str, time_zone: str, span: str = "day") -> str:
    """When a limit's units come back."""
    if kind == "rolling":
        return "any 24 hours" if span == "day" else "any 60 minutes"
    return f"midnight to midnight, {time_zone}" if span == "day" else "the hour"


def _by_key(key: str, value: Any) -> Any:
    if key.endswith("_at") and isinstance(value, str):
        return f"{value[:10]} {value[11:19]}Z"
    return value


def _plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    lines = [[each.title.upper() for each in columns], *([cell.replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    needed = 0
    for index, each in enumerate(columns):
        longest = max(len(each.title), *(len(row[index]) for row in rows))
        smallest = longest if each.whole else min(longest, _NARROWEST)
        table.add_column(each.title.upper(), no_wrap=each.whole, min_width=smallest, overflow="fold")
        needed += smallest + 2
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # rich would rather cut an id than be wider than the terminal.
    Console(width=max(Console().width, needed)).print(table)
