"""From an upstream's row to the object that speaks to it. The only place that knows every provider."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from relayd.daemon.terms import share
from relayd.delivery.upstreams import Upstream, UpstreamTerms
from relayd.seal import Seal, SealError
from relayd.store import upstreams
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.capture import Capture
from relayd.upstream.settings import AuthMechanism, SmarthostSettings, Tls
from relayd.upstream.smarthost import Smarthost

log = logging.getLogger(__name__)


class Providers:
    """Loads the living upstreams for a worker's fleet."""

    def __init__(self, database: Database, seal: Seal, *, hostname: str, index: int, workers: int) -> None:
        self._database = database
        self._seal = seal
        self._hostname = hostname
        self._index = index
        self._workers = workers
        self._told: set[str] = set()

    async def load(self) -> list[tuple[UpstreamTerms, Callable[[], Upstream]]]:
        """The terms of every upstream that can be used, with what makes its connections. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            records = await upstreams.living(connection)
        usable = []
        for record in records:
            try:
                usable.append((self._terms(record), self._builder(record)))
            except SealError as error:
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
        )

    def _builder(self, record: UpstreamRecord) -> Callable[[], Upstream]:
        if record.provider_type == "capture":
            assert record.capture_directory
            return partial(Capture, Path(record.capture_directory))
        password = None
        if record.smtp_password_sealed is not None:
            password = self._seal.open(record.smtp_password_sealed, row=record.password_seal_row).decode()
        assert record.smtp_host and record.smtp_port and record.smtp_tls
        settings = SmarthostSettings(
            host=record.smtp_host,
            port=record.smtp_port,
            tls=cast(Tls, record.smtp_tls),  # held by a CHECK
            ehlo_name=record.ehlo_name or self._hostname,
            verify_certificate=record.smtp_verify_certificate,
            ca_file=record.smtp_ca_file,
            username=record.smtp_username,
            password=password,
            auth_mechanism=cast(AuthMechanism | None, record.smtp_auth_mechanism),
            allow_plaintext_auth=record.smtp_allow_plaintext_auth,
            source_address=str(record.source_address) if record.source_address else None,
            max_connections=share(record.max_connections, self._index, self._workers),
            max_recipients=record.max_recipients,
            max_messages_per_connection=record.max_messages_per_connection,
        )
        return partial(Smarthost, settings)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.error("%s", text)
