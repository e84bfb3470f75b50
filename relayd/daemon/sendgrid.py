"""From the row of a SendGrid upstream to what speaks to it: by SMTP with the API key as password, or by the Web API."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from relayd.daemon import smtp_relay
from relayd.delivery.upstreams import Upstream
from relayd.errors import RelaydError
from relayd.seal import Seal
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.sendgrid import DEFAULT_URL, SendGrid, SendGridSettings
from relayd.upstream.settings import Timeouts
from relayd.upstream.smarthost import Smarthost
from relayd.upstream.verdict import Rule


def builder(
    record: UpstreamRecord, seal: Seal, hostname: str, max_connections: int, rules: Sequence[Rule], timeouts: Timeouts
) -> Callable[[], Upstream]:
    """Raises SealError, and RelaydError for a row that has no key."""
    key = smtp_relay.opened(record, seal, "api_key", record.api_key_sealed)
    if key is None:
        raise RelaydError(f"it has no API key: relayd upstream set {record.name} --api-key-file FILE")
    if record.mode == "smtp":
        chosen = smtp_relay.settings(record, seal, hostname, max_connections, timeouts=timeouts, rules=rules)
        return partial(Smarthost, replace(chosen, password=key.decode()))
    return partial(
        SendGrid,
        SendGridSettings(
            key=key.decode(),
            url=record.api_url or DEFAULT_URL,
            ca_file=record.smtp_ca_file,
            max_connections=max_connections,
            rules=rules,
        ),
    )
