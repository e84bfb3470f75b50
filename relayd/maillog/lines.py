"""Fields as one line of logfmt or JSON, printable whatever a peer wrote.

Both escape as JSON does. No character that is not printable gets through: no newline, no terminal's escape sequence,
no mark that turns the direction of writing, no surrogate.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

# Printable ASCII but space, '"', '=' and backslash: what logfmt need not quote.
_BARE = re.compile(r"[!#-<>-\[\]-~]+")

Value = str | int | float | UUID | datetime

_encode = json.JSONEncoder(ensure_ascii=False, default=lambda value: _plain(value)).encode


def logfmt(fields: Mapping[str, Value | None]) -> str:
    """`key=value key="a value"`; fields that are None are left out. Keys are ours and need no quotes."""
    return " ".join([f"{key}={_word(value)}" for key, value in fields.items() if value is not None])


def jsonl(fields: Mapping[str, Value | None]) -> str:
    """One JSON object; fields that are None are left out."""
    return _printable(_encode({key: value for key, value in fields.items() if value is not None}))


def rfc3339(when: datetime) -> str:
    """UTC with milliseconds: 2026-01-31T23:59:59.123Z."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def cut(text: str, most: int) -> str:
    """The start and the end of a text that is too long: of a traceback the end says most."""
    if len(text) <= most:
        return text
    return f"{text[: most // 4]} […] {text[-(most - most // 4) :]}"


def _word(value: Value) -> str:
    text = value if isinstance(value, str) else str(_plain(value))
    return text if _BARE.fullmatch(text) else _printable(_encode(text))


def _plain(value: Value) -> str | int | float:
    match value:
        case UUID():
            return str(value)
        case float():
            return round(value, 6)
        case datetime():
            return rfc3339(value)
        case _:
            return value


def _printable(quoted: str) -> str:
    """JSON's escapes for what is inside a JSON string and not printable."""
    if quoted.isprintable():
        return quoted
    return "".join([each if each.isprintable() else json.dumps(each)[1:-1] for each in quoted])
