"""From the row of a Google upstream, or of any that logs in by token, to what speaks SMTP to it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from relayd.daemon import smtp_relay
from relayd.seal import Seal
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.google import Identify, identify
from relayd.upstream.settings import SmarthostSettings, Timeouts
from relayd.upstream.smarthost import Smarthost
from relayd.upstream.token_login import logs_in_by_token
from relayd.upstream.tokens import TokenSource
from relayd.upstream.verdict import GENERIC, Rule


def builder(
    record: UpstreamRecord,
    seal: Seal,
    tokens: TokenSource,
    *,
    hostname: str,
    max_connections: int,
    timeouts: Timeouts,
    rules: Sequence[Rule] = GENERIC,
) -> Callable[[], Smarthost]:
    """What makes the connections of modes smtp-relay and xoauth2. Raises SealError."""
    plain = smtp_relay.settings(record, seal, hostname, max_connections, timeouts=timeouts, rules=rules)
    settings = with_tokens(record, plain, tokens)
    return partial(Smarthost, settings, identify=identities(record, settings))


def identities(record: UpstreamRecord, settings: SmarthostSettings) -> Identify:
    """As whom each mail's connection is opened."""
    return identify(
        greets_as_domain=record.mode == "smtp-relay" and record.ehlo_name is None,
        logs_in_as_mailbox=settings.auth_mechanism == "XOAUTH2" and speaks_for_all(record),
    )


def with_tokens(record: UpstreamRecord, settings: SmarthostSettings, tokens: TokenSource) -> SmarthostSettings:
    """The same settings, logging in by token if the row says so or has nothing else to log in with."""
    if not logs_in_by_token(record):
        return settings
    return replace(
        settings,
        auth_mechanism="XOAUTH2",
        username=record.oauth_account or record.smtp_username,
        tokens=tokens,
    )


def speaks_for_all(record: UpstreamRecord) -> bool:
    """Whether its grant is a service account's: each mailbox logs in as itself."""
    return record.google_service_account_sealed is not None
