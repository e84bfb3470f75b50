"""X-Relayd-* fields: what is understood, and what is refused with what text."""

from datetime import UTC, datetime, timedelta

import pytest

from relayd.intake.instructions import NONE, Instructions, read
from relayd.mail import headers
from relayd.rules.mail_class import MailClass

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def instructions(*lines: str) -> Instructions:
    content = "".join(f"{line}\r\n" for line in ("From: a@example.com", *lines, "", "X-Relayd-Class: body"))
    return read(headers.scan(content.encode()), now=NOW, furthest=timedelta(days=30))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("X-Other: bulk", NONE),
        ("X-Relayd-Class: bulk", Instructions(mail_class=MailClass.BULK)),
        ("x-relayd-CLASS:\r\n Transactional ", Instructions(mail_class=MailClass.TRANSACTIONAL)),
        ("X-Relayd-Pool: News", Instructions(pool="news")),
        ("X-Relayd-Something-Else: 1", NONE),
        ("X-Relayd-Not-Before: Sun, 01 Mar 2026 13:00 +0100", NONE),
        ("X-Relayd-Not-Before: Sat, 01 Mar 2025 13:00 +0000", NONE),
        (
            "X-Relayd-Not-Before: Sun, 01 Mar 2026 13:00:01 +0100",
            Instructions(not_before=datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)),
        ),
        (
            "X-Relayd-Not-Before: Tue, 31 Mar 2026 12:00 +0000",
            Instructions(not_before=datetime(2026, 3, 31, 12, tzinfo=UTC)),
        ),
    ],
)
def test_what_is_asked_for_is_understood(line: str, expected: Instructions) -> None:
    assert instructions(line) == expected


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["X-Relayd-Class: urgent"], "X-Relayd-Class must be transactional or bulk"),
        (["X-Relayd-Class:"], "X-Relayd-Class must be transactional or bulk"),
        (["X-Relayd-Class: bulk", "x-relayd-class: bulk"], "2 X-Relayd-Class fields; at most one"),
        (["X-Relayd-Not-Before: soon"], "X-Relayd-Not-Before is not a date such as Tue, 01 Jul 2025"),
        (["X-Relayd-Not-Before: Tue, 31 Mar 2026 12:00:01 +0000"], "X-Relayd-Not-Before may be at most 30 days ahead"),
        (["X-Relayd-Pool:"], "X-Relayd-Pool must be the name of a pool"),
        (["X-Relayd-Pool: " + 64 * "a"], "X-Relayd-Pool must be the name of a pool"),
        (["X-Relayd-Pool: a\tb"], "X-Relayd-Pool must be the name of a pool"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_is_allowed(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        instructions(*lines)
