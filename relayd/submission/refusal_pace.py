"""Slow down strangers who are refused again and again, over however many connections.

A stranger may hang up after a few refusals and come back. So refusals count by peer, and beyond so many a minute each
one waits. Whoever has logged in does not wait.
"""

from collections.abc import Callable

from relayd.rules.peer_network import peer_network

WINDOW_SECONDS = 60.0
FREE_REFUSALS = 60
MAX_PEERS = 10_000


class RefusalPace:
    """The refusals of the running minute, in one process. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float], delay_seconds: float) -> None:
        self._clock = clock
        self._delay_seconds = delay_seconds
        self._began = clock()
        self._refusals: dict[str, int] = {}

    def delay_seconds(self, peer: str) -> float:
        """Count a refusal of this peer: how long its reply has to wait."""
        now = self._clock()
        if now - self._began >= WINDOW_SECONDS:
            self._began = now
            # Who was slowed down stays so until it has been quiet for a minute.
            self._refusals = {each: FREE_REFUSALS for each, count in self._refusals.items() if count > FREE_REFUSALS}
        key = peer_network(peer)
        if key not in self._refusals and len(self._refusals) >= MAX_PEERS:
            return self._delay_seconds
        self._refusals[key] = self._refusals.get(key, 0) + 1
        return self._delay_seconds if self._refusals[key] > FREE_REFUSALS else 0.0
