"""The whole road through `relayd serve`: an app's message in, the same message out, once."""

import os
import subprocess
from collections import Counter
from email import message_from_bytes
from pathlib import Path

from tests.e2e.conftest import furnish, need
from tests.e2e.house import House, wait_until
from tests.e2e.mail import send
from tests.peers.sink import Sink

# CI sends more.
MESSAGES = int(os.environ.get("RELAYD_TEST_MESSAGES", "2000"))
ADDED = {"dkim-signature", "received", "message-id", "date"}
HEAD = b"From: App <app@example.com>\nTo: you@example.net\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\nX-Odd:  two  spaces \n"
BODY = b"line one\n.leading dot\n..two dots\n\nsp  aces \t\n" + b"x" * 200 + b"\nlast\n"


def test_thousands_of_messages_arrive_once_and_unchanged(house: House, sink: Sink, tmp_path: Path) -> None:
    need("smtp-source")
    house.start()
    furnish(house, sink.port)
    message = tmp_path / "message"
    message.write_bytes(HEAD + b"\n" + BODY)
    subprocess.run(
        ["/usr/sbin/smtp-source", "-N", "-s", "20", "-m", str(MESSAGES), "-f", "app@example.com",
         "-t", "you@example.net", "-F", str(message), f"inet:127.0.0.1:{house.smtp_port}"],
        check=True, timeout=180,
    )  # fmt: skip
    wait_until(lambda: len(sink.arrivals) >= MESSAGES, seconds=180, what=f"{MESSAGES} arrivals")
    wait_until(lambda: house.json("queue", "list")["items"] == [], what="an empty queue")
    assert len(sink.arrivals) == len(sink.recipients) == MESSAGES
    for arrival in sink.arrivals:
        # smtp-source ends every message with an empty line of its own.
        body = b"\r\n" + BODY.replace(b"\n", b"\r\n") + b"\r\n"
        added = _without(arrival.content, HEAD.replace(b"\n", b"\r\n"), body)
        assert added == Counter({"dkim-signature": 2, "received": 1, "message-id": 1, "date": 1})
    assert house.stop() == 0


def _without(content: bytes, head: bytes, body: bytes) -> "Counter[str]":
    """The names of the fields that were added around `head`; everything else must be just as it was sent."""
    assert content.endswith(body)
    assert content.count(head) == 1
    added = content.removesuffix(body).replace(head, b"")
    return Counter(name.lower() for name in message_from_bytes(added + b"\r\n"))


def test_a_final_refusal_bounces_to_the_reverse_path(small_house: House, sink: Sink) -> None:
    sink.on_rcpt = lambda recipient: "550 5.1.1 no such user" if recipient.startswith("nobody") else "250 ok"
    small_house.start()
    furnish(small_house, sink.port)
    send(small_house, ["nobody@example.net", "you@example.net"])
    wait_until(lambda: len(sink.arrivals) == 2, what="the message and its bounce")
    message, bounce = sorted(sink.arrivals, key=lambda arrival: arrival.reverse_path == "")
    assert message.recipients == ("you@example.net",)
    assert (bounce.reverse_path, bounce.recipients) == ("", ("app@example.com",))
    report = message_from_bytes(bounce.content)
    assert report.get_content_type() == "multipart/report"
    text = bounce.content.decode()
    assert "Final-Recipient: rfc822; nobody@example.net" in text
    assert "Status: 5.1.1" in text
    assert len(report.get_all("dkim-signature", [])) == 2


def test_a_bounce_that_fails_makes_no_bounce(small_house: House, sink: Sink) -> None:
    sink.on_rcpt = lambda recipient: "550 5.1.1 no such user"
    small_house.start()
    furnish(small_house, sink.port)
    send(small_house, ["nobody@example.net"])
    wait_until(lambda: small_house.json("queue", "list")["items"] == [], what="an empty queue")
    found = small_house.json("message", "find", "--recipient", "app@example.com")["items"]
    assert [each["origin"] for each in found] == ["dsn"]
    assert sink.arrivals == []
