"""A message that bounces after it was sent, all the way: its return path, the report that comes back, what is told."""

import smtplib

from relayd.control.client import ControlClient, path_of
from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until
from tests.e2e.mail import send
from tests.peers.sink import Sink

REPORT = """From: MAILER-DAEMON@mx.example.net\r
Subject: Undelivered Mail Returned to Sender\r
Content-Type: multipart/report; report-type=delivery-status; boundary=b\r
\r
--b\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; mx.example.net\r
\r
Final-Recipient: rfc822; somewhere.behind@example.org\r
Action: failed\r
Status: 5.2.2\r
Diagnostic-Code: smtp; 552 5.2.2 mailbox full\r
--b--\r
"""


def test_a_bounce_finds_its_way_back_to_its_entry(small_house: House, sink: Sink) -> None:
    small_house.start()
    furnish(small_house, sink.port)
    control = ControlClient((small_house.socket,))
    control.patch(path_of("domains", "example.com"), {"bounce_domain": "bounces.example.com"})
    # What a worker knows of a mailbox is a second old at most; it has not sent before.
    queue_id = send(small_house, ["you@example.net"])
    wait_until(lambda: sink.arrivals, what="the message")
    return_path = sink.arrivals[0].reverse_path
    assert return_path.startswith("b+") and return_path.endswith("@bounces.example.com")
    with smtplib.SMTP("127.0.0.1", small_house.smtp_port, timeout=30) as peer:
        peer.sendmail("", [return_path], REPORT)
    found = wait_until(lambda: _matched(small_house), what="the report to be read")
    assert (found["queue_id"], found["kind"]) == (queue_id, "bounce")
    entry = small_house.json("queue", "show", found["entry_id"])
    assert "bounced" in str(entry) and "mailbox_full" in str(entry)
    assert "bounced_later" in small_house.log_text()
    assert small_house.stop() == 0


def _matched(house: House) -> dict[str, str] | None:
    items = ControlClient((house.socket,)).get(path_of("reports")).data["items"]
    return next((each for each in items if each["status"] == "matched"), None)
