"""What the parts are handed is what the configuration says."""

from dataclasses import asdict

from relayd.config.settings import Settings
from relayd.daemon.house_terms import publishing


def test_everything_to_publish_reaches_the_records():
    publish = {"spf_hosts": ("ip4:192.0.2.1",), "mx_host": "mx.example.com", "dmarc_policy": "reject"}
    publish |= {"dmarc_rua": "dmarc@example.com", "report_mx_host": "relay.example.com"}
    settings = Settings.model_validate({"database": {"dsn": "postgresql://relayd@/relayd"}, "publish": publish})
    assert asdict(publishing(settings)) == publish
