"""Translate what an upstream says, or fails to say, into an Outcome. Pure, and the only translator there is.

What a reply means is data: the first rule that matches decides. A reply that no rule knows is nonsense at that
stage, and nonsense is judged as a broken connection is: definite until the final dot has left, then uncertain.
"""

import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from aiosmtplib import SMTPResponseException

from relayd.errors import RelaydError
from relayd.mail.reply import enhanced_code
from relayd.rules.bounce_class import Refusal, classify
from relayd.rules.outcome import Cause, Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.upstream.dialects import generic
from relayd.upstream.rule import Meaning, Rule, matches_reply
from relayd.upstream.tokens import AccountRefused, GrantDead, LoginRefused

__all__ = ["GENERIC", "Meaning", "Rule", "judge_exception", "judge_reply", "refuse"]

# For a login that several share, as most are.
GENERIC = tuple(rule for rule in generic.RULES if not rule.needs_own_login)
MAX_TEXT_CHARACTERS = 500
MAX_PROVIDER_ID_CHARACTERS = 128
# How long mail waits before a login that somebody has to mend is tried again.
UNMENDED_SECONDS = 300.0


class ProtocolViolation(RelaydError):
    """The peer does not speak SMTP: nothing it says on this connection can be believed any more."""


class Unfit(RelaydError):
    """The upstream does not offer what the settings demand; the text says what is missing."""


def judge_reply(
    stage: Stage,
    code: int,
    text: str,
    *,
    some_accepted: bool = False,
    is_sole_recipient: bool = False,
    rules: Sequence[Rule] = GENERIC,
) -> Outcome:
    """What a reply at `stage` means. `some_accepted`: this transaction has an accepted recipient already;
    `is_sole_recipient`: it has one and no more, so that a refusal after DATA may be about that recipient.

    A positive reply has a meaning at DOT only; elsewhere it is asked about when it is not the one expected.
    """
    if not 200 <= code <= 599:
        return judge_exception(stage, ProtocolViolation(f"reply with the impossible code {code}: {text}"))
    cause = cause_of(stage, code, text)
    rule = rule_for(cause, some_accepted=some_accepted, rules=rules)
    if rule is None:
        return judge_exception(stage, ProtocolViolation(f"unexpected reply: {code} {text}"))
    outcome = outcome_of(rule, cause)
    if is_sole_recipient and isinstance(outcome, Failed) and outcome.scope is Scope.MESSAGE and _is_about_sole(cause):
        return Failed(Scope.RECIPIENT, cause)
    return outcome


def _is_about_sole(cause: Cause) -> bool:
    """Whether a refusal after DATA says that the only recipient does not exist."""
    if cause.stage not in (Stage.DATA, Stage.DOT):
        return False
    return classify(Refusal(cause.text, cause.code, cause.enhanced, cause.stage)).suppresses


def cause_of(stage: Stage, code: int, text: str) -> Cause:
    """A reply, its text made fit to be stored and shown."""
    return Cause(stage, _reply_text(stage, text), code, enhanced_code(text))


def rule_for(cause: Cause, *, some_accepted: bool, rules: Sequence[Rule]) -> Rule | None:
    """The first that speaks of this reply; None if it is nonsense at its stage."""
    return next((rule for rule in rules if matches_reply(rule, cause, some_accepted=some_accepted)), None)


def outcome_of(rule: Rule, cause: Cause) -> Outcome:
    """What a rule makes of a reply that it matches."""
    match rule.meaning:
        case Meaning.SENT:
            return Sent(cause, _provider_message_id(cause.text))
        case Meaning.DEFERRED:
            return Deferred(rule.scope, cause)
        case Meaning.FAILED:
            return Failed(rule.scope, cause)
        case Meaning.POSTPONED:
            return Postponed(rule.scope, cause, rule.hold_seconds, rule.limit)
        case Meaning.UNCERTAIN:
            return Uncertain(cause, upstream_failed=rule.scope is Scope.UPSTREAM)
        case _:
            assert_never(rule.meaning)


def judge_exception(stage: Stage, error: BaseException, rules: Sequence[Rule] = GENERIC) -> Outcome:
    """What an error at `stage` means. At DOT nobody can know, unless the error carries a reply that was read."""
    if isinstance(error, SMTPResponseException) and 200 <= error.code <= 599:
        return judge_reply(stage, error.code, error.message, rules=rules)
    cause = Cause(stage, clean(_error_text(error)))
    match error:
        case GrantDead():
            return Postponed(Scope.UPSTREAM, cause, UNMENDED_SECONDS)
        case AccountRefused():
            return Postponed(Scope.MAILBOX, cause, UNMENDED_SECONDS)
        case LoginRefused():
            scope = Scope.MAILBOX if error.is_of_account else Scope.UPSTREAM
            return Postponed(scope, replace(cause, code=error.code, enhanced=error.enhanced), UNMENDED_SECONDS)
    return Uncertain(cause) if stage is Stage.DOT else Deferred(Scope.UPSTREAM, cause)


def refuse(scope: Scope, enhanced: str, text: str) -> Failed:
    """A refusal of our own, made before the upstream was asked because its answer is known."""
    return Failed(scope, Cause(Stage.LOCAL, clean(text), None, enhanced))


def clean(text: str) -> str:
    """Text of a peer made fit to be stored and shown: valid Unicode on one line, printable, capped."""
    decoded = text[: MAX_TEXT_CHARACTERS * 8]
    if not (decoded.isascii() and decoded.isprintable()):
        decoded = decoded.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        decoded = "".join(character if character.isprintable() else " " for character in decoded)
    return " ".join(decoded.split())[:MAX_TEXT_CHARACTERS]


# Long runs of base64 in the answer to AUTH may be our own credentials, echoed.
_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")


def _reply_text(stage: Stage, text: str) -> str:
    cleaned = clean(text)
    return _BASE64.sub("***", cleaned) if stage is Stage.AUTH else cleaned


# Amazon SES answers `Ok 0100018f…-000000`.
_QUEUED_AS = re.compile(
    r"(?:\bqueued as|\bid=|\Aok(?= [0-9a-f]{16,24}-[0-9a-f]{8}-))\s*[<\[(]?([^\s<>\[\]();,]+)", re.IGNORECASE
)


def _provider_message_id(text: str) -> str | None:
    match = _QUEUED_AS.search(text)
    return match.group(1)[:MAX_PROVIDER_ID_CHARACTERS] if match else None


def _error_text(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS: certificate not accepted: {getattr(error, 'verify_message', error)}"
        case ssl.SSLError():
            return f"TLS failed: {getattr(error, 'reason', None) or error}"
        case RelaydError():
            return str(error)
        case SMTPResponseException():
            return f"not a valid SMTP reply: {error.message}"
        case TimeoutError():
            return "timed out"
        case socket.gaierror():
            return f"host name cannot be resolved: {error.strerror}"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError() | EOFError():
            return "connection lost"
        case OSError():
            # Several addresses failed: asyncio gathers their texts into one error without a number.
            text = error.strerror or str(error) or type(error).__name__
            return f"{text}: {error.filename}" if error.filename else text
        case _:
            # A bug of ours. Its text could hold anything: only its name is told, whoever caught it logs the rest.
            return f"internal error: {type(error).__name__}"
