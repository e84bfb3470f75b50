"""What Gmail's replies mean: a table, for each step."""

import json
from datetime import UTC, datetime

import pytest

from relayd.rules.outcome import Deferred, Failed, Outcome, Postponed, Scope, Stage, Uncertain
from relayd.upstream.dialects import generic, google
from relayd.upstream.gmail_verdict import Step, judge_failure, judge_gmail
from relayd.upstream.http import HttpFailure, HttpReply
from relayd.upstream.rule import Meaning, Rule

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
RATE = "User-rate limit exceeded.  Retry after 2026-01-31T13:00:00.123Z"


def reply(status: int, reason: str = "", message: str = "text", retry_after: float | None = None) -> HttpReply:
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return HttpReply(status, json.dumps({"error": error}).encode(), retry_after)


def judged(step: Step, said: HttpReply, *, is_own_login: bool = True) -> Outcome:
    rules = [rule for rule in (*google.RULES, *generic.RULES) if is_own_login or not rule.needs_own_login]
    return judge_gmail(step, said, rules, now=NOW)


CASES = [
    (reply(401, "authError"), Postponed, Scope.MAILBOX, 300),
    (reply(403, "rateLimitExceeded"), Postponed, Scope.MAILBOX, 60),
    (reply(403, "userRateLimitExceeded"), Postponed, Scope.MAILBOX, 60),
    (reply(403, "dailyLimitExceeded"), Postponed, Scope.MAILBOX, 3600),
    (reply(429, "rateLimitExceeded", retry_after=120), Postponed, Scope.MAILBOX, 120),
    (reply(429, "rateLimitExceeded", RATE), Postponed, Scope.MAILBOX, 3600),
    (reply(429, "userRateLimitExceeded", "User-rate limit exceeded (Mail sending)"), Postponed, Scope.MAILBOX, 3600),
    (reply(429, retry_after=10_000_000), Postponed, Scope.MAILBOX, 86400),
    (HttpReply(429, b"<html>", None), Postponed, Scope.MAILBOX, 60),
    (reply(403, "insufficientPermissions"), Postponed, Scope.UPSTREAM, 300),
    (reply(403, "accessNotConfigured"), Postponed, Scope.UPSTREAM, 300),
    (reply(403, "domainPolicy"), Postponed, Scope.UPSTREAM, 300),
    (reply(403, "forbidden", "Delegation denied for a@example.com"), Postponed, Scope.MAILBOX, 300),
    (reply(400, "failedPrecondition", "Mail service not enabled"), Postponed, Scope.MAILBOX, 300),
    (reply(403, "forbidden"), Postponed, Scope.MAILBOX, 300),
    (reply(403, "quotaExceeded"), Postponed, Scope.MAILBOX, 3600),
    (reply(429, "", "Daily user sending limit exceeded"), Postponed, Scope.MAILBOX, 3600),
    (reply(400, "invalidArgument", "Invalid To header"), Failed, Scope.MESSAGE, None),
    (reply(413, "uploadTooLarge"), Failed, Scope.MESSAGE, None),
    (reply(409, "conflict"), Deferred, Scope.MESSAGE, None),
]


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize(("said", "kind", "scope", "hold"), CASES, ids=lambda value: str(value)[:60])
def test_a_refusal_is_definite_at_either_step(
    step: Step, said: HttpReply, kind: type, scope: Scope, hold: float | None
) -> None:
    outcome = judged(step, said)
    assert isinstance(outcome, kind) and not isinstance(outcome, Uncertain)
    assert outcome.scope is scope
    if isinstance(outcome, Postponed):
        assert outcome.hold_seconds == pytest.approx(hold)
    assert f"HTTP {said.status}" in outcome.cause.text


def test_a_login_that_all_share_stops_the_upstream() -> None:
    outcome = judged(Step.CREATE, reply(401), is_own_login=False)
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.UPSTREAM


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520])
def test_a_broken_server_leaves_a_doubt_only_once_it_was_told_to_send(status: int) -> None:
    created, sent = judged(Step.CREATE, reply(status)), judged(Step.SEND, reply(status))
    assert isinstance(created, Deferred) and created.scope is Scope.UPSTREAM
    assert isinstance(sent, Uncertain) and sent.upstream_failed
    assert (created.cause.stage, sent.cause.stage) == (Stage.DATA, Stage.DOT)


def test_the_reason_is_found_wherever_google_puts_it_and_shown() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}
    error = {"code": 403, "message": "no", "status": "PERMISSION_DENIED", "details": [info]}
    outcome = judged(Step.CREATE, HttpReply(403, json.dumps({"error": error}).encode(), None))
    assert isinstance(outcome, Postponed) and outcome.scope is Scope.UPSTREAM
    assert outcome.cause.text == "drafts.create: HTTP 403 ACCESS_TOKEN_SCOPE_INSUFFICIENT no"


def test_a_draft_that_is_gone_when_it_is_to_be_sent_leaves_a_doubt() -> None:
    sent = judged(Step.SEND, reply(404, "notFound"))
    assert isinstance(sent, Uncertain) and not sent.upstream_failed
    created = judged(Step.CREATE, reply(404, "notFound"))
    assert isinstance(created, Deferred) and created.scope is Scope.MESSAGE


@pytest.mark.parametrize("status", [404, 408, 500, 503])
def test_no_table_makes_a_doubt_definite_where_a_message_may_have_gone(status: int) -> None:
    deferred = Rule(Meaning.DEFERRED, Scope.UPSTREAM, http=("4xx", "5xx"))
    assert isinstance(judge_gmail(Step.SEND, reply(status), [deferred], now=NOW), Uncertain)


def test_a_missing_reply_leaves_a_doubt_only_once_it_was_told_to_send() -> None:
    cut, refused = (HttpFailure(stage, ConnectionResetError()) for stage in (Stage.DOT, Stage.CONNECT))
    assert isinstance(judge_failure(Step.CREATE, cut), Deferred)
    assert isinstance(judge_failure(Step.CREATE, refused), Deferred)
    assert isinstance(judge_failure(Step.SEND, refused), Deferred)
    assert isinstance(judge_failure(Step.SEND, cut), Uncertain)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error": "x"}', b"[" * 100_000, b'{"error": {"errors": 3}}', b"\xff"])
def test_a_body_of_any_kind_is_no_error_of_ours(body: bytes) -> None:
    assert isinstance(judged(Step.CREATE, HttpReply(400, body, None)), Failed)
