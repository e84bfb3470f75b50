"""What is claimed and waits for a free connection, so that the next batch is at hand when one frees.

It is not started: after a crash all of it is untried.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from uuid import UUID

from relayd.delivery.attempt import Attempt
from relayd.delivery.pulse import Pulse
from relayd.store.claim import ClaimedEntry


class Backlog:
    """Planned attempts by upstream, the oldest first."""

    def __init__(self) -> None:
        self._waiting: defaultdict[UUID, deque[Attempt]] = defaultdict(deque)
        self._pulses: defaultdict[UUID, Pulse] = defaultdict(Pulse)

    def add(self, planned: Iterable[Attempt]) -> None:
        """Put attempts at the end of their upstreams' lines."""
        for each in planned:
            self._waiting[each.terms.id].append(each)

    def count(self, upstream_id: UUID) -> int:
        """How many wait for an upstream."""
        return len(self._waiting[upstream_id])

    def ready(self, free: Mapping[UUID, int]) -> int:
        """How many `take` would give."""
        return sum(min(room, len(self._waiting[upstream_id])) for upstream_id, room in free.items())

    def rate(self, upstream_id: UUID, now: float) -> float:
        """How many a second an upstream has taken of late; `now` in seconds of a steady clock."""
        return self._pulses[upstream_id].rate(now)

    def take(self, free: Mapping[UUID, int], now: float) -> list[Attempt]:
        """The next ones, at most so many for each upstream."""
        taken: list[Attempt] = []
        for upstream_id, room in free.items():
            line = self._waiting[upstream_id]
            count = min(room, len(line))
            taken += [line.popleft() for _ in range(count)]
            self._pulses[upstream_id].beat(count, now)
        return taken

    def take_all(self) -> list[ClaimedEntry]:
        """The entries of all that wait, whether their upstream is still known or not."""
        taken = [entry for line in self._waiting.values() for each in line for entry in each.entries]
        self._waiting.clear()
        return taken
