"""Work that may take long, done beside the other chores: one round at a time, never in their way."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from relayd.errors import StoreUnavailable

log = logging.getLogger(__name__)


class Aside:
    """A chore's work as a task of its own. What is left under way when the process ends is cut off."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._work = work
        self._round: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start a round, unless the last one is still under way."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._run(), name=self._name)

    async def ended(self) -> None:
        """Wait for the round that is under way."""
        if self._round is not None:
            await self._round

    async def _run(self) -> None:
        try:
            await self._work()
        except StoreUnavailable:
            pass  # the hot path says so loudly
        except Exception:
            log.exception("chore %s failed", self._name)
