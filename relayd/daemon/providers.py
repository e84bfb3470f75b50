"""From an upstream's row to the object that speaks to it. The only place that knows every provider."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from relayd.daemon import gmail, smtp_relay
from relayd.daemon.terms import share
from relayd.delivery.upstreams import Upstream, UpstreamTerms
from relayd.errors import RelaydError
from relayd.rules.doubt import way_of
from relayd.seal import Seal, SealError
from relayd.store import upstreams
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.capture import Capture
from relayd.upstream.gmail_api import GmailApi
from relayd.upstream.smarthost import Smarthost

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
        tokens: gmail.Tokens = gmail.no_tokens,
    ) -> None:
        self._database = database
        self._seal = seal
        self._hostname = hostname
        self._index = index
        self._workers = workers
        self._tokens = tokens
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
        )

    def _builder(self, record: UpstreamRecord) -> Callable[[], Upstream]:
        connections = share(record.max_connections, self._index, self._workers)
        match record.provider_type:
            case "capture":
                assert record.capture_directory
                return partial(Capture, Path(record.capture_directory))
            case "smtp_relay":
                return partial(Smarthost, smtp_relay.settings(record, self._seal, self._hostname, connections))
            case "google_workspace" if record.mode == "gmail_api":
                chosen = gmail.settings(record, self._tokens(record), connections, self._workers)
                return partial(GmailApi, chosen, gmail.others(self._database))
            case other:
                raise RelaydError(f"provider {other} is not supported by this version")

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.error("%s", text)
