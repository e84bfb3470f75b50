"""What a worker's attempts tell of their upstreams: counted here, decided in the database, the same for all workers.

Success alone costs nothing: the database hears of it together with failures, at most once a poll.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

from relayd.errors import StoreUnavailable
from relayd.rules.breaker import Alive, BreakerTerms, Failing, Sign, Unfit, sign_of
from relayd.rules.outcome import Outcome
from relayd.rules.relay_events import BreakerClosed, BreakerOpened, RelayEvent, StoreLost
from relayd.rules.settlement import describe
from relayd.store import breakers, steering
from relayd.store.breakers import Noted
from relayd.store.pool import Database

log = logging.getLogger(__name__)


@dataclass
class _Latest:
    """The latest attempts: when, in seconds of a steady clock, and whether it failed. The rest is what the database has
    not heard of: failures since the last success, the times of the latest ones, the latest failure."""

    ended: deque[tuple[float, bool]]
    trailing: int = 0
    succeeded_at: float | None = None
    failed_at: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    """What came of a probe."""

    upstream_id: UUID
    sign: Sign | None
    outcome: Outcome


class Breakers:
    """One a worker. `name_of` gives an upstream's name, for events."""

    def __init__(
        self,
        database: Database,
        terms: BreakerTerms,
        *,
        name_of: Callable[[UUID], str],
        emit: Callable[[RelayEvent], None],
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._terms = terms
        self._name_of = name_of
        self._emit = emit
        self._wake = wake
        self._latest: dict[UUID, _Latest] = {}
        self._probes: dict[str, UUID] = {}
        self._ended: dict[str, _Ended | None] = {}
        self._due_at: dict[UUID, float] = {}  # of breakers that are not closed, in the loop's time
        self._failing: set[UUID] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def refresh(self) -> None:
        """Tell what has failed since the last time, and of probes that could not be told of; then look which breakers
        are not closed. Raises StoreUnavailable."""
        await self._tell_of_probes()
        for upstream_id, latest in list(self._latest.items()):
            if latest.reason is not None or (latest.succeeded_at is not None and upstream_id in self._failing):
                del self._latest[upstream_id]
                await self._note(upstream_id, latest)
        async with self._database.connection() as connection:
            found = await breakers.failing(connection)
        now = asyncio.get_running_loop().time()
        self._failing = {each.upstream_id for each in found}
        self._due_at = {
            each.upstream_id: now + each.due_in_seconds for each in found if each.due_in_seconds is not None
        }

    def due(self) -> list[UUID]:
        """Upstreams that may be probed now."""
        now = asyncio.get_running_loop().time()
        return [upstream_id for upstream_id, due_at in self._due_at.items() if due_at <= now]

    def probing(self, claimant: str, upstream_id: UUID) -> None:
        """That claim is the upstream's probe."""
        self._probes[claimant] = upstream_id
        self._due_at.pop(upstream_id, None)

    async def judge(self, upstream_id: UUID, claimant: str, outcomes: Sequence[Outcome]) -> None:
        """Learn from an attempt of that claim, before it is settled: what cannot be used is not used again."""
        sign = sign_of(outcomes)
        try:
            if self._probes.pop(claimant, None) is not None:
                self._ended[claimant] = _Ended(upstream_id, sign, outcomes[0])
                await self._tell_of_probes()
            elif isinstance(sign, Unfit):
                await self._trip(upstream_id, sign)
            elif sign is not None:
                self._count(upstream_id, sign)
        except StoreUnavailable as error:
            # Whoever comes next finds it out anew; what came of a probe is told with the next look.
            self._emit(StoreLost("breaker", str(error)))
        except Exception:
            # The outcome has to be settled, whatever is wrong here.
            log.exception("breaker of upstream %s could not be told", self._name_of(upstream_id))

    async def give_back(self, claimants: Sequence[str]) -> None:
        """These claims were not tried: if a probe is among them, another may be made."""
        probes = [claimant for claimant in claimants if self._probes.pop(claimant, None) is not None]
        if probes:
            self._ended |= dict.fromkeys(probes)
            try:
                await self._tell_of_probes()
            except StoreUnavailable as error:
                self._emit(StoreLost("breaker", str(error)))

    async def drain(self) -> None:
        """Wait until lanes have moved."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _count(self, upstream_id: UUID, sign: Sign) -> None:
        latest = self._latest.setdefault(upstream_id, _Latest(deque(maxlen=self._terms.remembered)))
        now = asyncio.get_running_loop().time()
        latest.ended.append((now, isinstance(sign, Failing)))
        if isinstance(sign, Failing):
            latest.reason, latest.failed_at = describe(sign.cause), now
            latest.trailing += 1
        else:
            latest.trailing, latest.succeeded_at = 0, now

    async def _note(self, upstream_id: UUID, latest: _Latest) -> None:
        now = asyncio.get_running_loop().time()
        counted = [failed for at, failed in latest.ended if at >= now - self._terms.window_seconds]
        noted = Noted(
            len(counted),
            sum(counted),
            latest.trailing,
            None if latest.succeeded_at is None else now - latest.succeeded_at,
            None if latest.failed_at is None else now - latest.failed_at,
            latest.reason,
        )
        async with self._database.transaction() as connection:
            retry_at = await breakers.note(connection, upstream_id, noted, self._terms)
        if retry_at is not None:
            reason = latest.reason or ""
            self._opened(BreakerOpened(self._name_of(upstream_id), reason, retry_at, False), upstream_id)

    async def _trip(self, upstream_id: UUID, sign: Unfit) -> None:
        reason = describe(sign.cause)
        async with self._database.connection() as connection:
            retry_at = await breakers.trip(
                connection, upstream_id, reason, sign.hold_seconds or self._terms.open_seconds
            )
        if retry_at is not None:
            self._opened(BreakerOpened(self._name_of(upstream_id), reason, retry_at, False), upstream_id)

    async def _tell_of_probes(self) -> None:
        """Each is forgotten once the database has heard of it. Raises StoreUnavailable."""
        for claimant, ended in list(self._ended.items()):
            try:
                if ended is None:
                    async with self._database.connection() as connection:
                        await breakers.release(connection, [_literally(claimant)])
                else:
                    await self._end_probe(claimant, ended)
            except StoreUnavailable:
                raise
            except Exception:
                # Upkeep lets another begin.
                log.exception("the probe of claim %s could not be ended", claimant)
            self._ended.pop(claimant, None)

    async def _end_probe(self, claimant: str, ended: _Ended) -> None:
        upstream_id, sign = ended.upstream_id, ended.sign
        async with self._database.connection() as connection:
            match sign:
                case Alive():
                    if await breakers.close(connection, upstream_id, probing_by=claimant):
                        self._closed(upstream_id)
                    return
                case Failing() | Unfit():
                    reason = describe(sign.cause)
                case None:
                    # Silence is no sign of life.
                    reason = describe(ended.outcome.cause)
                case _:
                    assert_never(sign)
            hold_seconds = sign.hold_seconds or None if isinstance(sign, Unfit) else None
            retry_at = await breakers.reopen(
                connection, upstream_id, claimant, reason, hold_seconds=hold_seconds, terms=self._terms
            )
        if retry_at is not None:
            self._emit(BreakerOpened(self._name_of(upstream_id), reason, retry_at, True))

    def _opened(self, event: BreakerOpened, upstream_id: UUID) -> None:
        self._emit(event)
        self._follow(upstream_id)

    def _closed(self, upstream_id: UUID) -> None:
        self._emit(BreakerClosed(self._name_of(upstream_id)))
        self._follow(upstream_id)

    def _follow(self, upstream_id: UUID) -> None:
        """Lanes follow beside the work; upkeep does what is cut off here."""
        task = asyncio.create_task(self._steer(upstream_id), name="steering")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _steer(self, upstream_id: UUID) -> None:
        try:
            await steering.steer(self._database, upstream_id)
            await steering.let_go(self._database, upstream_id)
        except StoreUnavailable as error:
            self._emit(StoreLost("steer", str(error)))
        except Exception:
            log.exception("lanes could not follow the breaker of upstream %s", self._name_of(upstream_id))
        self._wake()


def _literally(claimant: str) -> str:
    """A LIKE pattern that matches just this."""
    return claimant.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
