"""What a message becomes for SendGrid's Web API, and what cannot become anything."""

import json
from typing import Any

import pytest

from relayd.rules.outcome import Failed, Scope
from relayd.upstream.mime import MAX_CONTAINERS, MAX_LINES, take_apart
from relayd.upstream.sendgrid_message import MAX_OCTETS, Composed, compose
from tests.peers.mail import transmission

HEAD = b"From: app@example.org\r\nTo: one@example.net\r\nSubject: s\r\n"
PNG = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n"
PLAIN, HTML = b"Content-Type: text/plain\r\n\r\nhello\r\n", b"Content-Type: text/html\r\n\r\n<p>hello</p>\r\n"
CALENDAR = b"Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n"


def multi(kind: str, *parts: bytes, boundary: str = "b") -> bytes:
    """A part that holds parts."""
    edge = boundary.encode()
    inside = b"".join(b"--" + edge + b"\r\n" + part + b"\r\n" for part in parts)
    return f"Content-Type: multipart/{kind}; boundary={boundary}\r\n\r\n".encode() + inside + b"--" + edge + b"--\r\n"


def composed(content: bytes, *recipients: str, **changes: Any) -> dict[str, Any]:
    made = compose(transmission(*(recipients or ("one@example.net",)), content=content, **changes))
    assert isinstance(made, Composed), made
    found: dict[str, Any] = json.loads(made.body)
    return found


def types(request: dict[str, Any]) -> tuple[list[str], list[str]]:
    return [each["type"] for each in request["content"]], [each["type"] for each in request.get("attachments", ())]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\r\nhello\r\n", (["text/plain"], [])),
        (HTML, (["text/html"], [])),
        (multi("alternative", HTML, PLAIN), (["text/plain", "text/html"], [])),
        (
            multi("alternative", PLAIN, b"Content-Type: text/x-amp-html\r\n\r\n<html>\r\n", HTML),
            (["text/plain", "text/x-amp-html", "text/html"], []),
        ),
        (multi("mixed", PLAIN, PNG + b"\r\naGk=\r\n"), (["text/plain"], ["image/png"])),
        (multi("mixed", PNG + b"\r\naGk=\r\n", PLAIN), (["text/plain"], ["image/png"])),
        (multi("mixed", PLAIN, CALENDAR), (["text/plain"], ["text/calendar"])),
        # A second text is no alternative of the first.
        (multi("mixed", HTML, PLAIN), (["text/html"], ["text/plain"])),
        (
            multi("alternative", PLAIN, multi("related", HTML, PNG + b"Content-ID: <a>\r\n\r\naGk=\r\n", boundary="c")),
            (["text/plain", "text/html"], ["image/png"]),
        ),
        (
            multi("related", multi("alternative", PLAIN, HTML, boundary="c"), PNG + b"\r\naGk=\r\n"),
            (["text/plain", "text/html"], ["image/png"]),
        ),
        (
            multi("mixed", multi("alternative", PLAIN, HTML, boundary="c"), PNG + b"\r\naGk=\r\n"),
            (["text/plain", "text/html"], ["image/png"]),
        ),
    ],
)
def test_a_structure_that_can_be_carried(body: bytes, expected: tuple[list[str], list[str]]) -> None:
    assert types(composed(HEAD + body)) == expected


RFC822 = b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nhello\r\n"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (multi("signed", PLAIN, PNG + b"\r\naGk=\r\n"), "multipart/signed"),
        (multi("encrypted", PLAIN), "multipart/encrypted"),
        (multi("report", PLAIN, PLAIN), "multipart/report"),
        (multi("mixed", multi("signed", PLAIN, boundary="c")), "multipart/signed"),
        (multi("alternative", PLAIN, CALENDAR), "text/calendar"),
        (multi("alternative", PLAIN, PLAIN), "two texts"),
        (RFC822, "message/rfc822"),
        (multi("mixed", PLAIN, RFC822), "message/rfc822"),
        (PNG + b"\r\naGk=\r\n", "no text"),
        (multi("mixed", PNG + b"\r\naGk=\r\n"), "no text"),
        (b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n", "broken"),
        (b"Content-Type: text/plain; charset=x-klingon\r\n\r\nhello\r\n", "x-klingon"),
        (b"Content-Type: text/plain; charset=punycode\r\n\r\nhello\r\n", "unknown: punycode"),
        (b"Content-Type: text/plain; charset=utf-8\r\n\r\nh\xff\r\n", "not valid utf-8"),
        (b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin\r\n", "x-uuencode"),
        (b"X-SG-ID: 7\r\n\r\nhello\r\n", "SendGrid's own"),
        (b"X-Twice: 1\r\nx-twice: 2\r\n\r\nhello\r\n", "two fields"),
        (b"X-Odd: \xff\r\n\r\nhello\r\n", "neither ASCII nor UTF-8"),
        (b"Reply-To: nobody at all\r\n\r\nhello\r\n", "Reply-To"),
    ],
)
def test_what_would_lose_something_is_refused_and_says_why(body: bytes, why: str) -> None:
    outcome = compose(transmission(content=HEAD + body))
    assert isinstance(outcome, Failed) and outcome.scope is Scope.MESSAGE
    assert outcome.cause.enhanced == "5.6.1" and why in outcome.cause.text and "SMTP" in outcome.cause.text


@pytest.mark.parametrize("head", [b"From: a@example.org\r\n", b"From: a@example.org\r\nSubject: \r\n"])
def test_without_a_subject_it_is_refused(head: bytes) -> None:
    outcome = compose(transmission(content=head + b"\r\nhello\r\n"))
    assert isinstance(outcome, Failed) and "subject" in outcome.cause.text


