"""One event of every kind, for whoever must know them all."""

import uuid
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from typing import Any, get_args, get_type_hints

from relayd.rules.events import Event

KINDS: tuple[type[Any], ...] = get_args(Event)
QUEUE_ID = uuid.UUID("01900000-0000-7000-8000-000000000001")


def sample(kind: type[Any], *, text: str = "word", **given: Any) -> Any:
    """An event of that kind; every field that is free text holds `text`."""
    hints = get_type_hints(kind)
    return kind(**{each.name: given.get(each.name, _value(hints[each.name], text)) for each in fields(kind)})


def samples(*, text: str = "word") -> Iterator[Any]:
    """One of each kind."""
    return (sample(kind, text=text) for kind in KINDS)


def _value(hint: Any, text: str) -> Any:
    if args := get_args(hint):
        return _value(args[0], text)
    if issubclass(hint, Enum):
        return next(iter(hint))
    return {
        str: text,
        int: 3,
        bool: False,
        float: 0.25,
        uuid.UUID: QUEUE_ID,
        datetime: datetime(2026, 1, 31, 23, 59, 59, 123456, UTC),
    }[hint]
