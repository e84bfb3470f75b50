"""The parameters by which a submitter says what it wants to be told (RFC 3461 4), parsed strictly. Pure.

Values keep their case and their xtext: they are passed on as they came. What they say is checked all the same, since
it is written into notifications. Each parser raises ValueError for what is not allowed.
"""

import re

from relayd.mail import xtext

MAX_ENVELOPE_ID_CHARACTERS = 100
MAX_ORIGINAL_RECIPIENT_CHARACTERS = 500

_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}\Z")
_NOTIFY_WORDS = ("SUCCESS", "FAILURE", "DELAY")


def parse_ret(value: str) -> str:
    """FULL or HDRS."""
    word = value.upper()
    if word not in {"FULL", "HDRS"}:
        raise ValueError("neither FULL nor HDRS")
    return word


def parse_envelope_id(value: str) -> str:
    """ENVID, as it came."""
    if len(value) > MAX_ENVELOPE_ID_CHARACTERS or not value.isascii():
        raise ValueError("too long, or not ASCII")
    xtext.decode(value)
    return value


def parse_notify(value: str) -> str:
    """NEVER, or a list of SUCCESS, FAILURE and DELAY; in upper case, each word once."""
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    if not set(words) <= set(_NOTIFY_WORDS):
        raise ValueError("neither NEVER nor a list of SUCCESS, FAILURE and DELAY")
    return ",".join(word for word in _NOTIFY_WORDS if word in words)


def parse_original_recipient(value: str, *, smtputf8: bool) -> str:
    """ORCPT, `type;xtext`, as it came. Beyond ASCII it needs SMTPUTF8 and the type utf-8 (RFC 6533 3)."""
    kind, semicolon, text = value.partition(";")
    if not semicolon or len(value) > MAX_ORIGINAL_RECIPIENT_CHARACTERS or not _ADDRESS_TYPE.match(kind):
        raise ValueError("not type;address")
    if not text.isascii() and not (smtputf8 and kind.lower() == "utf-8"):
        raise ValueError("not ASCII")
    xtext.decode(text)
    return value
