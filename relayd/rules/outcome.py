"""What became of one recipient in one attempt. Expected failures are values, matched whole.

A failure always says where it happened (stage) and what it speaks of (scope).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

# What a provider's limit counts over.
Limit = Literal["day", "hour"]


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
    """The upstream took responsibility; with `dsn_passed` also for telling the sender what he asked to be told."""

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
    """Definitely not sent because a limit says later. Spends no attempt, harms no statistic.

    `limit`: the upstream says that its limit of that span is spent; `scope` says whose, the mailbox's or all of it.
    """

    scope: Scope
    cause: Cause
    hold_seconds: float
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The message may have been taken, and no reply says so or denies it: sent or not, nobody can know.

    `upstream_failed`: it did answer, and that it is in trouble itself.
    """

    cause: Cause
    upstream_failed: bool = False


Outcome = Sent | Deferred | Failed | Postponed | Uncertain
