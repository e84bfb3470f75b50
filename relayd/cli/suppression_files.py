"""Files of addresses to be suppressed: one address a line, or CSV with a header. Read a batch at a time."""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from relayd.errors import RelaydError
from relayd.mail.address import Address
from relayd.rules.suppression import SuppressionReason

COLUMNS = ("address", "reason", "detail", "created_at", "expires_at")
BATCH = 1_000
# Of JSON, where a character may take six octets: below what the control socket takes at once.
BATCH_OCTETS = 800_000
MAX_DETAIL_CHARACTERS = 255

# What the column with the address is called elsewhere.
_ADDRESS_NAMES = ("address", "email", "e-mail", "email address", "recipient")


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be used, and why."""

    line: int
    text: str


@dataclass(slots=True)
class Batch:
    """Some lines: what the control socket takes, and what it would not."""

    items: list[dict[str, Any]] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    octets: int = 0

    def add(self, item: dict[str, Any]) -> None:
        """Add a line that can be used."""
        self.items.append(item)
        self.octets += 200 + 6 * (len(item["address"]) + len(item.get("detail", "")))

    @property
    def is_full(self) -> bool:
        """Whether another line may be too much."""
        return len(self.items) + len(self.bad) >= BATCH or self.octets >= BATCH_OCTETS


@contextmanager
def opened(name: str) -> Iterator[TextIO]:
    """The file of that name, or standard input for `-`. Octets that are not UTF-8 make their line a bad one."""
    if name == "-":
        yield TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline="")
        return
    try:
        with Path(name).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield text
    except OSError as error:
        raise RelaydError(f"cannot read {name}: {error.strerror}") from None


def batches(text: TextIO) -> Iterator[Batch]:
    """All of its lines, up to BATCH at a time."""
    reader = csv.reader(text)
    columns: Mapping[str, int] | None = None
    batch = Batch()
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            batch.bad.append(BadLine(reader.line_num, f"no CSV: {error}"))
            continue
        if not any(cell.strip() for cell in row):
            continue
        if columns is None:
            columns = _columns(row)
            if columns:
                continue
        try:
            batch.add(_item(row, columns))
        except ValueError as error:
            batch.bad.append(BadLine(reader.line_num, str(error)))
        if batch.is_full:
            yield batch
            batch = Batch()
    if batch.items or batch.bad:
        yield batch


def _columns(row: Sequence[str]) -> Mapping[str, int]:
    """Where the columns are, if this is a header; empty: there is none, and the address comes first."""
    names = [cell.strip().lower() for cell in row]
    found = next((name for name in _ADDRESS_NAMES if name in names), None)
    if found is None:
        return {}
    return {"address": names.index(found), **{name: names.index(name) for name in COLUMNS[1:] if name in names}}


def _item(row: Sequence[str], columns: Mapping[str, int]) -> dict[str, Any]:
    """Raises ValueError with what is wrong."""

    def cell(name: str) -> str:
        place = columns.get(name)
        return row[place].strip() if place is not None and place < len(row) else ""

    text = cell("address") if columns else row[0].strip()
    if any("\ud800" <= character <= "\udfff" for character in "".join(row)):
        raise ValueError("not UTF-8")
    item: dict[str, Any] = {"address": str(Address.parse(text))}
    if reason := cell("reason").lower():
        if reason not in set(SuppressionReason):
            raise ValueError(f"the reason is none of {', '.join(SuppressionReason)}")
        item["reason"] = reason
    if detail := "".join(character if character.isprintable() else " " for character in cell("detail")).strip():
        item["detail"] = detail[:MAX_DETAIL_CHARACTERS]
    if expires := cell("expires_at"):
        item["expires_at"] = _instant(expires).isoformat()
    return item


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expires_at is no time such as 2026-01-31T00:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
