"""What a row says reaches the connections."""

from relayd.daemon import smtp_relay
from relayd.seal import Seal, new_key, parse_key
from relayd.store.ids import new_id
from relayd.store.upstreams import UpstreamRecord


def test_every_setting_of_a_row_is_one_of_its_connections() -> None:
    seal, identity = Seal(parse_key(new_key().encode())), new_id()
    named = UpstreamRecord(identity, "out", "smtp_relay")
    record = UpstreamRecord(
        identity,
        "out",
        "smtp_relay",
        smtp_host="smtp.example.net",
        smtp_port=2525,
        smtp_tls="opportunistic",
        smtp_verify_certificate=False,
        smtp_ca_file="/ca.pem",
        smtp_username="app",
        smtp_password_sealed=seal.seal(b"canary-password", row=named.seal_row("smtp_password")),
        smtp_auth_mechanism="CRAM-MD5",
        smtp_allow_plaintext_auth=True,
        smtp_client_certificate="chain",
        smtp_client_key_sealed=seal.seal(b"canary-key", row=named.seal_row("smtp_client_key")),
        ehlo_name="me.example.org",
        source_address="192.0.2.7",
        max_recipients=7,
        max_messages_per_connection=8,
        idle_seconds=9.5,
    )
    settings = smtp_relay.settings(record, seal, "relay.example.org", 3)
    assert (settings.host, settings.port, settings.tls) == ("smtp.example.net", 2525, "opportunistic")
    assert (settings.verify_certificate, settings.ca_file) == (False, "/ca.pem")
    assert (settings.username, settings.password) == ("app", "canary-password")
    assert (settings.auth_mechanism, settings.allow_plaintext_auth) == ("CRAM-MD5", True)
    assert (settings.client_certificate, settings.client_key) == ("chain", b"canary-key")
    assert (settings.ehlo_name, settings.source_address) == ("me.example.org", "192.0.2.7")
    assert (settings.max_connections, settings.max_recipients) == (3, 7)
    assert (settings.max_messages_per_connection, settings.idle_seconds) == (8, 9.5)
    assert "canary" not in repr(settings)
