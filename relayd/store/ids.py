"""Ids that follow time: UUID version 7 (RFC 9562)."""

import os
import time
from datetime import datetime
from uuid import UUID

_VERSION_AND_VARIANT = (0x7 << 76) | (0b10 << 62)
_RANDOM = (((1 << 12) - 1) << 64) | ((1 << 62) - 1)


def new_id() -> UUID:
    """A fresh UUIDv7 of this machine's clock. Order within a millisecond is random."""
    return _compose(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10)) & _RANDOM)


def new_ids(count: int) -> list[UUID]:
    """Fresh UUIDv7s in rising order, so that a message's entries lie side by side in every index."""
    milliseconds = time.time_ns() // 1_000_000
    # Half of the random range as the start leaves room to count up without wrapping.
    start = int.from_bytes(os.urandom(7)) & ((1 << 56) - 1)
    prefix = int.from_bytes(os.urandom(2)) & 0xFFF
    return [_compose(milliseconds, (prefix << 64) | (start + offset)) for offset in range(count)]


def first_id_at(when: datetime) -> UUID:
    """The smallest id of that instant: bounds a range of ids by time."""
    return _compose(int(when.timestamp() * 1000), 0)


def _compose(milliseconds: int, random_bits: int) -> UUID:
    return UUID(int=(milliseconds << 80) | _VERSION_AND_VARIANT | random_bits)
