"""From the row of an SMTP upstream to the settings of its connections."""

from collections.abc import Sequence
from typing import cast

from relayd.seal import Seal
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.settings import AuthMechanism, SmarthostSettings, Timeouts, Tls
from relayd.upstream.verdict import GENERIC, Rule


def settings(
    record: UpstreamRecord,
    seal: Seal,
    hostname: str,
    max_connections: int,
    *,
    timeouts: Timeouts | None = None,
    rules: Sequence[Rule] = GENERIC,
) -> SmarthostSettings:
    """`hostname` is greeted with where the row names no other. Raises SealError."""
    assert record.smtp_host and record.smtp_tls
    password = opened(record, seal, "smtp_password", record.smtp_password_sealed)
    client_key = opened(record, seal, "smtp_client_key", record.smtp_client_key_sealed)
    return SmarthostSettings(
        host=record.smtp_host,
        port=record.smtp_port,
        tls=cast(Tls, record.smtp_tls),  # held by a CHECK
        ehlo_name=record.ehlo_name or hostname,
        verify_certificate=record.smtp_verify_certificate,
        ca_file=record.smtp_ca_file,
        username=record.smtp_username,
        password=password.decode() if password is not None else None,
        auth_mechanism=cast(AuthMechanism | None, record.smtp_auth_mechanism),
        allow_plaintext_auth=record.smtp_allow_plaintext_auth,
        client_certificate=record.smtp_client_certificate,
        client_key=client_key,
        rules=rules,
        source_address=str(record.source_address) if record.source_address else None,
        max_connections=max_connections,
        max_recipients=record.max_recipients,
        max_messages_per_connection=record.max_messages_per_connection,
        idle_seconds=record.idle_seconds,
        timeouts=timeouts or Timeouts(),
    )


def opened(record: UpstreamRecord, seal: Seal, column: str, sealed: bytes | None) -> bytes | None:
    """A secret of the row, None where it has none. Raises SealError."""
    return None if sealed is None else seal.open(sealed, row=record.seal_row(column))
