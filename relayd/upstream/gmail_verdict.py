"""Translate what Gmail's API says into an Outcome, by the table of its upstream. Pure.

The table speaks of the request that sends. Until `drafts.send` has been asked nothing can have been sent: what the
table holds for uncertain is definite before.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from relayd.rules.outcome import Deferred, Outcome, Scope, Stage, Uncertain
from relayd.upstream.http import HttpFailure, HttpReply
from relayd.upstream.http_verdict import judge_http
from relayd.upstream.rule import Rule
from relayd.upstream.verdict import clean, judge_exception

_RETRY_AFTER = re.compile(rb"retry after (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", re.IGNORECASE)


class Step(StrEnum):
    """What was asked of the API."""

    CREATE = "drafts.create"
    SEND = "drafts.send"


def judge_gmail(step: Step, reply: HttpReply, rules: Sequence[Rule], *, now: datetime) -> Outcome:
    """What a reply that is no success means."""
    if reply.retry_after_seconds is None:
        reply = replace(reply, retry_after_seconds=_retry_after(reply.content, now))
    outcome = judge_http(reply, rules)
    stage = Stage.DOT if step is Step.SEND else Stage.DATA
    cause = replace(outcome.cause, stage=stage, text=clean(f"{step}: {outcome.cause.text}"))
    if step is Step.SEND and _may_have_sent(reply.status):
        # Whatever a table says: a draft that is gone may be gone because it was sent.
        return Uncertain(cause, upstream_failed=reply.status != 404)
    if isinstance(outcome, Uncertain) and step is Step.CREATE:
        return Deferred(Scope.UPSTREAM if outcome.upstream_failed else Scope.MESSAGE, cause)
    return replace(outcome, cause=cause)


def _may_have_sent(status: int) -> bool:
    return status in (404, 408) or (status >= 500 and status not in (501, 505))


def judge_failure(step: Step, failure: HttpFailure) -> Outcome:
    """What a missing reply means: nothing was sent, unless it was to be sent by this very request."""
    if step is Step.SEND:
        return judge_exception(failure.stage, failure.error)
    return judge_exception(Stage.CONNECT if failure.stage is Stage.CONNECT else Stage.DATA, failure.error)


def _retry_after(content: bytes, now: datetime) -> float | None:
    """What Google writes into its text where it sets no header: `Retry after 2026-01-31T23:59:59.123Z`."""
    match = _RETRY_AFTER.search(content)
    if match is None:
        return None
    try:
        return (datetime.fromisoformat(match.group(1).decode()).replace(tzinfo=UTC) - now).total_seconds()
    except ValueError:
        return None


def json_object(content: bytes) -> dict[str, Any] | None:
    """The JSON object of a body, None where it is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
