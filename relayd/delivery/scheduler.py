"""The delivery loops of a worker: one claims what is due, the other makes starts durable and attempts them.

A batch is claimed ahead, so that a free connection never waits for a claim; nothing is started ahead, so that a crash
leaves little in doubt.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from uuid import UUID

from relayd import failpoints
from relayd.delivery import attempt
from relayd.delivery.attempt import Attempt, Finisher, ReturnPaths
from relayd.delivery.backlog import Backlog
from relayd.delivery.breakers import Breakers
from relayd.delivery.claimer import Claimer, Pace
from relayd.delivery.settler import Settler
from relayd.delivery.upstreams import Fleet
from relayd.errors import StoreUnavailable
from relayd.rules.relay_events import AttemptStarted, BatchCommitted, ClaimsReturned, RelayEvent, StoreLost
from relayd.store import attempts
from relayd.store.attempts import Start
from relayd.store.batcher import after_commit
from relayd.store.claim import ClaimedEntry
from relayd.store.clock import DatabaseClock
from relayd.store.pool import Database

log = logging.getLogger(__name__)

# While attempts are under way, this long a start waits for others to share its commit.
GATHER_SECONDS = 0.01
GATHER_UNTIL = 5
# A claim costs much the same for one entry as for a hundred: no sooner after the last one.
CLAIM_SPACING_SECONDS = 0.05
# What an upstream takes in this time is claimed at once, so that a fast one costs few claims.
AHEAD_SECONDS = 0.25
MAX_AHEAD = 200
# At a stop, for what is given up before it was sent, to be settled.
ENDING_SECONDS = 2.0
# After a wake: the lane may be in another worker's hands at the first look.
LOOKS = 2


class Scheduler:
    """Runs until `drain`. Wakes on `wake` and polls for what other workers, nodes and clocks make due."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        settler: Settler,
        breakers: Breakers,
        clock: DatabaseClock,
        *,
        claimant: str,
        pace: Pace,
        emit: Callable[[RelayEvent], None],
        finisher: Finisher | None = None,
        return_paths: ReturnPaths | None = None,
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._settler = settler
        self._breakers = breakers
        self._clock = clock
        self._claimer = Claimer(database, breakers, claimant=claimant, pace=pace)
        self._pace = pace
        self._emit = emit
        self._finisher = finisher
        self._keep = attempt.keeper(database)
        self._return_paths = return_paths
        self._backlog = Backlog()
        self._woken = asyncio.Event()
        self._startable = asyncio.Event()
        self._looks = LOOKS  # so many claims are worth making; a wake that finds no room keeps them for later
        self._refreshes_at = 0.0  # in the loop's time
        self._awaited = 1  # so many connections are to become free before there is something to start
        self._stopping = False
        self._finished = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def wake(self, *, is_changed: bool = False) -> None:
        """Something may be due now. `is_changed`: before that, look what upstreams have become."""
        self._refreshes_at = 0.0 if is_changed else self._refreshes_at
        self._looks = LOOKS
        self._woken.set()

    async def run(self) -> None:
        """Claim and attempt until drained. Survives a lost Postgres."""
        starting = asyncio.create_task(self._start_until_stopped(), name="starter")
        try:
            await self._claim_until_stopped()
        finally:
            self._startable.set()
            await starting
            self._untried(self._backlog.take_all(), "relayd was stopped before it began")
            self._finished.set()

    async def drain(self, timeout_seconds: float) -> bool:
        """Claim no more and let the attempts under way end; False if some had to be cut off."""
        self._stopping = True
        self.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                # First the loops: a round under way may still launch what it has started.
                await self._finished.wait()
                while self._running:
                    await asyncio.wait(self._running)
        if self._running:
            await self._fleet.close()
            await asyncio.wait(self._running, timeout=ENDING_SECONDS)
        was_cut_off = bool(self._running)
        if self._running:
            # What cannot have been sent is settled as not tried; of the rest nobody will know.
            await self._cancel()
        await self._cancel()
        return not was_cut_off

    async def _cancel(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=ENDING_SECONDS)

    async def _claim_until_stopped(self) -> None:
        clock = asyncio.get_running_loop().time
        claims_after = 0.0
        while not self._stopping:
            if clock() < claims_after:
                await asyncio.sleep(claims_after - clock())
            claims_after = clock() + CLAIM_SPACING_SECONDS
            self._woken.clear()
            more = False
            try:
                if clock() >= self._refreshes_at:
                    # Not after it: what changes meanwhile may be missing in it.
                    self._refreshes_at = clock() + self._pace.poll_seconds
                    await self._refresh()
                # Before each claim: the first message after the pause is the probe, however few there are.
                await self._probe_due()
                more = await self._claim()
            except StoreUnavailable as error:
                self._refreshes_at = 0.0
                self._emit(StoreLost("claim", str(error)))
                await asyncio.sleep(self._pace.poll_seconds / 4)
            except Exception:
                # A bug must not end delivery for good; what was claimed comes back when its lease lapses.
                log.exception("claiming failed")
                await asyncio.sleep(self._pace.poll_seconds)
            if not more and not self._stopping:
                await self._rest()

    async def _start_until_stopped(self) -> None:
        while not self._stopping:
            self._startable.clear()
            if self._running and self._backlog.ready(self._fleet.free()) < GATHER_UNTIL:
                await self._gather()
            taken = self._backlog.take(self._fleet.free(), asyncio.get_running_loop().time())
            if not taken:
                await self._startable.wait()
                continue
            if self._looks:
                # There is room in the backlog again.
                self._woken.set()
            try:
                await self._start(taken)
            except StoreUnavailable as error:
                self._emit(StoreLost("start", str(error)))
                await asyncio.sleep(self._pace.poll_seconds / 4)
            except Exception:
                log.exception("starting failed")
                await asyncio.sleep(self._pace.poll_seconds)

    async def _gather(self) -> None:
        """Wait a little for more that can start together."""
        self._awaited = GATHER_UNTIL
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                await self._startable.wait()
        except TimeoutError:
            pass
        self._awaited = 1

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.poll_seconds):
                await self._woken.wait()

    async def _refresh(self) -> None:
        async with self._database.connection() as connection:
            await self._clock.sync(connection)
        await self._fleet.refresh()
        await self._breakers.refresh()

    async def _claim(self) -> bool:
        """One claim; False when nothing more is due or there is no room."""
        wanted = self._wanted()
        if not wanted:
            return False
        looks, self._looks = self._looks, 0
        began = asyncio.get_running_loop().time()
        claimed = await self._claimer.claim(wanted)
        if claimed.leaves_more:
            self._looks = LOOKS
        if claimed.entries:
            failpoints.reach("claimed")
            self._plan(claimed.entries)
        else:
            self._looks = max(self._looks, looks - 1)
        with after_commit():
            for reached in claimed.limits_reached:
                self._emit(reached)
            if claimed.entries:
                self._emit(BatchCommitted("claim", len(claimed.entries), asyncio.get_running_loop().time() - began))
        return self._looks > 0

    async def _probe_due(self) -> None:
        """For each upstream whose breaker lets one message try: claim that message, if there is one."""
        for upstream_id in self._breakers.due():
            if self._fleet.room(upstream_id):
                self._plan(await self._claimer.probe(upstream_id))

    def _plan(self, entries: list[ClaimedEntry]) -> None:
        planned, unknown = attempt.plan(entries, self._fleet)
        self._untried(unknown, "its upstream was removed")
        self._backlog.add(planned)
        self._startable.set()

    def _wanted(self) -> dict[UUID, int]:
        """As many more as keep one batch at hand for each upstream; few at a time are not worth a claim."""
        wanted = {}
        now = asyncio.get_running_loop().time()
        for terms in self._fleet.all_terms():
            waiting = self._backlog.count(terms.id)
            soon = min(round(self._backlog.rate(terms.id, now) * AHEAD_SECONDS), MAX_AHEAD)
            ahead = max(terms.max_transactions, soon)
            if waiting <= ahead // 2:
                wanted[terms.id] = ahead - waiting + self._fleet.room(terms.id)
        return wanted

    async def _start(self, taken: list[Attempt]) -> None:
        """Make the start durable, launch. What cannot be started goes back untried."""
        began = asyncio.get_running_loop().time()
        traces = attempt.traces(taken)
        claims = [(entry, each.terms.provider) for each in taken for entry in each.entries]
        lease_seconds = self._pace.attempt_seconds + self._pace.lease_margin_seconds
        try:
            async with self._database.connection() as connection:
                failpoints.reach_soon("start-sent")
                started = await attempts.start(connection, claims, lease_seconds=lease_seconds, traces=traces)
        except Exception:
            # Whatever Postgres still learned of these starts: nothing has been sent.
            self._untried([entry for entry, _ in claims], "Postgres was lost before it began")
            raise
        seconds = asyncio.get_running_loop().time() - began
        self._untried(
            [entry for entry, _ in claims if entry not in started.entries],
            "its window, its limit, its upstream or a pause changed before it began",
        )
        for each in taken:
            entries = tuple(entry for entry in each.entries if entry in started.entries)
            if entries:
                self._launch(Attempt(each.terms, entries), started)
        with after_commit():
            self._emit(BatchCommitted("start", len(started.entries), seconds))

    def _untried(self, entries: list[ClaimedEntry], reason: str) -> None:
        """Give claims back that were not tried, budget and all, however long Postgres stays away."""
        if entries:
            self._track(asyncio.create_task(self._give_back(entries, reason)))
            with after_commit():
                self._emit(ClaimsReturned(len(entries), reason))

    async def _give_back(self, entries: list[ClaimedEntry], reason: str) -> None:
        await self._breakers.give_back(list({entry.claimed_by for entry in entries}))
        await self._settler.settle([attempt.untried(entry, reason) for entry in entries])

    def _launch(self, each: Attempt, started: Start) -> None:
        self._fleet.take(each.terms.id)
        self._track(
            asyncio.create_task(
                attempt.run(
                    each,
                    started,
                    self._fleet,
                    self._settler,
                    self._breakers,
                    finisher=self._finisher,
                    keep=self._keep,
                    return_paths=self._return_paths,
                    longest_seconds=self._pace.attempt_seconds,
                    on_delivered=partial(self._delivered, each.terms.id),
                ),
                name=f"attempt {each.entries[0].queue_id}",
            )
        )
        with after_commit():
            for entry in each.entries:
                recipient = str(entry.recipient)
                self._emit(AttemptStarted(entry.queue_id, entry.entry_id, recipient, each.terms.name, entry.fence))

    def _delivered(self, upstream_id: UUID) -> None:
        self._fleet.release(upstream_id)
        self._awaited -= 1
        if self._awaited <= 0:
            self._startable.set()

    def _track(self, task: asyncio.Task[None]) -> None:
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("attempt failed", exc_info=task.exception())
