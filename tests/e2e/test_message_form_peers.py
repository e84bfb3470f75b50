"""What is odd about a message is mended before it is signed: real servers take it, and its signatures hold."""

import email
import smtplib
from pathlib import Path

import pytest

from tests.conftest import at_length
from tests.e2e.conftest import furnish, need
from tests.e2e.house import House, free_port, wait_until
from tests.e2e.signatures import printed_records, signed_part, verified_algorithms
from tests.peers import opendkim
from tests.peers.exim import Exim
from tests.peers.postfix import Postfix
from tests.peers.sink import Sink

HTML = "<p>" + "Grüße, " * 400 + "</p>"
REFERENCES = "References:" + " <0123456789.abcdef@mail.example.org>" * 100 + "\r\n"
UTF8 = "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n"
START = "From: app@example.com\r\nTo: x@example.net\r\n"
MESSAGES: dict[str, tuple[str, str]] = {
    "long line": (UTF8, f"\r\n{HTML}\r\n.\r\n"),
    "long line without MIME": ("", "\r\n" + "word " * 300 + "\r\n"),
    "long line in a part": (
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n",
        f"\r\n--b\r\n\r\nshort\r\n--b\r\nContent-Type: application/json\r\n\r\n{{{'x' * 2000}}}\r\n--b--\r\n",
    ),
    "8-bit": (UTF8, "\r\nGrüße\r\n"),
    "long References": (REFERENCES, "\r\nHello\r\n"),
    "header only": ("", ""),
    "empty Message-ID": ("Message-ID: <>\r\n", "\r\nHello\r\n"),
    "blank Message-ID": ("Message-ID:  \r\n", "\r\nHello\r\n"),
}


@pytest.mark.parametrize("server", [Postfix, Exim])
@at_length
def test_real_servers_take_odd_messages_and_the_signatures_hold(
    server: type[Postfix] | type[Exim], house: House, directory: Path, tmp_path: Path
) -> None:
    need("postfix" if server is Postfix else "exim4", "opendkim")
    house.start()
    with server(directory, free_port()) as peer:
        furnish(house, peer.port)
        for name, (fields, rest) in MESSAGES.items():
            _send(house, f"{START}Subject: {name}\r\n{fields}{rest}")
        arrived = wait_until(lambda: len(found := peer.mail()) == len(MESSAGES) and found, what="all of them")
    records = printed_records(house, "example.com")
    (rsa,) = [name.partition("._domainkey")[0] for name, value in records.items() if "k=rsa" in value]
    subjects = []
    for content in arrived:
        message = email.message_from_bytes(content)
        subject = message["Subject"]
        subjects.append(subject)
        assert verified_algorithms(signed_part(content), records) == ["ed25519-sha256", "rsa-sha256"], subject
        assert opendkim.verdicts(content, records, tmp_path)[rsa] == "succeeded", subject
        assert max(len(line) for line in content.split(b"\r\n")) <= 998, subject
        assert len(message.get_all("Message-ID")) == 1 and "@example.com>" in message["Message-ID"]
        if subject == "long line":
            assert message.get_payload(decode=True) == f"{HTML}\r\n.\r\n".encode()
        if subject == "long References":
            assert message["References"].split() == REFERENCES.split()[1:]
    assert sorted(subjects) == sorted(MESSAGES)


@at_length
def test_exim_refuses_what_relayd_mends(directory: Path) -> None:
    need("exim4")
    with Exim(directory, free_port()) as exim, smtplib.SMTP("127.0.0.1", exim.port, timeout=30) as client:
        client.ehlo("app.example.com")
        client.mail("app@example.com")
        client.rcpt("you@example.net")
        code, reply = client.data(b"From: app@example.com\r\n\r\n" + b"x" * 999 + b"\r\n")
    assert code == 550 and b"maximum allowed line length is 998 octets" in reply


REFUSED = {
    "Subject: a\r\nSubject: b\r\n\r\nx\r\n": "message has 2 Subject fields",
    "Cc: a@example.net\r\nCC: b@example.net\r\n\r\nx\r\n": "relayd client set NAME --repeated-recipients join",
    "Subject: a\x0bb\r\n\r\nx\r\n": "header line 3 holds the control character 0x0B",
    f"X-Long: {'x' * 1000}\r\n\r\nx\r\n": "header line 3 (X-Long) has 1,001 octets without white space",
    f"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n{'x' * 1000}\r\n": "protected by multipart/signed",
}


def test_what_leaves_is_whole_and_shown_as_it_is(small_house: House, sink: Sink) -> None:
    house = small_house
    house.start()
    furnish(house, sink.port)
    replies = {name: _send(house, f"{START}Subject: {name}\r\n{odd}{rest}") for name, (odd, rest) in MESSAGES.items()}
    for rest, reason in REFUSED.items():
        with pytest.raises(smtplib.SMTPDataError) as refused:
            _send(house, f"{START}{rest}")
        assert refused.value.smtp_code == 550 and reason in str(refused.value.smtp_error)
    wait_until(lambda: len(sink.arrivals) == len(MESSAGES), what="all of them")
    records = printed_records(house, "example.com")
    for arrival in sink.arrivals:
        message = email.message_from_bytes(arrival.content)
        assert verified_algorithms(arrival.content, records) == ["ed25519-sha256", "rsa-sha256"]
        assert max(len(line) for line in arrival.content.split(b"\r\n")) <= 998
        shown = house.json("message", "show", replies[message["Subject"]])["message"]
        assert shown["message_id_header"] == message["Message-ID"]
        assert shown["size_octets"] == len(arrival.content)
        assert f" SIZE={len(arrival.content)}" in arrival.mail
        if message["Subject"] == "header only":
            assert arrival.content.endswith(b"\r\n\r\n") and arrival.content.count(b"\r\n\r\n") == 1


def _send(house: House, content: str) -> str:
    """Hand it in; the queue id."""
    with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as client:
        client.ehlo("app.example.com")
        client.mail("app@example.com")
        client.rcpt("you@example.net")
        code, reply = client.data(content.encode())
    if code != 250:
        raise smtplib.SMTPDataError(code, reply)
    return reply.decode().partition("queued as ")[2].partition(",")[0]
