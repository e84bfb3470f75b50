"""What an app says of a message in X-Relayd-* fields: its class, when it may leave, which pool sends it.

They are read here and taken out before the message is signed. Of what is not known here nothing is made.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from relayd.mail.date_time import parse_date_time
from relayd.mail.headers import HeaderScan
from relayd.rules.mail_class import MailClass

CLASS = b"X-Relayd-Class"
NOT_BEFORE = b"X-Relayd-Not-Before"
POOL = b"X-Relayd-Pool"

MAX_NAME_OCTETS = 63


@dataclass(frozen=True, slots=True)
class Instructions:
    """What was asked for; None: nothing was. A time in the past is none."""

    mail_class: MailClass | None = None
    not_before: datetime | None = None
    pool: str | None = None


NONE = Instructions()


def read(scan: HeaderScan, *, now: datetime, furthest: timedelta) -> Instructions:
    """Raises ValueError, with a reason fit for a reply, for a value that is not allowed or a field that comes twice."""
    if not any(field.key.startswith(b"x-relayd-") for field in scan.fields):
        return NONE
    return Instructions(_mail_class(scan), _not_before(scan, now, furthest), _pool(scan))


def _mail_class(scan: HeaderScan) -> MailClass | None:
    value = _value(scan, CLASS)
    if value is None:
        return None
    try:
        return MailClass(value.decode("ascii", "replace").lower())
    except ValueError:
        raise ValueError(f"{CLASS.decode()} must be {' or '.join(MailClass)}") from None


def _not_before(scan: HeaderScan, now: datetime, furthest: timedelta) -> datetime | None:
    value = _value(scan, NOT_BEFORE)
    if value is None:
        return None
    try:
        when = parse_date_time(value)
    except ValueError as error:
        raise ValueError(f"{NOT_BEFORE.decode()} {error}") from None
    if when > now + furthest:
        days = furthest / timedelta(days=1)
        raise ValueError(f"{NOT_BEFORE.decode()} may be at most {days:g} days ahead")
    return when if when > now else None


def _pool(scan: HeaderScan) -> str | None:
    value = _value(scan, POOL)
    if value is None:
        return None
    if not 0 < len(value) <= MAX_NAME_OCTETS or not value.isascii() or not value.decode("ascii").isprintable():
        raise ValueError(f"{POOL.decode()} must be the name of a pool")
    return value.decode("ascii").lower()


def _value(scan: HeaderScan, name: bytes) -> bytes | None:
    fields = scan.all(name)
    if len(fields) > 1:
        raise ValueError(f"message has {len(fields)} {name.decode()} fields; at most one is allowed")
    return fields[0].value if fields else None
