"""Translate what an upstream says, or fails to say, into an Outcome. Pure, and the only translator there is.

What a reply means is data: the first rule that matches decides. A reply that no rule knows is nonsense at that
stage, and nonsense is judged as a broken connection is: definite until the final dot has left, then uncertain.
"""

import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import assert_never

from aiosmtplib import SMTPResponseException

from relayd.errors import RelaydError
from relayd.mail.reply import enhanced_code
from relayd.rules.outcome import Cause, Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.upstream.tokens import AccountRefused, GrantDead, LoginRefused

MAX_TEXT_CHARACTERS = 500
MAX_PROVIDER_ID_CHARACTERS = 128
# How long mail waits before a login that somebody has to mend is tried again.
UNMENDED_SECONDS = 300.0


class ProtocolViolation(RelaydError):
    """The peer does not speak SMTP: nothing it says on this connection can be believed any more."""


class Unfit(RelaydError):
    """The upstream does not offer what the settings demand; the text says what is missing."""


class Meaning(StrEnum):
    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    POSTPONED = "postponed"


@dataclass(frozen=True, slots=True)
class Rule:
    """One reading of a reply. What is left out matches everything.

    `codes` and `enhanced` are patterns in which `x` stands for anything: `4xx`, `5.7.x`. `text` is a regular
    expression, searched without regard to case. `needs_accepted` asks that the transaction has a recipient already.
    """

    meaning: Meaning
    scope: Scope
    stages: tuple[Stage, ...] = ()
    codes: tuple[str, ...] = ()
    enhanced: str | None = None
    text: str | None = None
    needs_accepted: bool = False
    hold_seconds: float = 0.0


_OPENING = (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)
_ENVELOPE = (Stage.MAIL, Stage.RCPT, Stage.DATA)
_WHOLE_MESSAGE = (Stage.MAIL, Stage.DATA, Stage.DOT)
_TOO_MANY = r"too many recipients"

GENERIC: tuple[Rule, ...] = (
    # Before MAIL no reply can condemn a message: a 5xx greeting or a 535 must not bounce mail.
    Rule(Meaning.DEFERRED, Scope.UPSTREAM, _OPENING),
    # RFC 5321 3.8: 421 closes the channel, whatever was asked.
    Rule(Meaning.DEFERRED, Scope.UPSTREAM, codes=("421",)),
    # RFC 4954 6: these speak of our login or of TLS, not of this message.
    Rule(Meaning.DEFERRED, Scope.UPSTREAM, _ENVELOPE, ("530", "535", "538")),
    # RFC 5321 4.5.3.1.10: the rest of the recipients go in a transaction of their own; 552 is the old spelling.
    # Without one accepted there is no progress, and "at once" would be for ever.
    Rule(Meaning.POSTPONED, Scope.MESSAGE, (Stage.RCPT,), ("452",), "4.5.3", needs_accepted=True),
    Rule(Meaning.POSTPONED, Scope.MESSAGE, (Stage.RCPT,), ("452", "552"), text=_TOO_MANY, needs_accepted=True),
    Rule(Meaning.DEFERRED, Scope.RECIPIENT, (Stage.RCPT,), ("552",), text=_TOO_MANY),
    Rule(Meaning.FAILED, Scope.MESSAGE, codes=("552",), enhanced="5.3.4"),
    Rule(Meaning.DEFERRED, Scope.RECIPIENT, (Stage.RCPT,), ("4xx",)),
    Rule(Meaning.FAILED, Scope.RECIPIENT, (Stage.RCPT,), ("5xx",)),
    Rule(Meaning.DEFERRED, Scope.MESSAGE, _WHOLE_MESSAGE, ("4xx",)),
    Rule(Meaning.FAILED, Scope.MESSAGE, _WHOLE_MESSAGE, ("5xx",)),
    Rule(Meaning.SENT, Scope.MESSAGE, (Stage.DOT,), ("2xx",)),
)


def judge_reply(
    stage: Stage, code: int, text: str, *, some_accepted: bool = False, rules: Sequence[Rule] = GENERIC
) -> Outcome:
    """What a reply at `stage` means. `some_accepted`: this transaction has an accepted recipient already.

    A positive reply has a meaning at DOT only; elsewhere it is asked about when it is not the one expected.
    """
    if not 200 <= code <= 599:
        return judge_exception(stage, ProtocolViolation(f"reply with the impossible code {code}: {text}"))
    cause = Cause(stage, _reply_text(stage, text), code, enhanced_code(text))
    rule = next((rule for rule in rules if _matches(rule, cause, some_accepted)), None)
    if rule is None:
        return judge_exception(stage, ProtocolViolation(f"unexpected reply: {code} {text}"))
    match rule.meaning:
        case Meaning.SENT:
            return Sent(cause, _provider_message_id(cause.text))
        case Meaning.DEFERRED:
            return Deferred(rule.scope, cause)
        case Meaning.FAILED:
            return Failed(rule.scope, cause)
        case Meaning.POSTPONED:
            return Postponed(rule.scope, cause, rule.hold_seconds)
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


def _matches(rule: Rule, cause: Cause, some_accepted: bool) -> bool:
    return (
        (not rule.stages or cause.stage in rule.stages)
        and (not rule.codes or any(_fits(pattern, str(cause.code)) for pattern in rule.codes))
        and (rule.enhanced is None or _fits(rule.enhanced, cause.enhanced or ""))
        and (rule.text is None or re.search(rule.text, cause.text, re.IGNORECASE) is not None)
        and (some_accepted or not rule.needs_accepted)
    )


@lru_cache(maxsize=4096)
def _fits(pattern: str, value: str) -> bool:
    """`4xx` fits 450; `5.7.x` fits 5.7.26: an `x` that ends an enhanced code stands for any number."""
    expression = re.escape(pattern).replace(r"\.x", r"\.\d+").replace("x", r"\d")
    return re.fullmatch(expression, value) is not None


# Long runs of base64 in the answer to AUTH may be our own credentials, echoed.
_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")


def _reply_text(stage: Stage, text: str) -> str:
    cleaned = clean(text)
    return _BASE64.sub("***", cleaned) if stage is Stage.AUTH else cleaned


_QUEUED_AS = re.compile(r"(?:\bqueued as|\bid=)\s*[<\[(]?([^\s<>\[\]();,]+)", re.IGNORECASE)


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
