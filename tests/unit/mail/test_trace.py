"""Trace fields hold what is known and nothing that a peer smuggles in."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.mail.address import Address
from relayd.mail.headers import scan
from relayd.mail.trace import date_text, received_field

WHEN = datetime(2025, 7, 1, 10, 52, 37, tzinfo=timezone(timedelta(hours=2)))


def _field(**changed: object) -> bytes:
    values: dict[str, object] = {
        "helo": "app.example",
        "peer": "192.0.2.7",
        "host": "relay.example",
        "protocol": "ESMTPSA",
        "queue_id": "0197c0de",
        "when": WHEN,
        "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
        "recipient": Address.parse("to@dest.example"),
    }
    return received_field(**(values | changed))  # type: ignore[arg-type]


def test_the_whole_field() -> None:
    assert _field() == (
        b"Received: from app.example ([192.0.2.7])\r\n"
        b"\t(using TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b"\tby relay.example (relayd) with ESMTPSA\r\n"
        b"\tid 0197c0de\r\n"
        b"\tfor <to@dest.example>;\r\n"
        b"\tTue, 01 Jul 2025 10:52:37 +0200\r\n"
    )


def test_what_is_unknown_is_left_out() -> None:
    assert _field(peer=None, tls=None, recipient=None, helo="", protocol="ESMTP") == (
        b"Received: from unknown\r\n"
        b"\tby relay.example (relayd) with ESMTP\r\n"
        b"\tid 0197c0de;\r\n"
        b"\tTue, 01 Jul 2025 10:52:37 +0200\r\n"
    )


@pytest.mark.parametrize(
    ("peer", "literal"), [("2001:db8::1", b"([IPv6:2001:db8::1])"), ("192.0.2.1", b"([192.0.2.1])")]
)
def test_peers_are_address_literals(peer: str, literal: bytes) -> None:
    assert literal in _field(peer=peer)


@pytest.mark.parametrize("protocol", ["ESMTPSA", "UTF8SMTPSA"])
@pytest.mark.parametrize(
    ("recipient", "clause"),
    [
        ("jo@bücher.example", b"for <jo@xn--bcher-kva.example>"),
        ("jo@例え.test", b"for <jo@xn--r8jz45g.test>"),
        ("jörg@dest.example", None),
        ("jörg@bücher.example", None),
        ('"j ö"@dest.example', None),
    ],
)
def test_the_recipient_is_named_in_ascii_or_not_at_all(recipient: str, clause: bytes | None, protocol: str) -> None:
    field = _field(recipient=Address.parse(recipient), protocol=protocol)
    assert field.isascii()
    assert clause in field if clause else b"for <" not in field


@given(st.text(max_size=600), st.text(min_size=1, max_size=40))
def test_no_peer_can_end_or_add_a_field(helo: str, tls: str) -> None:
    field = _field(helo=helo, tls=tls, peer=tls)
    (only,) = scan(field + b"\r\n").fields
    assert only.raw == field and field.isascii()
    assert max(map(len, field.split(b"\r\n"))) < 998
    assert field.count(b"(") == field.count(b")") == 3 and field.count(b";") == 1


def test_dates_know_their_zone() -> None:
    assert date_text(datetime(2024, 2, 29, 0, 0, 1, tzinfo=UTC)) == "Thu, 29 Feb 2024 00:00:01 +0000"
    with pytest.raises(ValueError, match="time zone"):
        date_text(datetime(2024, 2, 29))
