"""A recipient gets only the reply that stands for it, in reports with fields and in those of words alone."""

import pytest

from relayd.mail.report import Bounce
from relayd.mail.report_reader import read

UNKNOWN = "User unknown"

# Text of a report about u@b.test and v@d.test; whose reply says that the recipient is unknown.
TEXTS = {
    "a line each": ("u@b.test: Connection timed out\nv@d.test: 550 5.1.1 User unknown\n", {"v"}),
    "a line each, the other way round": ("v@d.test: 550 5.1.1 User unknown\nu@b.test: Connection timed out\n", {"v"}),
    "one line": ("u@b.test: Connection timed out; v@d.test: 550 5.1.1 User unknown\n", {"v"}),
    "blocks": ("<u@b.test>:\nConnection timed out\n\n<v@d.test>:\n550 5.1.1 User unknown\n", {"v"}),
    "blocks without empty lines": ("<u@b.test>:\n  timed out\n<v@d.test>:\n  550 5.1.1 User unknown\n", {"v"}),
    "a transcript": (
        "<u@b.test>\n<v@d.test>\n\n>>> RCPT To:<u@b.test>\n<<< 450 4.2.0 come back later\n>>> RCPT To:<v@d.test>\n"
        "<<< 550 5.1.1 User unknown\n",
        {"v"},
    ),
    "the reply above the address": ("Connection timed out\n  u@b.test\n550 5.1.1 User unknown\n  v@d.test\n", {"v"}),
    "the address in the reply": (
        "450 4.2.0 <u@b.test>: greylisted\n550 5.1.1 <v@d.test>: User unknown\n",
        {"v"},
    ),
    "a reply that names nobody": ("These failed: u@b.test, v@d.test\n\nOne said: 550 5.1.1 User unknown\n", set()),
    "a reason that names nobody": ("u@b.test\nv@d.test\n\nReason: 550 User unknown\n", set()),
    "only the other is mentioned": ("v@d.test: 550 5.1.1 User unknown\n", {"v"}),
    "a longer name ends in the same letters": ("menu@b.test: 550 5.1.1 User unknown\n", set()),
    "a longer domain begins with the same letters": ("u@b.test.example: 550 5.1.1 User unknown\n", set()),
    "both": ("u@b.test: 550 5.1.1 User unknown\nv@d.test: 550 5.1.1 User unknown\n", {"u", "v"}),
}


def _with_fields(text: str, recipients: tuple[str, ...]) -> Bounce:
    fields = "".join(f"\nFinal-Recipient: rfc822; {each}\nAction: failed\nStatus: 5.0.0\n" for each in recipients)
    found = read(
        "From: MAILER-DAEMON@mx.test\nContent-Type: multipart/report; boundary=b\n\n--b\n\n"
        f"{text}\n--b\nContent-Type: message/delivery-status\n{fields}\n--b--\n".encode()
    )
    assert isinstance(found, Bounce)
    return found


def _in_words(text: str) -> Bounce:
    found = read(
        "From: MAILER-DAEMON@mx.test\nSubject: failure notice\n\nYour message could not be delivered.\n\n"
        f"{text}\n\nReturn-Path: <noreply@a.test>\nReceived: x\nMessage-ID: <1@a.test>\n"
        "To: u@b.test, v@d.test\nFrom: noreply@a.test\nSubject: Your order\n\nx\n".encode()
    )
    assert isinstance(found, Bounce)
    return found


def _unknown(found: Bounce) -> set[str]:
    """Of u and v those whose own reply says unknown; the text to a reader must not say it of anybody either."""
    assert len(found.recipients) == 1 or found.explanation == ""
    told = {each.address: each for each in found.recipients}
    found_unknown = {key for key, each in told.items() if UNKNOWN in each.diagnostic or each.status == "5.1.1"}
    return {name for name, address in (("u", "u@b.test"), ("v", "v@d.test")) if address in found_unknown}


@pytest.mark.parametrize(("text", "unknown"), TEXTS.values(), ids=TEXTS)
def test_a_recipient_of_a_report_is_not_given_the_reply_of_another(text: str, unknown: set[str]) -> None:
    assert _unknown(_with_fields(text, ("u@b.test", "v@d.test"))) == unknown


@pytest.mark.parametrize(("text", "unknown"), TEXTS.values(), ids=TEXTS)
def test_a_recipient_of_a_report_in_words_is_not_given_the_reply_of_another(text: str, unknown: set[str]) -> None:
    assert _unknown(_in_words(text)) == unknown


@pytest.mark.parametrize(
    ("text", "is_given"),
    [
        ("The server said: 550 5.1.1 User unknown", True),
        ("550 5.1.1 <u@b.test>: User unknown", True),
        ("550 5.1.8 <noreply@a.test>: not User unknown but refused", True),
        ("550 5.1.1 User unknown\nAsk postmaster@b.test", True),
        ("v@d.test: 550 5.1.1 User unknown", False),
        ("<v@d.test>:\n\n550 5.1.1 User unknown", False),
        ("550 5.1.1 <v@d.test>: User unknown", False),
        ("u@b.test: Connection timed out\n\nv@d.test: 550 5.1.1 User unknown", False),
    ],
)
def test_the_only_recipient_is_not_given_a_reply_that_names_another_address(text: str, is_given: bool) -> None:
    found = read(
        "From: MAILER-DAEMON@mx.test\nContent-Type: multipart/report; boundary=b\n\n--b\n\n"
        f"{text}\n--b\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; u@b.test\nAction: failed\n"
        "\n--b\nContent-Type: text/rfc822-headers\n\nFrom: noreply@a.test\n\n--b--\n".encode()
    )
    assert isinstance(found, Bounce)
    assert (UNKNOWN in found.recipients[0].diagnostic) is is_given
    assert (UNKNOWN in found.explanation) is is_given
