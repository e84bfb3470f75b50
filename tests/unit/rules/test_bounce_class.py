"""What replies mean: hard or soft, of what kind, and whether they suppress."""

import time

import pytest

from relayd.rules.bounce_category import Category
from relayd.rules.bounce_class import Refusal, classify
from relayd.rules.complaint_class import counts
from relayd.rules.outcome import Stage
from tests.reports.table import HERE, ReplySample, meaning_of, replies

REPLIES = replies()
UNSEEN = replies(HERE / "unseen" / "replies.txt")


@pytest.mark.parametrize("sample", REPLIES, ids=lambda sample: sample.line)
def test_a_reply_has_its_class_and_suppresses_only_who_does_not_exist(sample: ReplySample) -> None:
    assert meaning_of(classify(sample.refusal)) == sample.meaning


@pytest.mark.parametrize("sample", [each for each in UNSEEN if not each.suppresses], ids=lambda sample: sample.line)
def test_no_reply_that_the_words_were_not_made_for_suppresses_wrongly(sample: ReplySample) -> None:
    assert not classify(sample.refusal).suppresses


def test_there_are_enough_replies_of_both_kinds() -> None:
    suppressing = [sample for sample in REPLIES if sample.suppresses]
    assert len(REPLIES) >= 300 and len(suppressing) >= 80 and len(REPLIES) - len(suppressing) >= 150


@pytest.mark.parametrize("sample", [each for each in REPLIES if each.suppresses], ids=lambda sample: sample.line)
def test_a_temporary_code_never_suppresses_and_is_never_hard(sample: ReplySample) -> None:
    for refusal in (Refusal(sample.refusal.text, code=450, recipients=sample.refusal.recipients),):
        found = classify(refusal)
        assert (found.kind, found.suppresses) == ("soft", False)


@pytest.mark.parametrize("sample", [each for each in REPLIES if each.suppresses], ids=lambda sample: sample.line)
def test_the_same_words_about_the_sender_never_suppress(sample: ReplySample) -> None:
    refusal = sample.refusal
    at_mail = Refusal(refusal.text, refusal.code, refusal.status, Stage.MAIL, refusal.recipients)
    assert not classify(at_mail).suppresses
    framed = Refusal(f"550 5.1.1 <a@a.test>: Sender address rejected: {refusal.text}", recipients=refusal.recipients)
    assert not classify(framed).suppresses


INNOCENT = [
    *("mailbox full", "user over quota", "blocked using a blocklist", "your IP address 192.0.2.1 is listed"),
    *("rejected for policy reasons", "SPF check failed", "rate limit exceeded", "relay access denied", "spam detected"),
    *("sender unknown", "sender verify failed", "Greylisted", "Authentication required", "message too large"),
    *("temporary failure", "account suspended", "mail loop", "HELO name does not resolve", "virus found"),
]


@pytest.mark.parametrize("text", INNOCENT)
@pytest.mark.parametrize("code", ["5.1.1", "5.1.0", "5.1.10", "5.0.0", "5.7.1", "5.2.1", ""])
@pytest.mark.parametrize("form", ["550 {code} {text}", "550 {code} <u@b.test> {text}", "550 {code} u@b.test: {text}"])
def test_no_code_makes_an_innocent_refusal_suppress(form: str, code: str, text: str) -> None:
    reply = form.format(code=code, text=text).replace("  ", " ")
    for stage in (None, Stage.RCPT, Stage.DOT):
        assert not classify(Refusal(reply, stage=stage, recipients=("u@b.test",))).suppresses, reply


@pytest.mark.parametrize(
    "local_part", ["quota", "spam", "dmarc", "blocked", "sender", "greylist", "marc-antoine", "mail.loop"]
)
@pytest.mark.parametrize("domain", ["b.test", "unknown-user.test", "spf.test", "rate-limit.test", "blacklist.test"])
@pytest.mark.parametrize("reply", ["550 5.1.1 <{}>: Recipient address rejected: User unknown", "550 {} does not exist"])
def test_names_say_nothing(reply: str, local_part: str, domain: str) -> None:
    address = f"{local_part}@{domain}"
    found = classify(Refusal(reply.format(address), stage=Stage.RCPT, recipients=(address,)))
    assert (str(found), found.suppresses) == ("hard, no_such_user", True)
    refused = classify(Refusal(f"550 5.1.1 <{address}> Message rejected as junk mail", recipients=(address,)))
    assert not refused.suppresses


@pytest.mark.parametrize(
    ("status", "diagnostic", "wanted"),
    [
        ("5.1.1", "550 mailbox is full", "soft, mailbox_full"),  # the words over a status made of the 550
        ("5.1.1", "550 5.7.1 listed at dnsbl.example.org", "soft, blocked"),  # the server's own code over the report's
        ("5.7.1", "550 5.7.1 no such user", "hard, no_such_user"),  # the words over a vague code
        ("5.2.2", "", "soft, mailbox_full"),
        ("5.1.1", "", "hard, no_such_user"),
        ("4.1.1", "450 4.1.1 unknown user", "soft, no_such_user"),
        ("5.0.0", "452 4.2.2 over quota", "soft, mailbox_full"),
        ("5.0.0", "", "hard, unknown"),
        ("4.0.0", "", "soft, unknown"),
        (None, "", "soft, unknown"),
        ("5.4.7", "550 5.1.1 user unknown", "hard, no_such_user"),
        (None, "550 5.2.2 user unknown", "soft, mailbox_full"),  # the server's own code over its words
    ],
)
def test_what_is_trusted_more(status: str | None, diagnostic: str, wanted: str) -> None:
    assert str(classify(Refusal(diagnostic, status=status))) == wanted


def test_the_words_to_a_reader_count_where_nothing_else_says_anything_and_never_suppress() -> None:
    full = Refusal("", status="5.0.0", explanation="Das Postfach des Empfängers ist voll.")
    assert classify(full).category is Category.MAILBOX_FULL
    assert (
        classify(Refusal("", status="5.1.1", explanation="the mailbox may be full")).category is Category.NO_SUCH_USER
    )
    gone = classify(Refusal("", status="5.0.0", explanation="There is no such user here."))
    assert (gone.category, gone.suppresses) == (Category.NO_SUCH_USER, False)


@pytest.mark.parametrize(
    "hostile",
    [
        "550 5.1.1 " + "user " * 2000,
        "a" * 10_000 + "@" + "b." * 5000,
        "no such " * 1000,
        "1.2.3." * 3000,
        ":" * 10_000,
        "[" * 10_000,
        '"' * 10_000 + "@",
        "550 rejected: " * 700,
        "x.y" * 3000,
        "domain " * 1400 + "not",
    ],
)
def test_a_hostile_reply_costs_little(hostile: str) -> None:
    classify(Refusal("warm up"))
    began = time.process_time()
    for _ in range(10):
        classify(Refusal(hostile, recipients=("u@b.test",), explanation=hostile))
    # A guard against growth by the square, which takes minutes.
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("feedback_type", "wanted"),
    [
        ("abuse", True),
        ("fraud", True),
        ("opt-out", True),
        ("other", True),
        ("not-spam", False),
        ("auth-failure", False),
    ],
)
def test_which_reports_are_complaints(feedback_type: str, wanted: bool) -> None:
    assert counts(feedback_type) is wanted
