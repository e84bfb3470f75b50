"""How fast something goes, from when it went: an average in which a second ago counts little."""

import math

SECONDS = 1.0


class Pulse:
    """Times are seconds of a steady clock that never goes back."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._at = 0.0

    def beat(self, count: int, now: float) -> None:
        """It went so often just now."""
        self._weight = self._faded(now) + count
        self._at = now

    def rate(self, now: float) -> float:
        """How often a second it goes."""
        return self._faded(now) / SECONDS

    def _faded(self, now: float) -> float:
        return self._weight * math.exp((self._at - now) / SECONDS)
