"""What became of one recipient in one attempt. Expected failures are values, matched whole.

A failure always says where it happened (stage) and what it speaks of (scope).
"""

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """How far a transaction had come. After DOT begins nobody can know until the reply is read."""

    LOCAL = "local"
    CONNECT = "connect"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


class Scope(StrEnum):
    """What a failure speaks of."""

    UPSTREAM = "upstream"
    MAILBOX = "mailbox"
    MESSAGE = "message"
    RECIPIENT = "recipient"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why: the stage, the reply if there was one, and a text fit to be stored and shown (no secrets, capped)."""

    stage: Stage
    text: str
    code: int | None = None
    enhanced: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The upstream took responsibility. `dsn_passed`: it was told whom to notify and will (RFC 3461)."""

    cause: Cause
    provider_message_id: str | None = None
    dsn_passed: bool = False


@dataclass(frozen=True, slots=True)
class Deferred:
    """Definitely not sent; try again later. Spends an attempt."""

    scope: Scope
    cause: Cause


@dataclass(frozen=True, slots=True)
class Failed:
    """Definitely not sent, and trying again is of no use."""

    scope: Scope
    cause: Cause


@dataclass(frozen=True, slots=True)
class Postponed:
    """Definitely not sent because a limit says later. Spends no attempt, harms no statistic."""

    scope: Scope
    cause: Cause
    hold_seconds: float


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The final dot may have been taken and no reply was read: sent or not, nobody can know."""

    cause: Cause


Outcome = Sent | Deferred | Failed | Postponed | Uncertain
