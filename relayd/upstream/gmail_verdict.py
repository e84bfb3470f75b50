"""Translate what Gmail's API says into an Outcome. Pure; the first row of the table that fits decides.

Until `drafts.send` has been asked nothing can have been sent. Of its replies those of 5xx leave a doubt: Google may
have gone on by itself.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, assert_never

from relayd.rules.outcome import Cause, Deferred, Failed, Outcome, Postponed, Scope, Stage, Uncertain
from relayd.upstream.http import HttpFailure, HttpReply
from relayd.upstream.verdict import clean, judge_exception

# The code for "not before a while", where Google does not say how long.
RATE_HOLD_SECONDS = 60.0
DAY_HOLD_SECONDS = 3600.0
BROKEN_HOLD_SECONDS = 300.0
LONGEST_HOLD_SECONDS = 86400.0
_RETRY_AFTER = re.compile(r"retry after (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", re.IGNORECASE)


class Step(StrEnum):
    """What was asked of the API."""

    CREATE = "drafts.create"
    SEND = "drafts.send"


class Reading(StrEnum):
    """What a reply means, before it is known at which step it came and whose token was used."""

    RATE = "rate"  # the account's, or the project's, for a moment
    DAY = "day"  # the account may send no more today
    LOGIN = "login"  # the token is not taken, or not for this
    ACCOUNT = "account"  # the account cannot send mail
    PROJECT = "project"  # the API is not enabled, or forbidden in the domain
    MESSAGE = "message"
    SIZE = "size"
    AGAIN = "again"  # refused for now


@dataclass(frozen=True, slots=True)
class Rule:
    """One reading. What is left out matches everything; `reason` and `text` are looked for in lower case."""

    reading: Reading
    statuses: tuple[int, ...]
    reasons: tuple[str, ...] = ()
    text: str = ""


RULES: tuple[Rule, ...] = (
    Rule(Reading.LOGIN, (401,)),
    Rule(Reading.DAY, (403, 429), text="mail sending"),
    Rule(Reading.DAY, (403, 429), ("dailylimitexceeded", "quotaexceeded")),
    Rule(Reading.RATE, (403,), ("ratelimitexceeded", "userratelimitexceeded", "rate_limit_exceeded")),
    Rule(Reading.RATE, (429,)),
    Rule(Reading.PROJECT, (403,), ("accessnotconfigured", "service_disabled", "domainpolicy")),
    # The token's scopes, which are the same for every mailbox.
    Rule(Reading.PROJECT, (403,), ("insufficientpermissions", "access_token_scope_insufficient")),
    Rule(Reading.ACCOUNT, (403,), ("delegationdenied", "delegation denied")),
    Rule(Reading.LOGIN, (403,)),
    Rule(Reading.ACCOUNT, (400,), ("failedprecondition", "failed_precondition")),
    Rule(Reading.SIZE, (413,)),
    Rule(Reading.SIZE, (400,), ("uploadtoolarge",)),
    Rule(Reading.MESSAGE, (400,)),
    Rule(Reading.AGAIN, (404, 408, 409, 412)),
)


def judge_gmail(step: Step, reply: HttpReply, *, is_own_login: bool, now: datetime) -> Outcome:
    """What a reply that is no success means. `is_own_login`: the token was made for this mailbox alone."""
    reasons, text = _said(reply)
    stage = Stage.DOT if step is Step.SEND else Stage.DATA
    cause = Cause(stage, clean(f"{step}: HTTP {reply.status} {text}"))
    if step is Step.SEND and reply.status == 404:
        return Uncertain(cause)  # gone, and it was there: removed by somebody, or sent already
    lowered = text.lower()
    for rule in RULES:
        if reply.status in rule.statuses and (not rule.reasons or reasons & set(rule.reasons)) and rule.text in lowered:
            retry_after = reply.retry_after_seconds or _retry_after(text, now)
            return _outcome(rule.reading, cause, retry_after, is_own_login)
    if step is Step.SEND and not 400 <= reply.status <= 499:
        return Uncertain(cause)
    return Deferred(Scope.UPSTREAM, cause)


def judge_failure(step: Step, failure: HttpFailure) -> Outcome:
    """What a missing reply means: nothing was sent, unless it was to be sent by this very request."""
    if step is Step.SEND:
        return judge_exception(failure.stage, failure.error)
    return judge_exception(Stage.CONNECT if failure.stage is Stage.CONNECT else Stage.DATA, failure.error)


def _outcome(reading: Reading, cause: Cause, retry_after: float | None, is_own_login: bool) -> Outcome:
    match reading:
        case Reading.RATE:
            return Postponed(Scope.MAILBOX, cause, _hold(retry_after, RATE_HOLD_SECONDS))
        case Reading.DAY:
            return Postponed(Scope.MAILBOX, cause, _hold(retry_after, DAY_HOLD_SECONDS))
        case Reading.LOGIN:
            return Postponed(Scope.MAILBOX if is_own_login else Scope.UPSTREAM, cause, BROKEN_HOLD_SECONDS)
        case Reading.ACCOUNT:
            return Postponed(Scope.MAILBOX, cause, BROKEN_HOLD_SECONDS)
        case Reading.PROJECT:
            return Postponed(Scope.UPSTREAM, cause, BROKEN_HOLD_SECONDS)
        case Reading.MESSAGE:
            return Failed(Scope.MESSAGE, cause)
        case Reading.SIZE:
            return Failed(Scope.MESSAGE, Cause(cause.stage, cause.text, None, "5.3.4"))
        case Reading.AGAIN:
            return Deferred(Scope.MESSAGE, cause)
        case _:
            assert_never(reading)


def _hold(retry_after: float | None, otherwise: float) -> float:
    return min(max(retry_after, 1.0), LONGEST_HOLD_SECONDS) if retry_after is not None else otherwise


def _retry_after(text: str, now: datetime) -> float | None:
    """What Google writes into its text where it sets no header: `Retry after 2026-01-31T23:59:59.123Z`."""
    match = _RETRY_AFTER.search(text)
    if match is None:
        return None
    try:
        return (datetime.fromisoformat(match.group(1)).replace(tzinfo=UTC) - now).total_seconds()
    except ValueError:
        return None


def _said(reply: HttpReply) -> tuple[set[str], str]:
    """The reasons that the body gives, in lower case, and its text."""
    error = json_object(reply.content).get("error")
    if not isinstance(error, dict):
        return set(), ""
    parts = [each for name in ("errors", "details") for each in _objects(error.get(name))]
    reasons = {str(each["reason"]).lower() for each in parts if "reason" in each}
    if isinstance(error.get("status"), str):
        reasons.add(error["status"].lower())
    named = next((str(each["reason"]) for each in parts if "reason" in each), "")
    return reasons, f"{named} {error.get('message', '')}".strip()


def json_object(content: bytes) -> dict[str, Any]:
    """The JSON object of a body, empty where it is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
