"""Who stands in To and Cc: as every program reads it, or an error."""

import pytest

from relayd.mail import headers
from relayd.mail.header_recipients import header_recipients


def found(header: str) -> set[str]:
    return set(header_recipients(headers.scan(header.encode() + b"\r\n\r\nbody")))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("To: a@example.net", {"a@example.net"}),
        ("To: A.B@Example.NET, <c@example.net>", {"a.b@example.net", "c@example.net"}),
        ('To: "Smith, Ann" <a@example.net>,\r\n Bob Jones <b@example.net>', {"a@example.net", "b@example.net"}),
        ("To: a@example.net (Ann, of sales)\r\nCc: b@example.net", {"a@example.net", "b@example.net"}),
        ("To: undisclosed-recipients:;", set()),
        ("To: Team: a@example.net, b@example.net;, c@example.net", {"a@example.net", "b@example.net", "c@example.net"}),
        ("To: =?utf-8?q?J=C3=B6rg?= <j@example.net>", {"j@example.net"}),
        ("Resent-To: a@example.net", {"a@example.net"}),
        ("Subject: a@example.net", set()),
        ("To:", set()),
    ],
)
def test_every_address_counts_once(header: str, expected: set[str]) -> None:
    assert found(header) == expected


@pytest.mark.parametrize(
    "value",
    [
        "a@example.net <b@example.net>",
        "Ann a@example.net",
        "a@example.net b@example.net",
        "Ann Smith",
        "a@example.net: b@example.net;",
        "Ann <a@example.net",
        "=?utf-8?q?a?=@example.net",
        "@hop.example,@other.example:a@example.net",
        "a@example.net (never closed",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="To cannot be read with certainty"):
        found(f"To: {value}")
