"""What replies mean: hard or soft, and of what kind."""

from pathlib import Path

import pytest

from relayd.rules.bounce_category import Category
from relayd.rules.bounce_class import classify
from relayd.rules.complaint_class import counts

REPLIES = [
    line.partition("|")[::2]
    for line in (Path(__file__).parents[2] / "reports" / "replies.txt").read_text().splitlines()
]


@pytest.mark.parametrize(("wanted", "reply"), REPLIES)
def test_a_reply_has_its_class(wanted: str, reply: str) -> None:
    found = classify(None, reply)
    assert f"{found.kind} {found.category}" == wanted


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
    ],
)
def test_what_is_trusted_more(status: str | None, diagnostic: str, wanted: str) -> None:
    assert str(classify(status, diagnostic)) == wanted


def test_the_words_to_a_reader_count_where_nothing_else_says_anything() -> None:
    assert classify("5.0.0", "", "Das Postfach des Empfängers ist voll.").category is Category.MAILBOX_FULL
    assert classify("5.1.1", "", "the mailbox may be full").category is Category.NO_SUCH_USER


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
