"""Translate a provider's HTTP answers into outcomes, by the same table as SMTP replies. Pure."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from relayd.rules.outcome import Cause, Outcome, Postponed, Stage
from relayd.upstream.http import HttpReply
from relayd.upstream.rule import Rule, matches_http
from relayd.upstream.verdict import GENERIC, ProtocolViolation, clean, judge_exception, outcome_of

# Longer than any window; what asks for more is asked again then.
LONGEST_HOLD_SECONDS = 86_400.0
_MOST_ERRORS = 20


def judge_http(reply: HttpReply, rules: Sequence[Rule] = GENERIC) -> Outcome:
    """What an answer that was read whole means, unless it is a success, which only the asker can read.

    A hold is as long as the answer itself asks for, else as the rule says.
    """
    cause, reasons = read(reply)
    rule = rule_for_http(reply.status, cause.text, reasons, rules)
    if rule is None:
        return judge_exception(Stage.DOT, ProtocolViolation(f"unexpected answer: HTTP {reply.status} {cause.text}"))
    outcome = outcome_of(rule, cause)
    if isinstance(outcome, Postponed) and reply.retry_after_seconds is not None:
        return replace(outcome, hold_seconds=min(max(reply.retry_after_seconds, 1.0), LONGEST_HOLD_SECONDS))
    return outcome


def rule_for_http(status: int, text: str, reasons: tuple[str, ...], rules: Sequence[Rule]) -> Rule | None:
    """The first that speaks of this answer."""
    return next((rule for rule in rules if matches_http(rule, status, text, reasons)), None)


def read(reply: HttpReply) -> tuple[Cause, tuple[str, ...]]:
    """What it says, for people, and in lower case the words in it that rules may name.

    Google's and SendGrid's JSON is known. In anything else every word may be one, as in a text that this has given.
    """
    try:
        said = json.loads(reply.content)
    except (ValueError, RecursionError):
        said = None
    named, texts, reasons = [], [], []
    for error in errors_of(said):
        field = error.get("field")
        message = error.get("message")
        if isinstance(message, str):
            texts.append(f"{message} ({field})" if isinstance(field, str) and field else message)
        named += [reason] if isinstance(reason := error.get("reason"), str) else []
        reasons += [value for key in ("reason", "status") if isinstance(value := error.get(key), str)]
    text = " ".join([*named[:1], "; ".join(dict.fromkeys(texts))]).strip()
    if not text:
        text = reply.content[:2000].decode("utf-8", "replace")
        reasons = reasons or text.split()
    words = tuple(reason.lower() for reason in reasons)
    enhanced = "5.3.4" if reply.status == 413 or "uploadtoolarge" in words else None
    return Cause(Stage.DOT, clean(f"HTTP {reply.status} {text}"), None, enhanced), words


def errors_of(said: Any) -> list[dict[str, Any]]:
    """`{"errors": [{"message", "field"}]}` as SendGrid has it, `{"error": {"message", "errors": […], "details": […]}}`
    as Google."""
    if not isinstance(said, dict):
        return []
    error = said.get("error")
    outer = error if isinstance(error, dict) else said
    inner = [outer.get(name) for name in ("errors", "details")]
    found = [outer, *(each for listed in inner if isinstance(listed, list) for each in listed)]
    return [each for each in found if isinstance(each, dict)][:_MOST_ERRORS]
