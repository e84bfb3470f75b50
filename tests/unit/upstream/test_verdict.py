"""What replies and errors mean. The table is the product's promise; each line is one reading."""

import socket
import ssl

import pytest
from aiosmtplib import SMTPReadTimeoutError, SMTPResponseException, SMTPServerDisconnected

from relayd.rules.outcome import Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.upstream.verdict import (
    MAX_PROVIDER_ID_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    ProtocolViolation,
    Unfit,
    judge_exception,
    judge_reply,
    refuse,
)

OPENING = (Stage.CONNECT, Stage.EHLO, Stage.STARTTLS, Stage.AUTH)
BEFORE_DOT = (*OPENING, Stage.MAIL, Stage.RCPT, Stage.DATA)
UPSTREAM, MESSAGE, RECIPIENT = Scope.UPSTREAM, Scope.MESSAGE, Scope.RECIPIENT


def kind(outcome: Outcome) -> tuple[type[Outcome], Scope | None]:
    return type(outcome), getattr(outcome, "scope", None)


@pytest.mark.parametrize("stage", OPENING)
@pytest.mark.parametrize("reply", ["421 4.3.2 down", "454 4.7.0 later", "535 5.7.8 bad login", "554 5.7.1 go away"])
def test_before_mail_no_reply_condemns_a_message(stage: Stage, reply: str) -> None:
    outcome = judge_reply(stage, int(reply[:3]), reply[4:])
    assert kind(outcome) == (Deferred, UPSTREAM)
    assert outcome.cause.stage is stage
    assert outcome.cause.code == int(reply[:3])
    assert outcome.cause.enhanced == reply[4:9]


@pytest.mark.parametrize(
    ("stage", "reply", "expected"),
    [
        (Stage.MAIL, "450 4.7.1 wait", (Deferred, MESSAGE)),
        (Stage.MAIL, "452 4.3.1 disk full", (Deferred, MESSAGE)),
        (Stage.MAIL, "550 5.7.1 sender refused", (Failed, MESSAGE)),
        (Stage.MAIL, "552 5.3.4 too big", (Failed, MESSAGE)),
        (Stage.MAIL, "421 4.7.0 closing", (Deferred, UPSTREAM)),
        (Stage.MAIL, "530 5.7.0 STARTTLS first", (Deferred, UPSTREAM)),
        (Stage.MAIL, "530 Authentication required", (Deferred, UPSTREAM)),
        (Stage.MAIL, "535 5.7.8 bad login", (Deferred, UPSTREAM)),
        (Stage.MAIL, "538 5.7.11 encryption required", (Deferred, UPSTREAM)),
        (Stage.RCPT, "450 4.2.1 greylisted", (Deferred, RECIPIENT)),
        (Stage.RCPT, "452 4.2.2 mailbox full", (Deferred, RECIPIENT)),
        (Stage.RCPT, "550 5.1.1 no such user", (Failed, RECIPIENT)),
        (Stage.RCPT, "552 5.2.2 mailbox full", (Failed, RECIPIENT)),
        (Stage.RCPT, "552 5.3.4 too big", (Failed, MESSAGE)),
        (Stage.RCPT, "530 5.7.0 authentication required", (Deferred, UPSTREAM)),
        (Stage.RCPT, "421 4.7.0 closing", (Deferred, UPSTREAM)),
        (Stage.DATA, "451 4.3.0 later", (Deferred, MESSAGE)),
        (Stage.DATA, "554 5.5.1 no valid recipients", (Failed, MESSAGE)),
        (Stage.DATA, "421 4.7.0 closing", (Deferred, UPSTREAM)),
        (Stage.DOT, "250 2.0.0 ok", (Sent, None)),
        (Stage.DOT, "200 ok", (Sent, None)),
        (Stage.DOT, "451 4.7.1 later", (Deferred, MESSAGE)),
        (Stage.DOT, "554 5.7.1 spam", (Failed, MESSAGE)),
        (Stage.DOT, "552 5.3.4 too big", (Failed, MESSAGE)),
        (Stage.DOT, "421 4.3.0 closing", (Deferred, UPSTREAM)),
    ],
)
def test_a_reply_has_one_reading_at_its_stage(
    stage: Stage, reply: str, expected: tuple[type[Outcome], Scope | None]
) -> None:
    assert kind(judge_reply(stage, int(reply[:3]), reply[4:])) == expected


