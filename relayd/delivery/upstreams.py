"""The upstreams that this worker can reach: their connections, and how much of their capacity is taken."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from relayd.mail.envelope import Transmission
from relayd.rules.doubt import Way
from relayd.rules.known_hosts import USUAL, Signing
from relayd.rules.outcome import Cause, Outcome, Postponed, Scope, Stage
from relayd.rules.settlement import OnUncertain


class Upstream(Protocol):
    """What delivery needs of a provider."""

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        """One outcome a recipient, in order. Raises nothing but CancelledError."""
        ...

    async def close(self) -> None:
        """Close idle connections now and busy ones when they have ended."""
        ...


@dataclass(frozen=True, slots=True)
class UpstreamTerms:
    """What the scheduler must know of an upstream. `revision` changes whenever its connections must be made anew."""

    id: UUID
    name: str
    provider: str
    max_transactions: int  # at once, by this worker
    max_recipients: int  # per transaction
    on_uncertain: OnUncertain
    revision: str
    looks: Way | None = None  # how it can be asked what became of an attempt in doubt
    signing: Signing = USUAL


class Fleet:
    """The upstreams by id, following the database. `refresh` at most once a second is enough."""

    def __init__(
        self,
        load: Callable[[], Awaitable[Iterable[tuple[UpstreamTerms, Callable[[], Upstream]]]]],
    ) -> None:
        self._load = load
        self._terms: dict[UUID, UpstreamTerms] = {}
        self._upstreams: dict[UUID, Upstream] = {}
        self._busy: dict[UUID, int] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def refresh(self) -> None:
        """Take over added, changed and removed upstreams. Raises StoreUnavailable; what is known stays."""
        found = {terms.id: (terms, build) for terms, build in await self._load()}
        for upstream_id in [known for known in self._terms if known not in found]:
            del self._terms[upstream_id]
            self._retire(upstream_id)
        for upstream_id, (terms, build) in found.items():
            known = self._terms.get(upstream_id)
            self._terms[upstream_id] = terms
            if known is None or known.revision != terms.revision:
                self._retire(upstream_id)
                self._upstreams[upstream_id] = build()

    def free(self) -> dict[UUID, int]:
        """How many more transactions each upstream can take; those that can take none are left out."""
        return {upstream_id: room for upstream_id in self._terms if (room := self.room(upstream_id))}

    def room(self, upstream_id: UUID) -> int:
        """How many more transactions an upstream can take now."""
        terms = self._terms.get(upstream_id)
        return max(0, terms.max_transactions - self._busy.get(upstream_id, 0)) if terms else 0

    def all_terms(self) -> list[UpstreamTerms]:
        """The terms of every upstream that is known."""
        return list(self._terms.values())

    def terms(self, upstream_id: UUID) -> UpstreamTerms | None:
        """The terms of an upstream, None if it is gone."""
        return self._terms.get(upstream_id)

    def name_of(self, upstream_id: UUID) -> str:
        """Its name, or its id once it is gone."""
        terms = self._terms.get(upstream_id)
        return terms.name if terms else str(upstream_id)

    def take(self, upstream_id: UUID) -> None:
        """One more transaction is under way."""
        self._busy[upstream_id] = self._busy.get(upstream_id, 0) + 1

    def release(self, upstream_id: UUID) -> None:
        """A transaction has ended."""
        self._busy[upstream_id] -= 1

    async def deliver(self, terms: UpstreamTerms, transmission: Transmission) -> tuple[Outcome, ...]:
        """Hand a transmission to the upstream that it was begun for, unless that cannot be asked for it any more as
        its start has it."""
        known, upstream = self._terms.get(terms.id), self._upstreams.get(terms.id)
        if upstream is None or known is None or known.looks is not terms.looks:
            what = "removed" if upstream is None else "given another mode"
            gone = Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, f"not tried: its upstream was {what}"), 0)
            return (gone,) * len(transmission.recipients)
        return await upstream.deliver(transmission)

    async def close(self) -> None:
        """Close every connection."""
        for upstream_id in list(self._upstreams):
            self._retire(upstream_id)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _retire(self, upstream_id: UUID) -> None:
        upstream = self._upstreams.pop(upstream_id, None)
        if upstream is not None:
            task = asyncio.ensure_future(upstream.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