def test_what_is_too_much_is_refused() -> None:
    outcome = compose(transmission(content=HEAD + b"\r\n" + b"x" * MAX_OCTETS))
    assert isinstance(outcome, Failed) and outcome.cause.enhanced == "5.3.4"
    outcome = compose(transmission(*(f"u{n}@example.net" for n in range(1001)), content=HEAD + b"\r\nhello\r\n"))
    assert isinstance(outcome, Failed) and "1000" in outcome.cause.text
    outcome = compose(transmission(content=HEAD + b"\r\nhello\r\n", reverse_path=None))
    assert isinstance(outcome, Failed) and "bounces" in outcome.cause.text


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Type: text/plain" + b";" * 100_000 + b"\r\n\r\nhello\r\n",
        multi("mixed", *[PLAIN] * 5000),
        b"".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n".encode() for n in range(2000)),
        b"".join(
            f"Content-Type:{' ' * 99}multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n".encode()
            for n in range(MAX_CONTAINERS + 1)
        ),
        b"\r\n" + b"\r\n" * (MAX_LINES + 1),
        b"Content-Type: text/plain;" + b"\r\n x" * 5000 + b"\r\n\r\nhello\r\n",
    ],
    ids=["semicolons", "parts", "nested", "spaced", "lines", "folded"],
)
def test_what_would_keep_the_parser_busy_never_gets_there(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relayd.upstream.mime.BytesParser", None)
    with pytest.raises(ValueError, match=r"MIME parts|octets|lines"):
        take_apart(HEAD + body)


def test_the_most_that_gets_there_is_read() -> None:
    nested = b"".join(
        f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n".encode() for n in range(MAX_CONTAINERS)
    )
    with pytest.raises(ValueError, match="no text"):
        take_apart(HEAD + nested + b"Content-Type: image/png\r\n\r\n" + b"--b\r\n" * 50_000)


def test_recipients_deep_in_comments_are_recipients_all_the_same() -> None:
    request = composed(HEAD.replace(b"one@example.net", b"(" * 5000 + b"one@example.net") + b"\r\nhello\r\n")
    assert request["personalizations"] == [{"to": [{"email": "one@example.net"}]}]


@pytest.mark.parametrize(
    ("to", "recipients", "expected"),
    [
        (b"To: a@example.net, b@example.net\r\nCc: c@example.net\r\n", "a b c", [{"to": "a b", "cc": "c"}]),
        (b"To: a@example.net\r\nCc: A@Example.NET, b@example.net\r\n", "a b", [{"to": "a", "cc": "b"}]),
        (b"To: a@example.net\r\n", "b a", [{"to": "a", "bcc": "b"}]),
        (b"To: a@example.net, b@example.net\r\n", "a", [{"to": "a"}]),
        (b"To: a@example.net, b@example.net\r\n", "a c", [{"to": "a"}, {"to": "c"}]),
        (b"To: undisclosed-recipients:;\r\n", "a b", [{"to": "a"}, {"to": "b"}]),
        (b"Cc: a@example.net\r\n", "a", [{"to": "a"}]),
        (b"", "a b", [{"to": "a"}, {"to": "b"}]),
        (b"To: \xff\r\n", "a", [{"to": "a"}]),
        (b"To: nonsense\r\n", "a", [{"to": "a"}]),
    ],
)
def test_nobody_gets_it_or_is_shown_who_should_not(to: bytes, recipients: str, expected: list[dict[str, str]]) -> None:
    content = b"From: app@example.org\r\nSubject: s\r\n" + to + b"\r\nhello\r\n"
    request = composed(content, *(f"{name}@example.net" for name in recipients.split()))
    shown = [
        {kind: " ".join(party["email"].partition("@")[0] for party in parties) for kind, parties in each.items()}
        for each in request["personalizations"]
    ]
    assert shown == expected


def test_replies_go_where_they_should() -> None:
    one = composed(HEAD + b"Reply-To: Help <help@example.org>\r\n\r\nhello\r\n")
    assert one["reply_to"] == {"email": "help@example.org", "name": "Help"}
    two = composed(HEAD + b"Reply-To: a@example.org, b@example.org\r\n\r\nhello\r\n")
    assert [each["email"] for each in two["reply_to_list"]] == ["a@example.org", "b@example.org"]


def test_fields_of_the_app_go_along_and_those_of_the_way_do_not() -> None:
    request = composed(
        HEAD + b"Received: x\r\nDate: y\r\nList-Unsubscribe: <https://example.org/u>\r\nIn-Reply-To: <1@x>\r\n"
        b"X-Name: Gr\xc3\xbc\xc3\x9fe\r\nMIME-Version: 1.0\r\n\r\nhello\r\n"
    )
    assert request["headers"] == {
        "List-Unsubscribe": "<https://example.org/u>",
        "In-Reply-To": "<1@x>",
        "X-Name": "=?utf-8?b?R3LDvMOfZQ==?=",
    }


def test_an_empty_text_is_an_empty_line_and_a_nameless_attachment_gets_a_name() -> None:
    request = composed(HEAD + multi("mixed", b"Content-Type: text/plain\r\n\r\n", PNG + b"\r\naGk=\r\n"))
    assert request["content"][0]["value"].strip() == "" and request["content"][0]["value"]
    assert request["attachments"][0]["filename"] == "part-1.png"
