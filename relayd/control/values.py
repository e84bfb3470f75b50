"""Kinds of text that a peer may send, each checked once, here. Messages never quote the value."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field

from relayd.mail.address import Address
from relayd.rules.duration import parse_duration
from relayd.rules.warm_up import Schedule

_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_LOGIN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$")
_LONGEST_DEADLINE = timedelta(days=365)
_LONGEST_DOMAIN = 253
_TIER = re.compile(r"^[A-Za-z][A-Za-z0-9 _-]{0,62}$")
_TIME = "must be a time such as 2026-11-22T08:00:00Z"


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("must be lower-case letters, digits, dots, hyphens and underscores, at most 63")
    return text


def _login(text: str) -> str:
    if not _LOGIN.fullmatch(text):
        raise ValueError("must be letters, digits and ._@+-, at most 128, starting with a letter or digit")
    return text


def _tier(text: str) -> str:
    if not _TIER.fullmatch(text):
        raise ValueError("must be letters, digits, spaces, hyphens and underscores, at most 63")
    return text


def _printable(text: str) -> str:
    # Postgres takes no NUL, and a control character in a name would play tricks in a terminal.
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


def _address(text: str) -> str:
    return Address.parse(text).plain


def _domain(text: str) -> str:
    """In lower case and ASCII: U-labels become A-labels."""
    try:
        domain = Address.parse(f"postmaster@{text}").ascii_domain
    except ValueError as error:
        raise ValueError(f"must be a domain such as example.com ({error})") from None
    labels = domain.split(".")
    if len(labels) < 2 or domain.startswith("[") or len(domain) > _LONGEST_DOMAIN or max(map(len, labels)) > 63:
        raise ValueError("must be a domain such as example.com")
    # RFC 5892 2.2, 2.8, for the most part: full-width letters, emoji and what cannot be seen are in no domain.
    composed = unicodedata.normalize("NFC", text.lower())
    if not all(_is_in_a_name(character) for character in composed):
        raise ValueError("must be a domain such as example.com, in letters, digits and hyphens")
    return domain


def _is_in_a_name(character: str) -> bool:
    if character.isascii():
        return True
    is_letter = unicodedata.category(character) in {"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"}
    return is_letter and unicodedata.normalize("NFKC", character) == character


def _sender(text: str) -> str:
    return Address.parse(text).key if "@" in text else _domain(text)


def _no_number(value: object) -> object:
    # pydantic takes a number for seconds since 1970, and nobody who types one means that.
    if isinstance(value, str) and value.replace(".", "", 1).lstrip("-+").isdigit():
        raise ValueError(_TIME)
    return value


def _instant(when: datetime) -> datetime:
    # The margins leave room for days before and after, and for every time zone.
    if not 1971 <= when.year <= 9998:
        raise ValueError(_TIME)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _any_id(value: object) -> object:
    # Spelled as the 250 had it or as a log line has it: with or without dashes.
    try:
        return UUID(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be an id such as 01890a5d-ac96-774b-bcce-b302099a8057, dashes or not") from None


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _deadline(text: str) -> str:
    if not timedelta(seconds=1) <= parse_duration(text) <= _LONGEST_DEADLINE:
        raise ValueError("must be from 1s to 365d")
    return text


def _recipients(text: str) -> str:
    return "@" + _domain(text[1:]) if text.startswith("@") else Address.parse(text).key


def domain_pattern(text: str) -> str:
    """`example.com`, or `*.example.com` (also written `.example.com`) for all below it."""
    below = text.startswith(("*.", "."))
    return f"*.{_domain(text.lstrip('*').removeprefix('.'))}" if below else _domain(text)


def sender_pattern(text: str) -> str:
    """An address, or a domain as domain_pattern has it."""
    return Address.parse(text).key if "@" in text else domain_pattern(text)


# clients.name, email_configurations.name
Name = Annotated[str, Field(json_schema_extra={"pattern": _NAME.pattern}), AfterValidator(_name)]
# smtp_credentials.login
Login = Annotated[str, Field(json_schema_extra={"pattern": _LOGIN.pattern}), AfterValidator(_login)]
# clients.tier; Ignition, Velocity and Dominance are the ones that come with relayd.
Tier = Annotated[str, Field(json_schema_extra={"pattern": _TIER.pattern}), AfterValidator(_tier)]
# What names a thing that should exist: whatever it is, a look-up answers.
Key = Annotated[str, Field(min_length=1, max_length=320), AfterValidator(_printable)]
Line = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_printable)]
EmailAddress = Annotated[str, Field(max_length=254), AfterValidator(_address)]
DomainName = Annotated[str, Field(max_length=_LONGEST_DOMAIN), AfterValidator(_domain)]
Sender = Annotated[
    str, Field(max_length=254, description="An address, or a domain for all of its addresses"), AfterValidator(_sender)
]
Instant = Annotated[
    datetime,
    Field(description="Such as 2026-11-22T08:00:00Z; UTC unless it says otherwise"),
    BeforeValidator(_no_number),
    AfterValidator(_instant),
]
# A queue id (the message's), or the id of one of its entries.
AnyId = Annotated[UUID, BeforeValidator(_any_id)]
Duration = Annotated[str, Field(max_length=30, description="Such as 15m, 2h, 3d"), AfterValidator(_duration)]
# A limit. NULL is unlimited.
Limit = Annotated[int, Field(ge=0, le=2_147_483_647, description="Recipients; 0 never, null unlimited")]
Percent = Annotated[int, Field(ge=0, le=100, description="Of the limit, kept from bulk mail")]
Deadline = Annotated[str, Field(max_length=30, description="Such as 15m, 2h, 3d"), AfterValidator(_deadline)]
ScheduleText = Annotated[
    str, Field(max_length=500, description="10x5,20x5,75"), AfterValidator(lambda text: str(Schedule.parse(text)))
]
Recipients = Annotated[str, Field(max_length=254, description="An address, or @domain"), AfterValidator(_recipients)]
