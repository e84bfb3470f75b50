"""What the parts are handed is what the configuration says."""

from dataclasses import asdict
from typing import Any

import pytest

from relayd.config.settings import Settings
from relayd.daemon.house_terms import publishing
from relayd.daemon.terms import connection_timeouts


def test_everything_to_publish_reaches_the_records():
    publish = {"spf_hosts": ("ip4:192.0.2.1",), "mx_host": "mx.example.com", "dmarc_policy": "reject"}
    publish |= {"dmarc_rua": "dmarc@example.com", "report_mx_host": "relay.example.com"}
    settings = Settings.model_validate({"database": {"dsn": "postgresql://relayd@/relayd"}, "publish": publish})
    assert asdict(publishing(settings)) == publish


def configured(**delivery: Any) -> Settings:
    return Settings.model_validate({"database": {"dsn": "postgresql://relayd@/relayd"}, "delivery": delivery})


def test_a_greeting_has_the_five_minutes_of_the_rfc_unless_told_otherwise():
    # RFC 5321 4.5.3.2.1
    assert connection_timeouts(configured()).greeting_seconds == 300
    assert connection_timeouts(configured(greeting_seconds=20)).greeting_seconds == 20


@pytest.mark.parametrize(
    "delivery",
    [{}, {"greeting_seconds": 3600}, {"attempt_seconds": 60}, {"attempt_seconds": 1}, {"greeting_seconds": 5}],
)
def test_a_connection_is_ready_or_given_up_before_its_attempt_ends(delivery: dict[str, Any]):
    settings = configured(**delivery)
    assert 0 < connection_timeouts(settings).opening_seconds < settings.delivery.attempt_seconds


def test_an_attempt_has_time_for_a_late_greeting_and_a_late_last_reply():
    settings = configured()
    timeouts = connection_timeouts(settings)
    assert timeouts.opening_seconds > timeouts.connect + timeouts.greeting_seconds
    assert timeouts.opening_seconds + timeouts.dot < settings.delivery.attempt_seconds
