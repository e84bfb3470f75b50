"""What a worker remembers of the database, for a second: a change is seen by every worker within that time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class TimedCache(Generic[Key, Value]):
    """Answers of `load` by key, each at most `seconds` old, one load at a time for a key. Errors are not kept."""

    def __init__(
        self,
        load: Callable[[Key], Awaitable[Value]],
        *,
        seconds: float = 1.0,
        max_entries: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._max_entries = max_entries
        self._clock = clock
        self._kept: dict[Key, tuple[float, Value]] = {}
        self._loading: dict[Key, asyncio.Future[Value]] = {}

    async def get(self, key: Key) -> Value:
        """The value for `key`, loaded if what is kept is too old."""
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept[0] < self._seconds:
            return kept[1]
        loading = self._loading.get(key)
        if loading is None:
            loading = asyncio.ensure_future(self._fetch(key))
            self._loading[key] = loading
        # Shielded: one caller that goes away must not take the others' answer with it.
        return await asyncio.shield(loading)

    def forget(self, key: Key) -> None:
        """Load `key` anew when it is next asked for."""
        self._kept.pop(key, None)

    async def _fetch(self, key: Key) -> Value:
        started = self._clock()
        try:
            value = await self._load(key)
        finally:
            del self._loading[key]
        if len(self._kept) >= self._max_entries:
            self._kept.clear()
        self._kept[key] = (started, value)
        return value
