"""Through the whole daemon: a pool's mail finds another mailbox, scheduled mail its time, each class its line."""

from datetime import UTC, datetime, timedelta

from relayd.control.client import ControlClient, path_of
from relayd.mail.trace import date_text
from tests.e2e.conftest import furnish
from tests.e2e.house import House, wait_until
from tests.e2e.mail import send
from tests.peers.sink import Sink


def test_mail_of_a_pool_moves_and_scheduled_mail_goes_in_time(small_house: House, sink: Sink) -> None:
    small_house.start()
    furnish(small_house, sink.port)
    control = ControlClient((small_house.socket,))
    control.post(path_of("pools"), {"name": "news", "client": "acme"})
    for address in ("a@example.com", "b@example.com"):
        control.post(path_of("mailboxes"), {"email_address": address, "daily_send_limit": None})
        control.post(path_of("clients", "acme", "pools", "news", "members", address), {})
    control.patch(path_of("clients", "acme", "pools", "news"), {"may_rewrite_from": True})
    control.post(path_of("pause"), {})
    control.post(path_of("mailboxes", "b@example.com", "pause"), {})
    moved = send(small_house, ["moved@example.net"], fields="X-Relayd-Pool: news\r\nX-Relayd-Class: bulk\r\n")
    control.post(path_of("mailboxes", "a@example.com", "pause"), {})
    control.post(path_of("mailboxes", "b@example.com", "resume"), {})
    soon = date_text(datetime.now(UTC) + timedelta(seconds=2))
    later = send(small_house, ["later@example.net"], fields=f"X-Relayd-Not-Before: {soon}\r\n")
    tomorrow = date_text(datetime.now(UTC) + timedelta(days=1))
    send(small_house, ["tomorrow@example.net"], fields=f"X-Relayd-Not-Before: {tomorrow}\r\n")
    control.post(path_of("resume"), {})
    wait_until(lambda: len(sink.arrivals) >= 2, what="both messages")
    arrived = {arrival.recipients[0]: arrival.content for arrival in sink.arrivals}
    assert b"From: b@example.com\r\nReply-To: app@example.com\r\n" in arrived["moved@example.net"]
    assert b"d=example.com;" in arrived["moved@example.net"]
    assert b"From: app@example.com\r\n" in arrived["later@example.net"]
    assert not [content for content in arrived.values() if b"x-relayd" in content.lower()]
    assert "moved from a@example.com to b@example.com of the same pool" in control.get(path_of("explain", moved)).text
    assert "its time has come" in control.get(path_of("explain", later)).text
    assert "tomorrow@example.net" not in arrived
    assert control.get(path_of("queue"), {"states": ["pending"]}).data["total"] == 1
    assert small_house.stop() == 0
