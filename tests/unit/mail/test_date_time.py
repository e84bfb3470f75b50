"""RFC 5322 date-times, as apps write them and as they should not."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.mail.date_time import parse_date_time
from relayd.mail.trace import date_text


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("Tue, 01 Jul 2025 10:52:37 +0200", datetime(2025, 7, 1, 8, 52, 37, tzinfo=UTC)),
        ("tue,1 JUL 2025  10:52 GMT", datetime(2025, 7, 1, 10, 52, tzinfo=UTC)),
        ("1 Jul 2025 10:52:37 -0000 (UTC)", datetime(2025, 7, 1, 10, 52, 37, tzinfo=UTC)),
        ("Tue, 31 Dec 2024 23:59:60 -0330", datetime(2025, 1, 1, 3, 29, 59, tzinfo=UTC)),
    ],
)
def test_a_date_is_read_in_its_zone(text: str, when: datetime) -> None:
    assert parse_date_time(text.encode()) == when


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a date"),
        ("tomorrow", "is not a date"),
        ("2025-07-01T10:52:37Z", "is not a date"),
        ("Tue, 01 Jul 2025 10:52:37", "is not a date"),
        ("Tue, 01 Jul 2025 10:52:37 EST", "is not a date"),
        ("Tue, 01 Jul 25 10:52:37 +0000", "is not a date"),
        ("Tue, 01 Xyz 2025 10:52:37 +0000", "is not a date"),
        ("Tue, 01 Jul 2025 10:52:37 +0000 or later", "is not a date"),
        ("Tue, 0١ Jul 2025 10:52:37 +0000", "is not a date"),
        (f"{' ' * 200}1 Jul 2025 10:52 +0000", "is not a date"),
        ("Tue, 31 Jun 2025 10:52:37 +0000", "does not exist"),
        ("01 Jul 2025 24:00:00 +0000", "does not exist"),
        ("01 Jul 2025 10:52:37 +2400", "does not exist"),
        ("01 Jan 0001 00:00:00 +2300", "does not exist"),
        ("01 Jan 0000 00:00:00 +0000", "does not exist"),
        ("Mon, 01 Jul 2025 10:52:37 +0200", "it is a Tue"),
    ],
)
def test_what_is_no_date_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_date_time(text.encode())


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),
    st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_what_relayd_writes_it_reads(when: datetime, zone: timezone) -> None:
    moment = when.replace(microsecond=0, tzinfo=zone)
    assert parse_date_time(date_text(moment).encode()) == moment


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(value: bytes) -> None:
    with suppress(ValueError):
        assert parse_date_time(value).tzinfo
