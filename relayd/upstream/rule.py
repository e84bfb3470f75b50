"""One line of the verdict table: which replies it speaks of, and what they mean.

Patterns are plain enough to be matched in linear time, whatever a peer sends and whoever wrote the rule.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from relayd.rules.outcome import Cause, Limit, Scope, Stage

OPENING = (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)
ENVELOPE = (Stage.MAIL, Stage.RCPT, Stage.DATA)
WHOLE_MESSAGE = (Stage.MAIL, Stage.DATA, Stage.DOT)
IN_TRANSACTION = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT)


class Meaning(StrEnum):
    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    POSTPONED = "postponed"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Rule:
    """One reading of a reply. What is left out matches everything.

    `codes` and `enhanced` are patterns in which `x` stands for anything: `4xx`, `5.7.x`. `text` is searched without
    regard to case: `*` stands for anything, `|` is between alternatives. `needs_accepted` asks that the transaction
    has a recipient already, `needs_own_login` that the login is that of the sending mailbox alone. A rule with `http`
    speaks of HTTP statuses (patterns as those of codes) and of no SMTP reply; `reason` is a word of the answer's JSON,
    in any case, `|` between alternatives. What is uncertain is about the upstream where that says of itself that it is
    in trouble. `limit` says that the provider's limit of that span is spent. `note` is for people.
    """

    meaning: Meaning
    scope: Scope
    stages: tuple[Stage, ...] = ()
    codes: tuple[str, ...] = ()
    enhanced: str | None = None
    text: str | None = None
    needs_accepted: bool = False
    hold_seconds: float = 0.0
    needs_own_login: bool = False
    limit: Limit | None = None
    http: tuple[str, ...] = ()
    reason: str | None = None
    note: str = ""


def matches_reply(rule: Rule, cause: Cause, *, some_accepted: bool) -> bool:
    """Whether it speaks of this SMTP reply."""
    return (
        not rule.http
        and (not rule.stages or cause.stage in rule.stages)
        and (not rule.codes or any(_fits(pattern, str(cause.code)) for pattern in rule.codes))
        and (rule.enhanced is None or _fits(rule.enhanced, cause.enhanced or ""))
        and (rule.text is None or contains(rule.text, cause.text))
        and (some_accepted or not rule.needs_accepted)
    )


def matches_http(rule: Rule, status: int, text: str, reasons: tuple[str, ...]) -> bool:
    """Whether it speaks of this HTTP answer. `reasons` are in lower case."""
    return (
        any(_fits(pattern, str(status)) for pattern in rule.http)
        and (rule.text is None or contains(rule.text, text))
        and (rule.reason is None or not _words(rule.reason).isdisjoint(reasons))
    )


def contains(pattern: str, text: str) -> bool:
    """`*` stands for anything, `|` is between alternatives; case is nothing."""
    lowered = text.lower()
    return any(_in_order(alternative.split("*"), lowered) for alternative in pattern.lower().split("|"))


def _in_order(pieces: list[str], text: str) -> bool:
    position = 0
    for piece in pieces:
        found = text.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    return True


@lru_cache(maxsize=4096)
def _words(pattern: str) -> frozenset[str]:
    return frozenset(pattern.lower().split("|"))


@lru_cache(maxsize=4096)
def _fits(pattern: str, value: str) -> bool:
    """`4xx` fits 450; `5.7.x` fits 5.7.26: an `x` that ends an enhanced code stands for any number."""
    expression = re.escape(pattern).replace(r"\.x", r"\.\d+").replace("x", r"\d")
    return re.fullmatch(expression, value) is not None
