"""What a worker's attempts tell of their upstreams: counted here, decided in the database, the same for all workers.

Success alone costs nothing: the database hears of it together with failures, at most once a poll.
"""

import asyncio
import logging
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
from relayd.store.pool import Database

log = logging.getLogger(__name__)


@dataclass
class _Count:
    """Attempts since then, `since` in seconds of a steady clock."""

    since: float
    attempts: float = 0.0
    failures: int = 0
    reason: str = ""


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
        self._counts: dict[UUID, _Count] = {}
        self._probes: dict[str, UUID] = {}
        self._due: list[UUID] = []
        self._open: set[UUID] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def refresh(self) -> None:
        """Tell what has failed since the last time, and look which breakers are not closed. Raises StoreUnavailable."""
        for upstream_id, count in list(self._counts.items()):
            if count.failures:
                del self._counts[upstream_id]
                await self._note(upstream_id, count)
        async with self._database.connection() as connection:
            found = await breakers.not_closed(connection)
        self._open = {each.upstream_id for each in found}
        self._due = [each.upstream_id for each in found if each.is_due]

    def is_open(self, upstream_id: UUID) -> bool:
        """Whether an upstream was not to be used at the last look."""
        return upstream_id in self._open

    def take_due(self) -> list[UUID]:
        """Upstreams that may be probed, each once a look."""
        due, self._due = self._due, []
        return due

    def probing(self, claimant: str, upstream_id: UUID) -> None:
        """That claim is the upstream's probe."""
        self._probes[claimant] = upstream_id

    async def judge(self, upstream_id: UUID, claimant: str, outcomes: Sequence[Outcome]) -> None:
        """Learn from an attempt of that claim, before it is settled: what cannot be used is not used again."""
        sign = sign_of(outcomes)
        try:
            if self._probes.pop(claimant, None) is not None:
                await self._end_probe(upstream_id, claimant, sign, outcomes)
            elif isinstance(sign, Unfit):
                await self._trip(upstream_id, sign)
            elif sign is not None:
                self._count(upstream_id, sign)
        except StoreUnavailable as error:
            # Whoever comes next finds it out anew; a probe's time runs out.
            self._emit(StoreLost("breaker", str(error)))
        except Exception:
            # The outcome has to be settled, whatever is wrong here.
            log.exception("breaker of upstream %s could not be told", self._name_of(upstream_id))

    async def give_back(self, claimants: Sequence[str]) -> None:
        """These claims were not tried: if a probe is among them, another may be made."""
        probes = [claimant for claimant in claimants if self._probes.pop(claimant, None) is not None]
        if probes:
            try:
                async with self._database.connection() as connection:
                    await breakers.release(connection, [_literally(each) for each in probes])
            except StoreUnavailable as error:
                self._emit(StoreLost("breaker", str(error)))

    async def drain(self) -> None:
        """Wait until lanes have moved."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _count(self, upstream_id: UUID, sign: Sign) -> None:
        now = asyncio.get_running_loop().time()
        count = self._counts.setdefault(upstream_id, _Count(now))
        age, window = now - count.since, self._terms.window_seconds
        if age > window and not count.failures:
            # Only the last window counts; successes come evenly enough.
            count.attempts *= window / age
            count.since = now - window
        count.attempts += 1
        if isinstance(sign, Failing):
            count.failures += 1
            count.reason = describe(sign.cause)

    async def _note(self, upstream_id: UUID, count: _Count) -> None:
        async with self._database.transaction() as connection:
            retry_at = await breakers.note(
                connection,
                upstream_id,
                attempts=max(round(count.attempts), count.failures),
                failures=count.failures,
                reason=count.reason,
                terms=self._terms,
            )
        if retry_at is not None:
            self._opened(BreakerOpened(self._name_of(upstream_id), count.reason, retry_at, False), upstream_id)

    async def _trip(self, upstream_id: UUID, sign: Unfit) -> None:
        reason = describe(sign.cause)
        async with self._database.connection() as connection:
            retry_at = await breakers.trip(
                connection, upstream_id, reason, sign.hold_seconds or self._terms.open_seconds
            )
        if retry_at is not None:
            self._opened(BreakerOpened(self._name_of(upstream_id), reason, retry_at, False), upstream_id)

    async def _end_probe(
        self, upstream_id: UUID, claimant: str, sign: Sign | None, outcomes: Sequence[Outcome]
    ) -> None:
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
                    reason = describe(outcomes[0].cause)
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
