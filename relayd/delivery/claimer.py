"""Claim as one worker: batches of what is due, and the one message that tries an upstream whose breaker is open."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from uuid import UUID

from relayd.delivery.breakers import Breakers
from relayd.store import breakers, steering
from relayd.store.claim import Claim, ClaimedEntry, claim
from relayd.store.connection import Connection
from relayd.store.pool import Database


@dataclass(frozen=True, slots=True)
class Pace:
    """How the loop runs. The lease of a started attempt outlives `attempt_seconds` by `lease_margin_seconds`."""

    poll_seconds: float = 1.0
    read_limit: int = 200
    claim_lease_seconds: float = 60.0
    attempt_seconds: float = 1200.0
    lease_margin_seconds: float = 60.0
    release_spread_seconds: float = 300.0


class Claimer:
    """Names each claim anew. Raises StoreUnavailable."""

    def __init__(self, database: Database, breakers: Breakers, *, claimant: str, pace: Pace) -> None:
        self._database = database
        self._breakers = breakers
        self._claimant = claimant
        self._claims = count(1)
        self._pace = pace

    async def claim(self, wanted: Mapping[UUID, int]) -> Claim:
        """Up to so many messages for each upstream, committed."""
        async with self._database.transaction() as connection:
            return await self._claim_as(connection, self._name(), wanted)

    async def probe(self, upstream_id: UUID) -> list[ClaimedEntry]:
        """The message that tries this upstream, committed; nothing if another tries it, or there is none."""
        claimant = self._name()
        seconds = self._pace.claim_lease_seconds + self._pace.attempt_seconds + self._pace.lease_margin_seconds
        async with self._database.transaction() as connection:
            lane_id = await breakers.begin_probe(connection, upstream_id, claimant, seconds)
            if lane_id is None:
                return []
            claimed = await self._claim_as(connection, claimant, {upstream_id: 1})
            if not claimed.entries:
                # The lane had nothing that may go, and is called so from now on: the next look finds another.
                await breakers.release(connection, [claimant])
            # The rest of its lane does not wait for the outcome.
            await steering.steer_lanes(connection, [lane_id])
        if not claimed.entries:
            return []
        self._breakers.probing(claimant, upstream_id)
        return claimed.entries

    async def _claim_as(self, connection: Connection, claimant: str, wanted: Mapping[UUID, int]) -> Claim:
        return await claim(
            connection,
            wanted,
            read_limit=self._pace.read_limit,
            claimant=claimant,
            lease_seconds=self._pace.claim_lease_seconds,
            spread_seconds=self._pace.release_spread_seconds,
        )

    def _name(self) -> str:
        return f"{self._claimant}/{next(self._claims)}"
