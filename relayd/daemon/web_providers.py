"""From the row of an upstream that has to do with HTTP, if only for its tokens, to the object that speaks to it."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from relayd.daemon import gmail, google, sendgrid, smtp_relay
from relayd.daemon.tokens import token_source
from relayd.delivery.upstreams import Upstream
from relayd.errors import RelaydError
from relayd.rules.grant_events import GrantDied
from relayd.seal import Seal
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.gmail_api import GmailApi
from relayd.upstream.rule import Rule
from relayd.upstream.settings import Timeouts
from relayd.upstream.smarthost import Smarthost


def builder(
    record: UpstreamRecord,
    database: Database,
    seal: Seal,
    *,
    hostname: str,
    connections: int,
    workers: int,
    rules: Sequence[Rule],
    timeouts: Timeouts,
    emit: Callable[[GrantDied], None],
) -> Callable[[], Upstream]:
    """What makes its connections. Raises SealError, RelaydError."""
    if record.provider_type == "sendgrid":
        return sendgrid.builder(record, seal, hostname, connections, rules, timeouts)
    tokens = token_source(record, seal, database, emit, time.monotonic)
    match record.provider_type, record.mode:
        case "smtp_relay", _:
            chosen = smtp_relay.settings(record, seal, hostname, connections, timeouts=timeouts, rules=rules)
            return partial(Smarthost, google.with_tokens(record, chosen, tokens))
        case "google_workspace", "gmail_api":
            by_api = gmail.settings(record, tokens, connections, workers, rules)
            return partial(GmailApi, by_api, gmail.others(database))
        case "google_workspace", _:
            return google.builder(
                record, seal, tokens, hostname=hostname, max_connections=connections, timeouts=timeouts, rules=rules
            )
        case other, _:
            raise RelaydError(f"provider {other} is not supported by this version")
