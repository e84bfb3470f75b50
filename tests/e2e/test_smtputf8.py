"""Addresses beyond ASCII, from an app to an upstream that does not take them."""

import re
import smtplib
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until
from tests.peers.sink import Sink

FIELDS = "From: app@example.com\r\nTo: undisclosed:;\r\nSubject: Test\r\n"


@pytest.fixture
def plain_sink() -> Iterator[Sink]:
    with Sink(offers=("8BITMIME", "SIZE")) as running:
        yield running


def submit(house: House, *recipients: str, sender: str = "app@example.com") -> None:
    with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as client:
        client.ehlo("app.example.com")
        client.command_encoding = "utf-8"
        assert client.mail(sender, ["SMTPUTF8", "BODY=8BITMIME"])[0] == 250
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        assert client.data(f"{FIELDS}\r\nGrüße\r\n".encode())[0] == 250


def test_only_the_recipient_that_needs_smtputf8_is_told_of(house: House, plain_sink: Sink) -> None:
    house.start()
    furnish(house, plain_sink.port)
    submit(house, "jo@b.example", "jörg@b.example", "jo@bücher.example")
    # One alone: only then relayd's Received field names it.
    submit(house, "δοκιμή@b.example")
    submit(house, "solo@bücher.example")
    wait_until(lambda: len(plain_sink.arrivals) == 4, what="two messages and two bounces")
    assert dict(plain_sink.recipients) == {
        "jo@b.example": 1,
        "jo@xn--bcher-kva.example": 1,
        "solo@xn--bcher-kva.example": 1,
        "app@example.com": 2,
    }
    assert all("SMTPUTF8" not in arrival.mail for arrival in plain_sink.arrivals)
    bounces = [each.content.decode() for each in plain_sink.arrivals if each.reverse_path == ""]
    told = {re.findall("^Final-Recipient: utf-8; (.*)\r$", content, re.MULTILINE)[0] for content in bounces}
    assert told == {"jörg@b.example", "δοκιμή@b.example"}
    for content in bounces:
        assert content.count("\r\nFinal-Recipient:") == 1
        assert "\r\nStatus: 5.6.7\r\n" in content and "the address needs SMTPUTF8" in content
