"""A plot in a table's column: a bar a day, of what leaves and of what its limit would still let go."""

import sys
from collections.abc import Sequence

from relayd.cli.output import Column, Row

WIDTH = 32


def column(rows: Sequence[Row]) -> Column:
    """Filled: leaves; light: the rest of the limit. All on the scale of the largest of both."""
    largest = max((max(row["leaves"], row["limit"] or 0) for row in rows), default=0)
    filled, light = ("█", "░") if _can_show("█░") else ("#", ".")

    def bar(row: Row) -> str:
        length = _scaled(row["leaves"], largest)
        return filled * length + light * (_scaled(row["limit"] or 0, largest) - length)

    return Column(f"leaves of limit ({filled} {light})", bar, whole=True)


def _scaled(units: int, largest: int) -> int:
    # What leaves is seen, however little it is.
    return max(round(WIDTH * units / largest), 1) if units else 0


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