@pytest.mark.parametrize("reply", ["452 4.5.3 full", "452 Too many recipients", "552 too many recipients"])
def test_a_full_transaction_postpones_only_if_it_makes_progress(reply: str) -> None:
    postponed = judge_reply(Stage.RCPT, int(reply[:3]), reply[4:], some_accepted=True)
    assert isinstance(postponed, Postponed)
    assert (postponed.scope, postponed.hold_seconds) == (MESSAGE, 0.0)
    assert kind(judge_reply(Stage.RCPT, int(reply[:3]), reply[4:])) == (Deferred, RECIPIENT)


NONSENSE = [(354, "go on"), (334, ""), (199, "what"), (600, "what"), (99, ""), (-1, "Response too long"), (0, "")]


@pytest.mark.parametrize(("code", "text"), NONSENSE)
def test_nonsense_is_definite_before_the_dot_and_uncertain_after(code: int, text: str) -> None:
    for stage in BEFORE_DOT:
        assert kind(judge_reply(stage, code, text)) == (Deferred, UPSTREAM)
    assert kind(judge_reply(Stage.DOT, code, text)) == (Uncertain, None)


def test_an_unexpected_yes_is_nonsense() -> None:
    assert kind(judge_reply(Stage.DATA, 250, "ok")) == (Deferred, UPSTREAM)


ERRORS = [
    TimeoutError(),
    SMTPReadTimeoutError("timed out"),
    SMTPServerDisconnected("lost"),
    ConnectionResetError(),
    ConnectionRefusedError(),
    EOFError(),
    OSError("Multiple exceptions: one, two"),
    socket.gaierror(-2, "Name or service not known"),
    ssl.SSLError(1, "wrong version"),
    ssl.SSLCertVerificationError("hostname mismatch"),
    SMTPResponseException(-1, "Response too long"),
    ProtocolViolation("two replies"),
    Unfit("no STARTTLS"),
    RuntimeError("a bug"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_definite_before_the_dot_and_uncertain_after(error: Exception) -> None:
    for stage in BEFORE_DOT:
        outcome = judge_exception(stage, error)
        assert kind(outcome) == (Deferred, UPSTREAM)
        assert outcome.cause.stage is stage
        assert outcome.cause.text
    assert kind(judge_exception(Stage.DOT, error)) == (Uncertain, None)


def test_a_reply_inside_an_error_is_read_as_a_reply() -> None:
    assert kind(judge_exception(Stage.DOT, SMTPResponseException(550, "5.7.1 no"))) == (Failed, MESSAGE)


def test_a_bug_tells_its_name_only() -> None:
    assert judge_exception(Stage.MAIL, ValueError("secret")).cause.text == "internal error: ValueError"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.0.0 Ok: queued as 4WxYz12", "4WxYz12"),
        ("2.0.0 Ok: queued as <a.b@c>", "a.b@c"),
        (
            "Ok 0100018f3c2a1b4d-6f1c2d3e-aaaa-bbbb-cccc-1234567890ab-000000",
            "0100018f3c2a1b4d-6f1c2d3e-aaaa-bbbb-cccc-1234567890ab-000000",
        ),
        ("Ok thank you", None),
        ("OK id=1rAbCd-000001-2X", "1rAbCd-000001-2X"),
        ("2.0.0 Queued as (77)", "77"),
        ("2.0.0 thank you", None),
        ("queued as " + "x" * 400, "x" * MAX_PROVIDER_ID_CHARACTERS),
    ],
)
def test_the_upstreams_queue_id_is_kept(text: str, expected: str | None) -> None:
    outcome = judge_reply(Stage.DOT, 250, text)
    assert isinstance(outcome, Sent)
    assert outcome.provider_message_id == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.1.1 no\n5.1.1 such\tuser", "5.1.1 no 5.1.1 such user"),
        ("a\x00b\x1b[31mc\u202ed", "a b [31mc d"),
        ("caf\udce9", "caf�"),
        ("é" * 2000, "é" * MAX_TEXT_CHARACTERS),
        ("", ""),
    ],
)
def test_text_is_made_fit_to_be_stored(text: str, expected: str) -> None:
    stored = judge_reply(Stage.RCPT, 550, text).cause.text
    assert stored == expected
    stored.encode()


def test_credentials_echoed_by_auth_are_not_kept() -> None:
    outcome = judge_reply(Stage.AUTH, 535, "5.7.8 bad: AGFsaWNlAGh1bnRlcjIyMjI= sorry")
    assert outcome.cause.text == "5.7.8 bad: *** sorry"


def test_a_refusal_of_our_own_says_that_it_is_local() -> None:
    outcome = refuse(Scope.MESSAGE, "5.3.4", "too big")
    assert kind(outcome) == (Failed, MESSAGE)
    assert (outcome.cause.stage, outcome.cause.code, outcome.cause.enhanced) == (Stage.LOCAL, None, "5.3.4")
