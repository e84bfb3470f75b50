"""Group commit: while one batch is under way the next one gathers, and each batch is one transaction."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from relayd.errors import StoreUnavailable

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@contextmanager
def after_commit() -> Iterator[None]:
    """For what follows a commit: an error is logged and goes no further, or the commit would pass for a failure."""
    try:
        yield
    except Exception:
        log.exception("a step after a commit failed; what was committed stays")


class Batcher(Generic[Item, Answer]):
    """Hands gathered items to `commit`, which answers them all at once, in order.

    A batch that fails for a reason of its own is tried again an item at a time, so that a bad item harms only itself.
    When the store is unavailable every item of the batch learns that at once. So `commit` must not raise once it has
    committed: see after_commit.

    A first item goes at once. Those that came while it was under way wait `gather_seconds` more, since where there
    are some there are soon others, and a batch costs much the same whatever is in it. Where nobody waits for the
    answer, `spacing_seconds` lets no batch begin sooner after the last one.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        max_items: int,
        max_weight: int,
        weigh: Callable[[Item], int],
        gather_seconds: float = 0.003,
        spacing_seconds: float = 0.0,
    ) -> None:
        self._commit = commit
        self._max_items = max_items
        self._max_weight = max_weight
        self._weigh = weigh
        self._gather_seconds = gather_seconds
        self._spacing_seconds = spacing_seconds
        self._begins_after = 0.0
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer for this item, once its batch has committed. Raises what its commit raised.

        Cancelling the caller does not take the item back: it may have been committed.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="batcher")
        return await answer

    async def drain(self) -> None:
        """Wait until everything submitted so far has been answered."""
        while self._running is not None:
            await asyncio.shield(self._running)

    async def _run(self) -> None:
        try:
            clock = asyncio.get_running_loop().time
            while self._waiting:
                if clock() < self._begins_after:
                    await asyncio.sleep(self._begins_after - clock())
                self._begins_after = clock() + self._spacing_seconds
                await self._commit_batch(self._take())
                if self._waiting:
                    await asyncio.sleep(self._gather_seconds)
        finally:
            self._running = None

    def _take(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        weight = 0
        for count, (item, _) in enumerate(self._waiting):
            weight += self._weigh(item)
            if count == self._max_items or (count and weight > self._max_weight):
                batch, self._waiting = self._waiting[:count], self._waiting[count:]
                return batch
        batch, self._waiting = self._waiting, []
        return batch

    async def _commit_batch(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._commit([item for item, _ in batch])
        except StoreUnavailable as error:
            for _, future in batch:
                _fail(future, error)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            for pair in batch:
                await self._commit_batch([pair])
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
