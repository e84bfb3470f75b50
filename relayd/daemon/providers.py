"""From an upstream's row to the object that speaks to it. The only place that knows every provider."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from relayd.daemon import smtp_relay
from relayd.daemon.terms import share
from relayd.delivery.upstreams import Upstream, UpstreamTerms
from relayd.errors import RelaydError
from relayd.rules.doubt import way_of
from relayd.rules.grant_events import GrantDied
from relayd.rules.known_hosts import signing_for
from relayd.seal import Seal, SealError
from relayd.store import upstreams
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.capture import Capture
from relayd.upstream.settings import Timeouts
from relayd.upstream.smarthost import Smarthost
from relayd.upstream.table import OperatorRule, table_of
from relayd.upstream.token_login import logs_in_by_token

log = logging.getLogger(__name__)


class Providers:
    """Loads the living upstreams for a worker's fleet."""

    def __init__(
        self,
        database: Database,
        seal: Seal,
        *,
        hostname: str,
        index: int,
        workers: int,
        verdicts: Sequence[OperatorRule] = (),
        timeouts: Timeouts | None = None,
        emit: Callable[[GrantDied], None],
    ) -> None:
        self._database = database
        self._emit = emit
        self._seal = seal
        self._hostname = hostname
        self._index = index
        self._workers = workers
        self._verdicts = verdicts
        self._timeouts = timeouts or Timeouts()
        self._told: set[str] = set()

    async def load(self) -> list[tuple[UpstreamTerms, Callable[[], Upstream]]]:
        """The terms of every upstream that can be used, with what makes its connections. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            records = await upstreams.living(connection)
        usable = []
        for record in records:
            try:
                usable.append((self._terms(record), self._builder(record)))
            except (SealError, RelaydError) as error:
                self._tell_once(f"upstream {record.name} is not used, its mail waits: {error}")
        return usable

    def _terms(self, record: UpstreamRecord) -> UpstreamTerms:
        return UpstreamTerms(
            id=record.id,
            name=record.name,
            provider=record.provider_type,
            max_transactions=share(record.max_connections, self._index, self._workers),
            max_recipients=record.max_recipients,
            on_uncertain="hold" if record.on_uncertain == "hold" else "retry",
            revision=str(record.updated_at),
            looks=way_of(record.provider_type, record.mode),
            signing=signing_for(record.provider_type, record.dialect, record.smtp_host, record.dkim),
        )

    def _builder(self, record: UpstreamRecord) -> Callable[[], Upstream]:
        connections = share(record.max_connections, self._index, self._workers)
        rules = table_of(record, self._verdicts).rules
        if record.provider_type == "capture":
            assert record.capture_directory
            return partial(Capture, Path(record.capture_directory))
        if record.provider_type == "smtp_relay" and not logs_in_by_token(record):
            chosen = smtp_relay.settings(
                record, self._seal, self._hostname, connections, timeouts=self._timeouts, rules=rules
            )
            return partial(Smarthost, chosen)
        # An HTTP client and Google's library with it: workers that speak nothing but SMTP start without.
        from relayd.daemon import web_providers

        return web_providers.builder(
            record,
            self._database,
            self._seal,
            hostname=self._hostname,
            connections=connections,
            workers=self._workers,
            rules=rules,
            timeouts=self._timeouts,
            emit=self._emit,
        )

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.error("%s", text)
