"""What is claimed and waits for a free connection, so that the next batch is at hand when one frees.

It is not started: after a crash all of it is untried.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from uuid import UUID

from relayd.delivery.attempt import Attempt


class Backlog:
    """Planned attempts by upstream, the oldest first."""

    def __init__(self) -> None:
        self._waiting: defaultdict[UUID, deque[Attempt]] = defaultdict(deque)

    def add(self, planned: Iterable[Attempt]) -> None:
        """Put attempts at the end of their upstreams' lines."""
        for each in planned:
            self._waiting[each.terms.id].append(each)

    def count(self, upstream_id: UUID) -> int:
        """How many wait for an upstream."""
        return len(self._waiting[upstream_id])

    def take(self, free: Mapping[UUID, int]) -> list[Attempt]:
        """The next ones, at most so many for each upstream."""
        taken: list[Attempt] = []
        for upstream_id, room in free.items():
            line = self._waiting[upstream_id]
            taken += [line.popleft() for _ in range(min(room, len(line)))]
        return taken

    def take_all(self) -> list[Attempt]:
        """Everything, whether its upstream is still known or not."""
        taken = [each for line in self._waiting.values() for each in line]
        self._waiting.clear()
        return taken
