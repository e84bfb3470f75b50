"""A verifier that is not written in Python judges what `relayd serve` sends, by the records that relayd prints."""

from pathlib import Path

import pytest

from tests.e2e.conftest import furnish, need
from tests.e2e.house import House, wait_until
from tests.e2e.mail import send
from tests.e2e.signatures import printed_records
from tests.peers import opendkim
from tests.peers.sink import Sink

TEXT = "Dear  you,\t \r\n..\r\n\r\ngrüße\r\n\r\n\r\n"


@pytest.fixture
def message(house: House, sink: Sink) -> bytes:
    """One message as it reached the upstream."""
    need("opendkim")
    house.start()
    furnish(house, sink.port)
    send(house, ["you@example.net"], text=TEXT)
    wait_until(lambda: sink.arrivals, what="the message")
    return sink.arrivals[0].content


def test_opendkim_accepts_the_rsa_signature_and_nothing_that_was_tampered_with(
    house: House, message: bytes, tmp_path: Path
) -> None:
    records = printed_records(house, "example.com")
    (rsa,) = [name.partition("._domainkey")[0] for name, value in records.items() if "k=rsa" in value]
    assert opendkim.verdicts(message, records, tmp_path)[rsa] == "succeeded"
    # What relaxed canonicalisation forgives.
    assert opendkim.verdicts(message.replace(b"Dear  you,", b"Dear you,"), records, tmp_path)[rsa] == "succeeded"
    tampered = {
        "the body": message.replace(b"Dear", b"Dead"),
        "a line more": message + b"PS\r\n",
        "the subject": message.replace(b"Subject: Test", b"Subject: Best"),
        "a second subject on top": b"Subject: Other\r\n" + message,
        "a field that was absent": b"Reply-To: thief@example.org\r\n" + message,
    }
    for what, content in tampered.items():
        assert content != message
        assert opendkim.verdicts(content, records, tmp_path).get(rsa, "").startswith("failed"), what
    assert opendkim.verdicts(message, {}, tmp_path)[rsa].startswith("failed")
